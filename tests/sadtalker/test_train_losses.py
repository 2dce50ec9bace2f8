"""The losses of the renderer's trainings, by numbers that a hand can check."""

import numpy as np
import pytest
import torch

from vocalface.errors import AssetError
from vocalface.sadtalker import losses
from vocalface.sadtalker.discriminator import Judgement
from vocalface.sadtalker.keypoints import rotation
from vocalface.sadtalker.mapping import BINS, Motion
from vocalface.sadtalker.train_facevid2vid import angles, augmented


def judged(*values, features=()):
    return [Judgement([torch.tensor(f, dtype=torch.float32) for f in features], torch.tensor(values).view(1, 1, 1, -1))]


def motion(yaw=0.0, pitch=0.0, roll=0.0, exp=0.0):
    """Bins that expect these angles: of the two nearest, weighted."""

    def logits(angle):
        place = (angle + 99) / 3
        low = int(place)
        out = torch.full((1, BINS), -1e9)
        out[0, low], out[0, low + 1] = np.log(1 - (place - low) + 1e-12), np.log(place - low + 1e-12)
        return out

    return Motion(logits(yaw), logits(pitch), logits(roll), torch.zeros(1, 3), torch.full((1, 45), exp))


def test_hinge():
    real, fake = judged(2.0, 0.5), judged(-3.0, 1.0)
    assert float(losses.telling(real, fake)) == pytest.approx((0 + 0.5) / 2 + (0 + 2) / 2)
    assert float(losses.fooling(fake)) == pytest.approx(1.0)


def test_feature_matching_moves_what_was_made_alone():
    real = judged(0.0, features=[[1.0, 2.0], [5.0]])
    fake = judged(0.0, features=[[0.0, 0.0], [3.0]])
    for judgement in (*real, *fake):
        for features in judgement.features:
            features.requires_grad_()
    total = losses.feature_matching(real, fake)
    assert total.item() == pytest.approx(1.5 + 2.0)
    total.backward()
    assert real[0].features[0].grad is None and fake[0].features[0].grad.tolist() == [-0.5, -0.5]


def test_keypoints_keep_apart_and_lie_at_their_depth():
    far = torch.zeros(1, 3, 3)
    far[0, :, 0], far[0, :, 2] = torch.tensor([-1.0, 0.0, 1.0]), 0.33
    assert losses.keypoint_prior(far).item() == pytest.approx(0, abs=1e-7)
    near = far.clone()
    near[0, 1, 0] = 0.9  # squared distance .01 to the third, counted for both
    assert losses.keypoint_prior(near).item() == pytest.approx(2 * 0.09, abs=1e-6)
    far[..., 2] = 0.13
    assert losses.keypoint_prior(far).item() == pytest.approx(0.2, abs=1e-6)


def test_head_pose_is_in_degrees_and_offsets_add_up():
    wanted = torch.tensor([[10.0, -5.0, 2.0]])
    assert losses.head_pose(motion(10, -5, 2), wanted).item() == pytest.approx(0, abs=1e-3)
    assert losses.head_pose(motion(11, -5, 0), wanted).item() == pytest.approx(3, abs=1e-3)
    assert losses.deformation_prior(motion(exp=-0.1)).item() == pytest.approx(4.5)


def test_equivariance_of_the_identity_and_of_a_known_shift():
    still = losses.Warp(2, torch.Generator().manual_seed(0), affine=0, bend=0)
    points, image = torch.rand(2, 15, 3) - 0.5, torch.rand(2, 3, 17, 17)
    assert torch.allclose(still.picture(image), image, atol=1e-5)
    assert still.equivariance(points, points).item() == 0
    still.affine[:, 0, 2] = 0.25  # an eighth of the width: what was 2 px further right is here now
    assert torch.allclose(still.picture(image)[..., :15], image[..., 2:], atol=1e-5)
    moved = points - torch.tensor([0.25, 0, 0])
    assert still.equivariance(points, moved).item() == pytest.approx(0, abs=1e-6)
    assert still.equivariance(points, points).item() == pytest.approx(0.125)


def test_a_warped_bump_is_found_where_the_warp_says():
    """The picture and the places are moved by one and the same motion."""
    warp = losses.Warp(1, torch.Generator().manual_seed(3), affine=0.1, bend=0.01)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 81), torch.linspace(-1, 1, 81), indexing="ij")
    bump = torch.exp(-80 * ((x - 0.2) ** 2 + (y + 0.1) ** 2)).expand(1, 3, -1, -1)
    seen = warp.picture(bump)[0, 0]
    share = seen / seen.sum()
    where = torch.stack([(share * x).sum(), (share * y).sum()]).view(1, 1, 2)
    assert (warp(where) - torch.tensor([0.2, -0.1])).abs().max() < 0.02


def test_parts_of_a_warp_are_those_of_the_whole():
    whole = losses.Warp(4, torch.Generator().manual_seed(1))
    image = torch.rand(4, 3, 8, 8)
    rows = torch.tensor([1, 3])
    assert torch.equal(whole.part(rows, "cpu").picture(image[rows]), whole.picture(image)[rows])


def test_angles_turn_the_renderers_keypoints_as_the_face_model_turns():
    """The face model: y up, z to the camera, R = Rz Ry Rx. The renderer: y down, z away from it."""
    from scipy.spatial.transform import Rotation

    flip = np.diag([1.0, -1.0, -1.0])
    rows = np.zeros((5, 73))
    rows[:, 64:67] = np.random.default_rng(0).uniform(-0.6, 0.6, (5, 3))
    points = np.random.default_rng(1).normal(size=(7, 3))
    yaw, pitch, roll = torch.from_numpy(angles(rows)).unbind(1)
    ours = rotation(yaw, pitch, roll, pi=np.pi).numpy()
    for row, turn in zip(rows, ours):
        theirs = Rotation.from_euler("xyz", row[64:67]).as_matrix() @ points.T
        assert np.abs(turn @ (flip @ points.T) - flip @ theirs).max() < 1e-5
    rows[:, 64:67] = np.radians([0, 20, 0])  # to the image's right, where z goes away from the camera
    assert np.allclose(angles(rows)[0], [-20, 0, 0], atol=1e-4)


def test_a_mirrored_picture_has_mirrored_angles():
    images, turned = torch.rand(2, 3, 8, 8), torch.tensor([[10.0, 5, -3], [20, -5, 4]])
    plain = np.full(5, 0.5)
    same, angles_ = augmented(images, turned, plain)
    assert torch.allclose(same, images, atol=1e-6) and torch.equal(angles_, turned)
    mirror, angles_ = augmented(images, turned, np.array([0.1, *plain[1:]]))
    assert torch.allclose(mirror, images.flip(-1), atol=1e-6)
    assert torch.equal(angles_, turned * torch.tensor([-1, 1, -1]))
    # A mirrored turn: M R M with M = diag(-1, 1, 1).
    mirrored, M = rotation(*angles_.unbind(1)), torch.diag(torch.tensor([-1.0, 1, 1]))
    assert torch.allclose(mirrored, M @ rotation(*turned.unbind(1)) @ M, atol=1e-6)
    later, angles_ = augmented(images, turned, np.array([0.5, 0.1, 0.5, 0.5, 0.5]))
    assert torch.allclose(later, images.flip(0), atol=1e-6) and torch.equal(angles_, turned.flip(0))


def test_without_vgg_the_perceptual_term_has_another_name_and_with_another_network_an_error():
    term, image = losses.Perceptual(), torch.rand(1, 3, 32, 32)
    assert term(image, image).item() == 0 and term(image, 0.9 * image) > 0 and term.name.startswith("off")
    with pytest.raises(AssetError):
        losses.Vgg19().load_published({"features.0.weight": torch.zeros(64, 3, 3, 3)})


def test_vgg_taps_are_the_first_relus_of_five_blocks():
    vgg = losses.Vgg19()
    taps = vgg(torch.rand(1, 3, 32, 32))
    assert [t.shape[1] for t in taps] == [64, 128, 256, 512, 512]
    assert [t.shape[-1] for t in taps] == [32, 16, 8, 4, 2] and not any(p.requires_grad for p in vgg.parameters())
    assert list(vgg.state_dict())[-1] == "features.28.bias"
    term = losses.Perceptual(vgg, scales=(1, 2))
    made = torch.rand(1, 3, 32, 32, requires_grad=True)
    term(made, made.detach()).backward()
    assert term.name == "VGG-19" and term(made, made.detach()).item() == 0
