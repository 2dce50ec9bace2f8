"""The NumPy run time against the torch model, and the small rules of driving."""

import numpy as np
import pytest
import torch

from vocalface.errors import ConfigError, HeadError
from vocalface.hmtalker.config import Config
from vocalface.hmtalker.drive import mirror, parse_color
from vocalface.hmtalker.head import Head
from vocalface.hmtalker.model import FaceField, GaussianField, MouthField, Swing, outputs
from vocalface.hmtalker.runtime import Runtime, parse_au_edits
from vocalface.hmtalker.scene import matrix_to_quat, quat_product
from vocalface.types import LOWER_AUS, Camera, CropBox


def make(config: Config, dim: int = 20, n: int = 50):
    """A head of random networks, and the modules it was made of."""
    torch.manual_seed(1)
    face_net, mouth_net = FaceField(config, dim), MouthField(config, dim)
    for net in (face_net, mouth_net):
        net.encoder.table.data.normal_(0, 0.3)
    fields = {
        name: GaussianField(torch.rand(n, 3) * 0.2 - 0.1, torch.rand(n, 3), torch.full((n,), 0.01), config.sh_degree)
        for name in ("face", "mouth")
    }
    if config.deformation == "linear":
        fields["face"].basis = torch.nn.Parameter(0.1 * torch.randn(n, outputs(config), config.linear_rank))
    fields["face"].embedding = torch.nn.Parameter(torch.randn(n, config.embedding))
    arrays = {}
    for name, net in (("face", face_net), ("mouth", mouth_net)):
        if fields[name].shn.numel():
            fields[name].shn.data.normal_(0, 0.1)
        arrays.update({f"{name}.{k}": v.numpy() for k, v in fields[name].state_dict().items()})
        arrays.update({f"{name}_net.{k}": v.numpy() for k, v in net.state_dict().items()})
    arrays["feature_mean"], arrays["feature_std"] = np.zeros(dim, np.float32), np.ones(dim, np.float32)
    arrays["closed.c_f"], arrays["closed.mouth"] = np.zeros(32, np.float32), np.zeros(32, np.float32)
    arrays["track.pose"] = np.eye(4, dtype=np.float32)[None]
    head = Head(config, arrays, Camera(500, 500, 64, 64, 128, 128), CropBox(0, 0, 128), "mel")
    return head, face_net, mouth_net, fields


POSE = np.array([[0.96, 0.0, 0.28, 0.01], [0, -1, 0, 0.02], [0.28, 0, -0.96, 0.7], [0, 0, 0, 1]], np.float32)


@pytest.mark.parametrize(
    "change",
    [
        {}, {"sh_degree": 0}, {"fusion": "concat"}, {"fusion": "fixed"}, {"fusion": "implicit"},
        {"fusion": "explicit"}, {"mapper": "expnet"}, {"color_motion": True}, {"deformation": "linear"},
        {"deformation": "linear", "color_motion": True}, {"embedding": 6, "color_motion": True},
    ],
)  # fmt: skip
def test_runtime_equals_the_model(change):
    head, face_net, mouth_net, fields = make(Config(**change))
    runtime = Runtime(head)
    windows = np.random.default_rng(0).normal(size=(3, 8, 20)).astype(np.float32)
    upper = np.random.default_rng(1).random(7).astype(np.float32)
    out = runtime.controls(windows)
    with torch.no_grad():
        motion = face_net.motion(torch.from_numpy(windows), torch.from_numpy(upper))
        np.testing.assert_allclose(out["c_f"], motion.c_f.numpy(), atol=1e-5)
        c_mouth = mouth_net.speech(torch.from_numpy(windows))
        np.testing.assert_allclose(out["mouth"], c_mouth.numpy(), atol=1e-5)
        delta = face_net.deform(face_net.regions(fields["face"]), motion.c_f[0], torch.from_numpy(upper))
        r, t = torch.from_numpy(POSE[:3, :3]), torch.from_numpy(POSE[:3, 3])
        expected = fields["face"].gaussians(delta, -(r.T @ t), head.config.sh_degree)
        inner = mouth_net.deform(mouth_net.encoder(fields["mouth"].means), c_mouth[0])
        expected_inner = fields["mouth"].gaussians(inner, -(r.T @ t), head.config.sh_degree)
    face, mouth = runtime.gaussians(out["c_f"][0], upper, out["mouth"][0], POSE)
    for got, want in ((face, expected), (mouth, expected_inner)):
        np.testing.assert_allclose(got.means, (want.means @ r.T + t).detach().numpy(), atol=1e-6)
        np.testing.assert_allclose(got.quats, quat_product(matrix_to_quat(r), want.quats.detach()).numpy(), atol=1e-5)
        np.testing.assert_allclose(got.scales, want.scales.detach().numpy(), atol=1e-6)
        np.testing.assert_allclose(got.colors, want.colors.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(got.opacities, want.opacities.detach().numpy(), atol=1e-6)


def test_speech_swings_in_the_runtime_as_in_the_model():
    head, face_net, *_ = make(Config())
    windows = np.random.default_rng(0).normal(size=(5, 8, 20)).astype(np.float32)
    plain = Runtime(head).controls(windows)["c_f"]
    centre = plain.mean(0)
    head.arrays["swing.gain"], head.arrays["swing.centre"] = np.array([1.5], np.float32), centre
    face_net.swing = Swing(1.5, torch.from_numpy(centre))
    swung = Runtime(head).controls(windows)["c_f"]
    np.testing.assert_allclose(swung - centre, 1.5 * (plain - centre), atol=1e-5)
    units = torch.rand(5, 10)
    with torch.no_grad():
        given = torch.from_numpy(windows), torch.rand(5, 7), units
        np.testing.assert_allclose(face_net.motion(*given, "audio").c_f.numpy(), swung, atol=1e-5)
        seen = face_net.motion(*given, "vanilla").c_f
        face_net.swing = None
        torch.testing.assert_close(face_net.motion(*given, "vanilla").c_f, seen)


def test_au_edits_act_on_the_predicted_channels_only():
    head, *_ = make(Config())
    runtime = Runtime(head)
    windows = np.random.default_rng(0).normal(size=(2, 8, 20)).astype(np.float32)
    plain, edited = runtime.controls(windows), runtime.controls(windows, parse_au_edits(["AU12=+1.5"]))
    k = LOWER_AUS.index("AU12")
    np.testing.assert_allclose(edited["aus"][:, k], np.clip(plain["aus"][:, k] + 1.5, 0, 5), atol=1e-6)
    others = [i for i in range(10) if i != k]
    np.testing.assert_array_equal(edited["aus"][:, others], plain["aus"][:, others])


def test_au_edits_read_gain_offset_and_value():
    table = parse_au_edits(["AU12=+1.5", "AU26=0.5x", "AU25=2"])
    assert table[LOWER_AUS.index("AU12")].tolist() == [1, 1.5]
    assert table[LOWER_AUS.index("AU26")].tolist() == [0.5, 0]
    assert table[LOWER_AUS.index("AU25")].tolist() == [0, 2]
    with pytest.raises(ConfigError, match="AU01"):
        parse_au_edits(["AU01=+1"])
    with pytest.raises(ConfigError, match="cannot read"):
        parse_au_edits(["AU12=much"])


def test_mirror_has_no_jump():
    assert mirror(np.arange(12), 5).tolist() == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 0, 1]
    assert np.abs(np.diff(mirror(np.arange(100), 7))).max() == 1


def test_colours():
    assert parse_color("#0a0B0c").tolist() == [10, 11, 12]
    assert parse_color("green").tolist() == [0, 255, 0]
    with pytest.raises(ConfigError):
        parse_color("mauve-ish")


def test_head_file_round_trip_and_its_refusals(tmp_path):
    head, *_ = make(Config())
    path = head.save(tmp_path / "a.vface")
    again = Head.load(path)
    assert again.config == head.config and again.camera == head.camera
    assert all(np.array_equal(again.arrays[k], v) for k, v in head.arrays.items())
    assert not list(tmp_path.glob(".*.part"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HeadError, match="truncated"):
        Head.load(path)
    altered = bytearray(whole)
    altered[-5] ^= 0xFF
    path.write_bytes(bytes(altered))
    with pytest.raises(HeadError, match="altered"):
        Head.load(path)
    path.write_bytes(whole.replace(b'\\"schema\\": 1,', b'\\"schema\\": 9,'))
    with pytest.raises(HeadError, match="schema 9"):
        Head.load(path)
    with pytest.raises(HeadError, match="no such head"):
        Head.load(tmp_path / "none.vface")
