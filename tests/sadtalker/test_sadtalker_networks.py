"""The official networks: numbers of the published code under known weights, keys, sizes, and what must hold anyway."""

import pytest
import torch
from compare import error

from vocalface.sadtalker import mapping, recon
from vocalface.sadtalker.expnet import ExpNet
from vocalface.sadtalker.mapping import MappingNet
from vocalface.sadtalker.recon import FaceRecon

pytestmark = pytest.mark.usefixtures("no_gradients")


def keys_and_shapes(build):
    with torch.device("meta"):
        return {key: list(value.shape) for key, value in build().state_dict().items()}


def parameters(build):
    with torch.device("meta"):
        return sum(p.numel() for p in build().parameters())


# ------------------------------------------------------------------------------------------------------------ ExpNet


def test_expnet_parity(parity):
    given, expected = parity.arrays("audio2exp")
    network = ExpNet().eval()
    network.load_state_dict(parity.state("audio2exp"), strict=True)
    assert error(network(given["mel"], given["ref"], given["ratio"]), expected["exp"]) < 1e-5
    # What lies between is larger: in float64 the order of its sums, which differs between processors, plays no part.
    embedding = network.double().audio_encoder(given["mel"].flatten(0, 1).double()).flatten(1)
    assert error(embedding, expected["audio_emb"]) < 1e-5


def test_expnet_structure():
    assert parameters(ExpNet) == 2_849_664
    shapes = keys_and_shapes(ExpNet)
    assert len(shapes) == 13 * 7 + 2
    assert shapes["mapping1.weight"] == [64, 577] and shapes["audio_encoder.12.conv_block.0.weight"] == [512, 512, 1, 1]


def test_expnet_frames_are_independent():
    network = ExpNet().eval()
    mel, reference, blink = torch.randn(1, 7, 1, 80, 16), torch.randn(1, 7, 64), torch.rand(1, 7, 1)
    whole = network(mel, reference, blink)
    parts = [network(mel[:, i : i + 3], reference[:, i : i + 3], blink[:, i : i + 3]) for i in (0, 3, 6)]
    assert error(whole, torch.cat(parts, 1)) < 1e-5
    assert error(whole[0], network(mel[0], reference[0], blink[0])) < 1e-5


# -------------------------------------------------------------------------------------------------------- MappingNet


@pytest.mark.parametrize("channels", [70, 73])
def test_mapping_parity(parity, channels):
    given, expected = parity.arrays(f"mapping_{channels}")
    network = MappingNet(channels).eval()
    network.load_state_dict(parity.state(f"mapping_{channels}"), strict=True)
    for name, value in network(given["x"])._asdict().items():
        assert error(value, expected[name]) < 1e-5, name


def test_mapping_structure():
    assert parameters(lambda: MappingNet(70)) == 10_195_190
    assert parameters(lambda: MappingNet(73)) == 10_216_694
    assert {key.split(".")[0] for key in keys_and_shapes(MappingNet)} == {
        "first", "encoder0", "encoder1", "encoder2", "fc_roll", "fc_pitch", "fc_yaw", "fc_t", "fc_exp",
    }  # fmt: skip


def test_mapping_reads_its_whole_window_and_no_more():
    network = MappingNet(70, width=16)
    coefficients = torch.randn(60, 70)
    motion = network(mapping.window(coefficients, 30))
    for frame, seen in ((16, False), (17, True), (43, True), (44, False)):
        moved = coefficients.clone()
        moved[frame] += 10
        assert (error(motion.exp, network(mapping.window(moved, 30)).exp) > 1e-4) is seen, frame


def test_windows_repeat_the_ends(parity):
    given, expected = parity.arrays("glue")
    windows = mapping.window(given["coeffs"], torch.tensor([0, 29]))
    assert torch.equal(windows[0], expected["window_f0"]) and torch.equal(windows[1], expected["window_f29"])


def test_window_centre():
    coefficients = torch.arange(40.0)[:, None].expand(40, 70)
    windows = mapping.window(coefficients, torch.arange(40))
    assert windows.shape == (40, 70, mapping.WINDOW) and torch.equal(windows[:, 0, mapping.RADIUS], torch.arange(40.0))
    assert mapping.window(coefficients[:1], 0).shape == (1, 70, 27)


# ---------------------------------------------------------------------------------------------------- Deep3DFaceRecon


def test_recon_parity(parity):
    given, expected = parity.arrays("face_3drecon")
    network = FaceRecon().eval()
    network.load_state_dict(parity.state("face_3drecon"), strict=True)
    assert error(network.backbone(given["image"]).flatten(1), expected["feat"]) < 1e-5
    assert error(network(given["image"]), expected["coeff"]) < 1e-5


def test_recon_structure():
    assert parameters(FaceRecon) == 24_034_625
    shapes = keys_and_shapes(FaceRecon)
    assert len(shapes) == 332
    assert shapes["backbone.layer2.0.downsample.0.weight"] == [512, 256, 1, 1]
    assert [shapes[f"final_layers.{i}.bias"] for i in range(7)] == [[80], [64], [80], [3], [27], [2], [1]]


def test_recon_coefficients_are_split_and_kept_in_order():
    coefficients = torch.arange(257.0)[None]
    parts = recon.split(coefficients)
    assert [part[0, 0].item() for part in parts] == [0, 80, 144, 224, 227, 254]
    kept = recon.motion_coefficients(coefficients, torch.tensor([[1000.0, 1001.0, 1002.0]]))
    assert kept.shape == (1, 73)
    assert kept[0].tolist() == [*range(80, 144), *range(224, 227), *range(254, 257), 1000, 1001, 1002]
