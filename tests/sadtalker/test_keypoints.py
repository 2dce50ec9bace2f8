"""Keypoints: numbers of the published code under known weights, and the geometry of a motion."""

import math

import pytest
import torch
from compare import error

from vocalface.sadtalker import keypoints
from vocalface.sadtalker.blocks import AntiAlias, coordinate_grid, gaussians
from vocalface.sadtalker.keypoints import HEEstimator, KPDetector
from vocalface.sadtalker.mapping import Motion

pytestmark = pytest.mark.usefixtures("no_gradients")


def load(network, state):
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert unexpected == [] and set(missing) <= {"down.weight"}
    return network.eval()


def at_rest(batch=1):
    return Motion(*(torch.zeros(batch, n) for n in (66, 66, 66, 3, 45)))


def test_keypoint_detector_parity(parity):
    given, expected = parity.arrays("kp_extractor_256")
    network = load(KPDetector(), parity.state("kp_extractor_256"))
    assert error(network.down(given["image"]), expected["down"]) < 1e-5
    assert error(network(given["image"]), expected["value"]) < 1e-5


@pytest.mark.slow
def test_keypoint_heat_parity(parity):
    given, expected = parity.arrays("kp_extractor_256")
    network = load(KPDetector(), parity.state("kp_extractor_256"))
    logits = network.double().logits(given["image"].double())  # free of the order in which a processor sums
    assert error(logits[:, :, ::4, ::4, ::4], expected["heat_logits_ds4"]) < 1e-5


def test_head_and_expression_estimator_parity(parity):
    given, expected = parity.arrays("he_estimator")
    motion = load(HEEstimator(), parity.state("he_estimator"))(given["image"])
    for name, value in motion._asdict().items():
        assert error(value, expected[name]) < 1e-5, name


def test_structure():
    with torch.device("meta"):
        detector, estimator = KPDetector(), HEEstimator()
    assert sum(p.numel() for p in detector.parameters()) == 41_940_047
    assert len(detector.state_dict()) == 75 and len(estimator.state_dict()) == 402
    assert detector.state_dict()["predictor.conv.weight"].shape == (16384, 1024, 1, 1)
    assert "block5.b5_4.norm3.running_var" in estimator.state_dict() and "block6.skip.weight" in estimator.state_dict()


def test_detector_finds_points_inside_the_picture_at_any_size():
    network = KPDetector(base=2, depth=4, blocks=2).eval()
    for height, width in ((64, 64), (128, 64)):
        points = network(torch.rand(2, 3, height, width))
        assert points.shape == (2, 15, 3) and points.abs().max() <= 1


def test_soft_argmax_reads_x_y_z():
    network = KPDetector(base=2, depth=4, blocks=2).eval()
    logits = torch.zeros(1, 15, 4, 8, 8)
    logits[:, :, 3, 0, 7] = 100  # deep, top, right
    network.logits = lambda image: logits
    assert error(network(torch.zeros(1, 3, 32, 32)), torch.tensor([1.0, -1.0, 1.0]).expand(1, 15, 3)) < 1e-4


def test_anti_alias_keeps_brightness_and_removes_stripes():
    image = torch.full((1, 3, 64, 64), 0.5)
    image[..., ::2] += 0.5
    small = AntiAlias(4)(image)[..., 4:-4, 4:-4]
    assert small.shape == (1, 3, 8, 8) and (small - 0.75).abs().max() < 1e-3
    assert torch.equal(AntiAlias(1)(image), image)


def test_bumps_are_highest_at_their_keypoint():
    grid = coordinate_grid(5, 9, 9, torch.zeros(1))
    assert grid[0, 0, 0].tolist() == [-1, -1, -1] and grid[-1, -1, 0].tolist() == [-1, 1, 1]
    bumps = gaussians(torch.tensor([[[0.5, -0.5, 0.0]]]), grid)
    assert bumps.shape == (1, 1, 5, 9, 9) and bumps[0, 0, 2, 2, 6] == 1 == bumps.max()


def test_angles_span_the_bins():
    logits = torch.full((3, 66), -1000.0)
    logits[0, 0] = logits[1, 33] = logits[2, 65] = 0
    assert keypoints.degrees(logits).tolist() == [-99, 0, 96]


def test_rotation_is_a_rotation_about_the_named_axes():
    angles = [torch.tensor([a]) for a in (30.0, -20.0, 10.0)]
    matrix = keypoints.rotation(*angles, pi=math.pi)[0]
    assert error(matrix @ matrix.T, torch.eye(3)) < 1e-6 and torch.linalg.det(matrix) > 0
    x, y, z = torch.eye(3)
    zero, quarter = torch.zeros(1), torch.tensor([90.0])
    assert error(keypoints.rotation(quarter, zero, zero, math.pi)[0] @ z, x) < 1e-6
    assert error(keypoints.rotation(zero, quarter, zero, math.pi)[0] @ y, z) < 1e-6
    assert error(keypoints.rotation(zero, zero, quarter, math.pi)[0] @ x, y) < 1e-6


def test_a_motion_moves_keypoints():
    canonical = torch.rand(1, 15, 3) - 0.5
    # Level logits expect -1.5 degrees, the middle of the bins: the rest pose must be asked for.
    straight = dict.fromkeys(("yaw", "pitch", "roll"), torch.zeros(4))
    rest = at_rest(4)
    assert error(keypoints.transform(canonical, rest, **straight), canonical.expand(4, -1, -1)) < 1e-6
    moved = rest._replace(t=torch.tensor([[0.3, 0.2, 0.1]]).expand(4, -1), exp=torch.full((4, 45), 0.05))
    offset = keypoints.transform(canonical, moved, **straight) - canonical
    assert error(offset, torch.tensor([0.05, 0.25, 0.05]).expand(4, 15, 3)) < 1e-6
    turned = keypoints.transform(canonical, rest, yaw=torch.tensor([0.0, 10, 20, 30]))
    assert error(turned[1:], keypoints.transform(canonical, at_rest(3), yaw=torch.tensor([10.0, 20, 30]))) < 1e-6
    assert (turned[3, :, 0] - turned[0, :, 0]).abs().max() > 0.05
