"""The renderer and its discriminator: numbers of the published code under known weights, and what must hold anyway."""

import pytest
import torch
from compare import error

from vocalface.nn.spade import SPADEResnetBlock, fold_spectral_norm, unfold_spectral_norm
from vocalface.sadtalker.discriminator import MultiScaleDiscriminator
from vocalface.sadtalker.facevid2vid import MASK_FLOOR, OcclusionAwareSPADEGenerator

pytestmark = pytest.mark.usefixtures("no_gradients")

TINY = {"base": 4, "volume": 4, "depth": 4, "blocks": 2}


def tiny(**options):
    torch.manual_seed(0)
    return OcclusionAwareSPADEGenerator(**TINY, **options).eval()


@pytest.mark.slow
def test_generator_parity(parity):
    given, expected = parity.arrays("generator_256")
    network = OcclusionAwareSPADEGenerator().eval()
    state = parity.state("generator_256")
    assert state.keys() == parity.shapes["generator"].keys()
    network.load_state_dict(fold_spectral_norm(state), strict=True)
    source = network.encode(given["image"], given["kp_source"])
    rendering = network.draw(source, given["kp_driving"])
    assert error(source.volume[:, :, ::4, ::4, ::4], expected["feature_3d_ds4"]) < 1e-5
    assert error(rendering.flow.mask[..., ::2, ::2, ::2], expected["mask_ds2"]) < 1e-5
    assert error(rendering.flow.deformation[:, ::2, ::2, ::2], expected["deformation_ds2"]) < 1e-5
    assert error(rendering.flow.occlusion, expected["occlusion_map"]) < 1e-5
    assert error(rendering.prediction, expected["prediction"]) < 5e-5


def test_spectral_fold_parity(parity):
    _, expected = parity.arrays("spectral_fold")
    entry, layer = parity.manifest["spectral_fold.npz"], "decoder.up_0.conv_0"
    shapes = {key: shape for key, shape in parity.shapes["generator"].items() if key.startswith(layer)}
    arrays = parity.fill.fill_state_dict(shapes, entry["gain"], entry["gain_overrides"])
    folded = fold_spectral_norm({key: torch.from_numpy(array) for key, array in arrays.items()})
    assert folded.keys() == {f"{layer}.weight", f"{layer}.bias"}
    assert error(folded[f"{layer}.weight"][:8], expected["up_0_conv_0_effective_weight_8"]) < 1e-5


def test_published_keys_and_shapes(parity):
    with torch.device("meta"):
        for network, name in (
            (OcclusionAwareSPADEGenerator(spectral=True), "generator"),
            (MultiScaleDiscriminator(), "discriminator"),
        ):
            shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
            assert shapes == parity.shapes[name], name


def test_discriminator_parity(parity):
    given, expected = parity.arrays("discriminator")
    network = MultiScaleDiscriminator().eval()
    network.load_state_dict(parity.state("discriminator"), strict=True)
    (judgement,) = network(given["image"])
    assert error(judgement.prediction, expected["pred"]) < 1e-5
    # In float64, free of the order in which a processor sums; the published features' own rounding comes to 1.3e-5.
    (judgement,) = network.double()(given["image"].double())
    for i, features in enumerate(judgement.features):
        assert error(features[..., ::4, ::4], expected[f"feat{i}_ds4"]) < 1.5e-5


def test_structure():
    with torch.device("meta"):
        network = OcclusionAwareSPADEGenerator()
    assert sum(p.numel() for p in network.parameters()) == 100_988_176
    assert {key.split(".")[0] for key in network.state_dict()} == {
        "dense_motion_network", "first", "down_blocks", "second", "resblocks_3d", "third", "fourth", "decoder",
    }  # fmt: skip
    assert not any("weight_orig" in key for key in network.state_dict())


def test_folding_does_not_change_the_picture():
    trained, folded = tiny(spectral=True), tiny()
    state = trained.state_dict()
    folded.load_state_dict(fold_spectral_norm(state), strict=True)
    image, source, driving = torch.rand(1, 3, 32, 32), torch.rand(1, 15, 3) - 0.5, torch.rand(1, 15, 3) - 0.5
    a, b = trained(image, source, driving), folded(image, source, driving)
    assert error(a.prediction, b.prediction) < 1e-5
    assert fold_spectral_norm(folded.state_dict()).keys() == folded.state_dict().keys()


def test_unfolding_gives_spectral_norm_back():
    torch.manual_seed(0)
    plain, spectral = SPADEResnetBlock(8, 4, 6, hidden=8), SPADEResnetBlock(8, 4, 6, hidden=8, spectral=True)
    layers = ("conv_0", "conv_1", "conv_s")
    with torch.no_grad():
        for layer in layers:
            weight = getattr(plain, layer).weight
            weight /= torch.linalg.matrix_norm(weight.flatten(1), 2)
    spectral.load_state_dict(unfold_spectral_norm(plain.state_dict(), layers), strict=True)
    x, guide = torch.randn(2, 8, 8, 8), torch.randn(2, 6, 4, 4)
    assert error(spectral.eval()(x, guide), plain(x, guide)) < 1e-5


def test_frames_of_a_batch_share_one_source():
    network = tiny()
    source = network.encode(torch.rand(1, 3, 32, 48), torch.rand(1, 15, 3) - 0.5)
    driving = torch.rand(3, 15, 3) - 0.5
    together = network.draw(source, driving).prediction
    assert together.shape == (3, 3, 32, 48) and together.min() > 0 and together.max() < 1
    alone = torch.cat([network.draw(source, driving[i : i + 1]).prediction for i in range(3)])
    assert error(together, alone) < 1e-5


def test_a_still_face_comes_from_where_it_is():
    network = tiny()
    keypoints = torch.rand(1, 15, 3) - 0.5
    flow = network(torch.rand(1, 3, 32, 32), keypoints, keypoints).flow
    # All sixteen proposals agree; what is left of their weights decides how near the flow comes to standing still.
    kept = flow.mask.where(flow.mask >= MASK_FLOOR, torch.zeros(())).sum(1)[..., None]
    x = flow.deformation / kept
    assert error(x[0, 0, 0, 0], -torch.ones(3)) < 1e-5 and error(x[0, -1, -1, -1], torch.ones(3)) < 1e-5
    assert error(flow.mask.sum(1, keepdim=True), torch.ones(1, 1, 4, 8, 8)) < 1e-5
    assert flow.occlusion.min() > 0 and flow.occlusion.max() < 1


def test_every_part_learns():
    with torch.enable_grad():
        network, critic = tiny(spectral=True).train(), MultiScaleDiscriminator((1, 2), base=4, blocks=3)
        picture = network(torch.rand(2, 3, 64, 64), torch.rand(2, 15, 3) - 0.5, torch.rand(2, 15, 3) - 0.5).prediction
        judgements = critic(picture)
        sum(j.prediction.mean() + j.features[0].mean() for j in judgements).backward()
    assert len(judgements) == 2 and set(critic.discs) == {"1", "0-5"}
    for model in (network, critic):
        # A bias in front of a norm has no effect; every weight has one.
        still = [n for n, p in model.named_parameters() if "weight" in n and (p.grad is None or not p.grad.any())]
        assert still == []


def test_pictures_keep_no_buffers_of_the_scales():
    assert not any("downs" in key for key in MultiScaleDiscriminator((1, 2)).state_dict())
