"""Speech features: the mel of Wav2Lip, our articulatory network, AVE, HuBERT's and DeepSpeech's edges."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocalface.errors import AssetError, ConfigError
from vocalface.observe.speech import NAMES, articulatory, extractor, mel
from vocalface.presenter import articulation, voice
from vocalface.types import Sound, frames_for

SHARED = os.environ.get("VOCALFACE_TEST_DATA")


@pytest.fixture(scope="module")
def speech():
    return voice.speak(voice.script(8, 5), voice="ben", seed=5)


def streamed(feature, samples, cuts):
    stream = feature.stream()
    edges = [0, *sorted(c % (len(samples) + 1) for c in cuts), len(samples)]
    parts = [stream.push(samples[a:b]) for a, b in itertools.pairwise(edges)]
    return np.concatenate([*parts, stream.flush()])


# ------------------------------------------------------------------------------------------------------------ log-mel


@pytest.mark.skipif(not SHARED, reason="VOCALFACE_TEST_DATA is not set")
def test_mel_equals_wav2lip():
    data = np.load(Path(SHARED) / "parity" / "mel.npz")
    samples = data["in__wav"][: int(data["out__length"])]
    assert np.abs(mel.mel_basis() - data["out__mel_basis"]).max() < 1e-8
    assert np.abs(mel.log_mel(samples) - data["out__mel"]).max() < 2e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 20_000), st.lists(st.integers(0, 20_000), max_size=6), st.integers(0, 99))
def test_mel_has_80_columns_a_second_and_streams(count, cuts, seed):
    samples = np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)
    columns = mel.log_mel(samples)
    assert columns.shape == (1 + count // 200, 80) and columns.min() >= -4 and columns.max() <= 4
    stream = mel.MelStream()
    edges = [0, *sorted(c % (count + 1) for c in cuts), count]
    parts = [stream.push(samples[a:b]) for a, b in itertools.pairwise(edges)]
    assert np.allclose(mel.normalise(np.concatenate([*parts, stream.flush()])), columns, atol=1e-5)


def test_a_tone_lights_its_own_band():
    time = np.arange(16000) / 16000
    columns = mel.mel_db(np.sin(2 * np.pi * 1000 * time))
    centres = (mel.mel_basis() * np.arange(401) * 20).sum(1) / mel.mel_basis().sum(1)
    assert centres[columns[40].argmax()] == pytest.approx(1000, abs=40)


# --------------------------------------------------------------------------------------------- what all features share


@pytest.mark.parametrize("name", ["mel", "articulatory"])
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 40_000), st.lists(st.integers(0, 40_000), max_size=8))
def test_a_stream_and_a_file_agree(name, speech, count, cuts):
    samples = speech.sound.samples[:count]
    feature = extractor(name)
    whole = feature(Sound(samples, 16000))
    assert whole.shape == (frames_for(count), feature.dim) and whole.dtype == np.float32
    assert np.isfinite(whole).all()
    assert np.allclose(streamed(feature, samples, cuts), whole, atol=1e-5)


@pytest.mark.parametrize("name", ["mel", "articulatory"])
def test_look_ahead_is_as_stated_and_no_more(name, speech):
    """Row i depends on nothing past frame i + lookahead, and a stream owes no row longer than that."""
    feature = extractor(name)
    samples = speech.sound.samples[:64_000].copy()
    before = feature(Sound(samples, 16000))
    samples[32_000:] = np.random.default_rng(0).normal(0, 0.3, 32_000)  # from frame 50 on
    changed = np.abs(feature(Sound(samples, 16000)) - before).max(axis=1) > 1e-4
    assert 0 <= np.flatnonzero(changed)[0] - (50 - feature.lookahead) <= 1
    stream = feature.stream()
    for i in range(60):
        stream.push(samples[i * 640 : (i + 1) * 640])
        assert stream.emitted >= i + 1 - feature.lookahead


@pytest.mark.parametrize("name", ["mel", "articulatory"])
def test_silence_noise_and_a_single_sample_are_fine(name):
    feature = extractor(name)
    for samples in (np.zeros(16000), np.random.default_rng(0).normal(0, 0.3, 16000), np.ones(1)):
        rows = feature(Sound(samples.astype(np.float32), 16000))
        assert np.isfinite(rows).all() and np.abs(rows).max() < 30


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(ConfigError, match="Unknown speech feature"):
        extractor("wavlm")
    with pytest.raises(ConfigError, match="16000 Hz"):
        extractor("mel")(Sound(np.zeros(100, np.float32), 8000))
    stream = extractor("mel").stream()
    stream.flush()
    with pytest.raises(ConfigError, match="flushed"):
        stream.push(np.zeros(10, np.float32))
    bad = tmp_path / "bad.safetensors"
    with pytest.raises(AssetError, match="absent"):
        extractor("articulatory", str(bad))
    bad.write_bytes(b"not tensors at all")
    with pytest.raises(AssetError, match="cannot be read"):
        extractor("articulatory", str(bad))


def test_the_default_features_do_not_need_torch():
    code = (
        "import sys, numpy as np; from vocalface.observe.speech import extractor; from vocalface.types import Sound\n"
        "for n in ('articulatory', 'mel'): extractor(n)(Sound(np.zeros(9000, np.float32), 16000))\n"
        "assert not {'torch', 'mediapipe', 'cv2'} & set(sys.modules)"
    )
    source = str(Path(articulatory.__file__).parents[3])
    env = {**os.environ, "PYTHONPATH": source}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, cwd="/")
    assert NAMES[0] == "articulatory"


# --------------------------------------------------------------------------------------------- articulatory network


def test_the_shipped_weights_are_small_and_say_what_they_are():
    from safetensors import safe_open

    assert articulatory.WEIGHTS.stat().st_size < 1_000_000
    with safe_open(articulatory.WEIGHTS, framework="numpy") as file:
        config = json.loads(file.metadata()["config"])
    assert config["schema"] == articulatory.SCHEMA and set(config["figures"]["r"]) == set(articulatory.MOTIONS)
    assert articulatory.MOTIONS == articulation.MOTIONS


def test_the_feature_does_not_mind_the_recording_level(speech):
    feature = extractor()
    loud = feature(speech.sound)
    soft = feature(Sound(speech.sound.samples * np.float32(0.1), 16000))
    later = slice(75, None)  # the running level has settled
    assert np.corrcoef(loud[later].ravel(), soft[later].ravel())[0, 1] > 0.95


def test_the_network_hears_what_an_unheard_voice_articulates():
    """A voice between the trained ones, words in another order: the motions come back from the sound alone."""
    said = voice.speak(voice.script(20, 9001), voice=voice.Voice(150, 1.07, tilt=0.4), seed=9001)
    frames = frames_for(len(said.sound.samples))
    _, truth = articulation.articulate(said.phones, frames, effort=0)
    guess = extractor().motions(said.sound)
    r = {name: np.corrcoef(guess[:, k], truth[name])[0, 1] for k, name in enumerate(articulatory.MOTIONS)}
    assert r["jaw"] > 0.75 and r["round"] > 0.7 and r["width"] > 0.65 and r["gap"] > 0.55
    shuffled = np.roll(guess, frames // 2, axis=0)
    assert abs(np.corrcoef(shuffled[:, 0], truth["jaw"])[0, 1]) < 0.3


def test_normaliser_is_causal_and_levels_speech(speech):
    db = mel.mel_db(speech.sound.samples)
    prior = articulatory.load().prior_mean
    whole = articulatory.Normaliser(prior).push(db)
    part = articulatory.Normaliser(prior)
    pieces = np.concatenate([part.push(db[:17]), part.push(db[17:17]), part.push(db[17:])])
    assert np.allclose(whole, pieces, atol=1e-6)
    changed = db.copy()
    changed[300:] += 20
    assert np.array_equal(articulatory.Normaliser(prior).push(changed)[:300], whole[:300])
    louder = articulatory.Normaliser(prior).push(db + 15)[200:]
    assert np.abs(louder - whole[200:]).mean() < 0.2


# ----------------------------------------------------------------------------------------------------- AVE and others


@pytest.fixture(scope="module")
def ave_weights(tmp_path_factory):
    """A checkpoint with the official names, filled at random."""
    import torch

    from vocalface.nn.audio import AudioEncoder

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("ave") / "audio_visual_encoder.pth"
    torch.save(AudioEncoder().state_dict(), path)
    return path


def test_ave_network_has_its_published_size():
    import torch

    from vocalface.nn.audio import AudioEncoder

    network = AudioEncoder().eval()
    assert sum(p.numel() for p in network.parameters()) == 2_812_672
    assert network(torch.zeros(2, 80, 16)).shape == (2, 512)
    assert all(name.startswith("audio_encoder.") for name in network.state_dict())


def test_ave_windows_count_as_in_the_reference():
    """F frames of sound give F + 1 rows once both ends are repeated (25 -> 26, 250 -> 251, 7637 -> 7638)."""
    from vocalface.observe.speech import ave

    for frames in (10, 25, 250, 1000, 7637):
        starts = ave.window_starts(1 + frames * 640 // 200)
        assert len(starts) + 4 == frames + 1
        assert starts[0] == 0 and starts[-1] + 16 <= 1 + frames * 640 // 200
        assert starts[3] == 9


@pytest.mark.parametrize("count", [1, 1000, 3200, 16_000, 24_321])
def test_ave_rows_follow_the_edge_rule_and_stream(ave_weights, speech, count):
    import torch

    from vocalface.observe.speech import ave

    feature = extractor("ave", str(ave_weights))
    samples = speech.sound.samples[4000 : 4000 + count]
    rows = feature(Sound(samples, 16000))
    frames = frames_for(count)
    assert rows.shape == (frames, 512) and rows.min() >= 0
    columns = mel.log_mel(np.pad(samples, (0, frames * 640 - count)))
    columns = np.pad(columns, ((0, max(16 - len(columns), 0)), (0, 0)), constant_values=-4)
    windows = np.stack([columns[s : s + 16].T for s in ave.window_starts(len(columns))])
    with torch.inference_mode():
        plain = feature.network(torch.from_numpy(windows)).numpy()
    expected = plain[np.clip(np.arange(frames) - 2, 0, len(plain) - 1)]
    assert np.allclose(rows, expected, atol=1e-5)
    assert np.allclose(streamed(feature, samples, (7, 700, 9000)), rows, atol=1e-5)


def test_ave_checkpoint_is_checked(tmp_path, ave_weights):
    import torch

    from vocalface.observe.speech import ave

    state = torch.load(ave_weights, weights_only=True)
    bare = tmp_path / "bare.pth"
    torch.save({k.removeprefix("audio_encoder."): v for k, v in state.items()}, bare)
    assert ave.load(bare) is not None
    state.pop("audio_encoder.3.conv_block.0.weight")
    state["audio_encoder.99.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(AssetError, match=r"1 missing.*3\.conv_block\.0\.weight.*1 unexpected"):
        ave.load(tmp_path / "wrong.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(AssetError, match="Not a readable checkpoint"):
        ave.load(tmp_path / "text.pth")
    with pytest.raises(AssetError, match="not here"):
        extractor("ave", str(tmp_path / "none.pth"))


@pytest.mark.skipif(not SHARED, reason="VOCALFACE_TEST_DATA is not set")
def test_audio_trunk_equals_the_official_one():
    """Wav2Lip's trunk under weights computed from their names: the same 512 numbers."""
    import torch

    from vocalface.nn.audio import AudioEncoder

    parity = Path(SHARED) / "parity"
    spec = importlib.util.spec_from_file_location("fill", parity / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    manifest = json.loads((parity / "manifest.json").read_text())["wav2lip.npz"]
    network = AudioEncoder().eval()
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    arrays = fill.fill_state_dict(shapes, manifest["gain"], manifest["gain_overrides"])
    network.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})
    data = np.load(parity / "wav2lip.npz")
    with torch.inference_mode():
        rows = network(torch.from_numpy(data["in__mel"][:, 0])).numpy()
    assert np.abs(rows - data["out__audio_emb"]).max() < 1e-4 * np.abs(rows).max()


@pytest.mark.parametrize("count", [1, 640, 8_000, 321_000])
def test_hubert_blocks_give_a_row_a_frame_and_stream(count):
    """The network is stood in for by one that names its steps: 50 a second, two short at the end."""
    from vocalface.observe.speech import hubert

    def steps(samples):
        ends = np.arange(400, len(samples) + 1, 320)
        return np.stack([samples[e - 400 : e - 80].mean() * np.ones(3) for e in ends]).astype(np.float32)

    samples = np.arange(count, dtype=np.float32) / 1e5

    def run(cuts):
        stream = hubert._HubertStream(steps, 6)
        parts = [stream.push(p) for p in np.split(samples, [c for c in cuts if c < count])]
        return np.concatenate([*parts, stream.flush()])

    rows = run([])
    assert rows.shape == (frames_for(count), 6)
    assert np.allclose(rows, run([5, 500, 100_000, 320_010]))
    if count == 321_000:
        assert rows[100, 0] == pytest.approx(samples[64_000:64_320].mean(), rel=1e-4)
        assert rows[500, 0] == pytest.approx(samples[320_000:320_320].mean(), rel=1e-4)


def test_hubert_without_its_weights_says_how_to_get_them(tmp_path):
    with pytest.raises((AssetError, ConfigError)) as error:
        extractor("hubert", str(tmp_path / "hubert"))
    assert "vocalface" in error.value.fix


def test_deepspeech_reads_a_table(tmp_path):
    table = np.random.default_rng(0).normal(size=(24, 16, 29))
    np.save(tmp_path / "aud_ds.npy", table)
    feature = extractor("deepspeech", str(tmp_path / "aud_ds.npy"))
    rows = feature(Sound(np.zeros(16_000, np.float32), 16000))
    assert rows.shape == (25, feature.dim) and np.allclose(rows[24], table[23].ravel(), atol=1e-6)
    with pytest.raises(ConfigError, match="24 rows"):
        feature(Sound(np.zeros(64_000, np.float32), 16000))
    with pytest.raises(ConfigError, match="streamed"):
        feature.stream()
    with pytest.raises(ConfigError, match="from a file"):
        extractor("deepspeech")
    np.save(tmp_path / "flat.npy", np.zeros((5, 3)))
    with pytest.raises(AssetError, match="Expected rows"):
        extractor("deepspeech", str(tmp_path / "flat.npy"))
