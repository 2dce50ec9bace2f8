import pytest
import torch
from compare import error

from vocalface.nn.wav2lip import PictureCritic, SyncNetColor, Wav2Lip, lower_halves, sync_loss

pytestmark = pytest.mark.usefixtures("no_gradients")


def build(network):
    torch.manual_seed(0)
    return network().eval()


def test_wav2lip_parity(parity):
    given, expected = parity.arrays("wav2lip")
    network = build(Wav2Lip)
    network.load_state_dict(parity.state("wav2lip"), strict=True)
    assert error(network(given["mel"], given["face"]), expected["face_out"]) < 1e-5
    # What lies between is larger: in float64 the order of its sums, which differs between processors, plays no part.
    embedding = network.audio_encoder.double()(given["mel"].double()).flatten(1)
    assert error(embedding, expected["audio_emb"]) < 1e-5


def test_syncnet_parity(parity):
    given, expected = parity.arrays("syncnet_color")
    network = build(SyncNetColor)
    network.load_state_dict(parity.state("syncnet_color"), strict=True)
    voice, picture = network(given["mel"], given["face"])
    assert error(voice, expected["audio"]) < 1e-5
    assert error(picture, expected["video"]) < 1e-5


@pytest.mark.parametrize(
    "network, name", [(Wav2Lip, "wav2lip"), (SyncNetColor, "syncnet_color"), (PictureCritic, "wav2lip_disc")]
)
def test_keys_and_shapes_are_the_published_ones(parity, network, name):
    with torch.device("meta"):
        state = network().state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == parity.shapes[name]


@pytest.mark.parametrize(
    "network, parameters", [(Wav2Lip, 36_298_035), (SyncNetColor, 16_435_072), (PictureCritic, 14_113_793)]
)
def test_size(network, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in network().parameters()) == parameters


def test_wav2lip_uses_voice_and_reference():
    network = build(Wav2Lip).double()  # at its initial weights the voice weighs little
    mel, face = torch.randn(1, 1, 80, 16).double(), torch.rand(1, 6, 96, 96).double()
    out = network(mel, face)
    assert out.shape == (1, 3, 96, 96) and out.min() > 0 and out.max() < 1
    other = face.clone()
    other[:, 3:] = 0
    assert error(out, network(mel, other)) > 1e-9
    assert error(out, network(mel + 1, face)) > 1e-9


def test_sync_vectors_have_length_one_and_lose_little_when_equal():
    network = build(SyncNetColor)
    faces = lower_halves(torch.rand(2, 3, 5, 96, 96))
    voice, picture = network(torch.randn(2, 1, 80, 16), faces)
    assert torch.allclose(voice.norm(dim=1), torch.ones(2)) and torch.allclose(picture.norm(dim=1), torch.ones(2))
    assert sync_loss(voice, voice) < 1e-4 < sync_loss(voice, picture)
    assert sync_loss(voice, voice, 0.0) > 5


def test_lower_halves_keep_frames_whole():
    faces = torch.rand(2, 3, 5, 96, 96)
    halves = lower_halves(faces)
    assert halves.shape == (2, 15, 48, 96)
    assert torch.equal(halves[:, 3:6], faces[:, :, 1, 48:])


def test_critic_gives_a_probability():
    out = build(PictureCritic)(torch.rand(3, 3, 48, 96))
    assert out.shape == (3,) and ((out > 0) & (out < 1)).all()
