"""The open motion networks: a stream is the file, nothing is heard too early, heads live, lips close."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from vocalface.errors import AssetError, ConfigError
from vocalface.observe.speech.articulatory import MOTIONS
from vocalface.presenter import voice
from vocalface.sadtalker import motion, open_expnet, open_posevae
from vocalface.sadtalker.motion import Opening, SpeechMotion, Style, poses
from vocalface.sadtalker.open_weights import Context, load, save
from vocalface.sadtalker.prosody import AHEAD, PROSODY, Prosody, rows_of
from vocalface.types import FPS, SPEECH_RATE, Sound


@cache
def said():
    return voice.speak(voice.script(8, 5), voice="ben", seed=5)


@cache
def drawn() -> np.ndarray:
    """Aperture, jaw, three angles, two shifts, brow, blink [F, 9] of the whole speech at once."""
    return table(poses([said().sound.samples]))


def table(made) -> np.ndarray:
    return np.array([[p.aperture, p.jaw, *p.angles, *p.shift, p.brow, p.blink] for p in made])


# ------------------------------------------------------------------------------------------------------------- prosody
def test_prosody_hears_pitch_silence_and_loudness():
    t = np.arange(2 * SPEECH_RATE) / SPEECH_RATE
    for hertz in (90, 150, 310):
        tone = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 8))
        voicing, octave = _pitch(tone)
        assert voicing > 0.9 and abs(octave - np.log2(hertz)) < 0.03
    noise = np.random.default_rng(0).normal(size=len(t))
    assert _pitch(noise)[0] < 0.2
    rows = rows_of(Sound(np.concatenate([0.1 * tone, np.zeros(SPEECH_RATE)]).astype(np.float32), SPEECH_RATE))
    assert rows[10:40, PROSODY.index("silent")].max() == 0 and rows[-10:, PROSODY.index("silent")].min() == 1
    assert rows[20:40, 0].min() > 0.7 and rows[-10:, 0].max() == 0


def _pitch(samples):
    from vocalface.sadtalker.prosody import pitch

    voicing, octave = pitch(samples[4000:5024][None])
    return voicing[0], octave[0]


@pytest.mark.parametrize("size", [100, 640, 7777])
def test_prosody_of_a_stream_is_that_of_the_file(size):
    samples = said().sound.samples[: 3 * SPEECH_RATE + 123]
    stream = Prosody()
    rows = [stream.push(samples[k : k + size]) for k in range(0, len(samples), size)]
    whole = rows_of(Sound(samples, SPEECH_RATE))
    assert np.abs(np.concatenate([*rows, stream.flush()]) - whole).max() < 1e-5 and len(whole) == 76


def test_prosody_looks_no_further_ahead_than_it_says():
    samples = said().sound.samples[: 2 * SPEECH_RATE].copy()
    frame = 25
    changed = samples.copy()
    changed[(frame + 1 + AHEAD) * 640 :] = 0.3
    a, b = (rows_of(Sound(s, SPEECH_RATE)) for s in (samples, changed))
    assert np.array_equal(a[: frame + 1], b[: frame + 1]) and not np.array_equal(a, b)


# ------------------------------------------------------------------------------------------------------------ networks
def test_context_repeats_the_edges():
    context = Context(2, 1)
    rows = np.arange(5.0)[:, None]
    blocks = [context.push(rows[:1]), context.push(rows[1:4]), context.push(rows[4:]), context.flush()]
    windows = [b[k : k + 4, 0].tolist() for b in blocks if b is not None for k in range(len(b) - 3)]
    assert windows == [[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 4]]


@pytest.mark.parametrize("rows", [1, 2, 5, 40])
def test_expnet_streams(rows):
    network = open_expnet.OpenExpNet()
    x = np.random.default_rng(1).normal(size=(rows, 176)).astype(np.float32)
    stream = network.stream()
    out = [stream.push(x[k : k + 3]) for k in range(0, rows, 3)] + [stream.flush()]
    assert np.concatenate(out).shape == (rows, len(MOTIONS))
    assert np.abs(np.concatenate(out) - network(x)).max() < 1e-5


def test_expnet_finds_what_its_teacher_knows():
    from vocalface.observe.speech.articulatory import ArticulatoryFeature
    from vocalface.presenter.articulation import articulate

    guess = open_expnet.OpenExpNet()(ArticulatoryFeature()(said().sound))
    _, true = articulate(said().phones, len(guess))
    for name, least in (("gap", 0.75), ("jaw", 0.75), ("round", 0.7), ("width", 0.7)):
        assert np.corrcoef(guess[:, MOTIONS.index(name)], true[name])[0, 1] > least


def test_posevae_has_no_seams_and_streams():
    network = open_posevae.OpenPoseVAE()
    heard = rows_of(said().sound)
    whole = network(heard, style=3, seed=2)
    stream = network.stream(3, 2)
    parts = [stream.push(heard[k : k + 7]) for k in range(0, len(heard), 7)] + [stream.flush()]
    assert np.abs(np.concatenate(parts) - whole).max() < 1e-5 and whole.shape == (len(heard), 6)
    jerk = np.abs(np.diff(whole[:, :3], 2, axis=0)).max(1)
    grid = np.zeros(len(jerk), bool)
    grid[open_posevae.STRIDES[0] - 1 :: open_posevae.STRIDES[0]] = True
    assert jerk[grid].mean() < 1.3 * jerk[~grid].mean()  # the latents' knots are not seen


def test_posevae_lives_and_differs():
    network = open_posevae.OpenPoseVAE()
    heard = np.tile(rows_of(said().sound), (4, 1))
    heads = np.degrees(np.array([network(heard, 3, seed)[:, :3] for seed in range(5)]))
    assert (heads.std(1).mean(0) > (0.8, 0.8, 0.5)).all() and np.abs(heads).max() < 25
    assert np.abs(np.corrcoef(heads[:, :, 0])[np.triu_indices(5, 1)]).mean() < 0.5  # a seed is a way of its own
    calm, lively = (np.abs(np.diff(network(heard, style, 0), axis=0)).mean() for style in (0, 7))
    assert lively > 1.5 * calm
    between = network(heard, 2.5, 0)
    assert not np.allclose(between, network(heard, 2, 0)) and not np.allclose(between, network(heard, 3, 0))


def test_posevae_hears_the_voice():
    network = open_posevae.OpenPoseVAE()
    heard = np.tile(rows_of(said().sound), (8, 1))
    pitch = np.mean([network(heard, 5, seed)[:, 1] for seed in range(6)], axis=0)
    r = [abs(np.corrcoef(pitch, np.roll(heard[:, 0], k))[0, 1]) for k in (2, 3, 4)]
    off = [abs(np.corrcoef(pitch, np.roll(heard[:, 0], k))[0, 1]) for k in (80, 90, 100)]
    assert max(r) > 0.2 and max(r) > 1.5 * np.mean(off)


def test_noise_does_not_depend_on_how_it_is_asked_for():
    noise, other = open_posevae.Noise(4), open_posevae.Noise(4)
    whole = noise(-4, 200)
    parts = [other(a, b) for a, b in ((-4, 10), (2, 90), (82, 200))]
    assert (
        np.allclose(whole[:14], parts[0]) and np.allclose(whole[6:94], parts[1]) and np.allclose(whole[86:], parts[2])
    )
    assert max(len(d) for d in other.drawn) < 40  # memory does not grow
    assert 0.9 < open_posevae.Noise(1)(0, 60_000)[:, :6].std() < 1.1


# -------------------------------------------------------------------------------------------------------------- motion
@pytest.mark.parametrize("size", [640, 5000])
def test_poses_of_a_stream_are_those_of_the_file(size):
    samples = said().sound.samples
    streamed = table(poses(samples[k : k + size] for k in range(0, len(samples), size)))
    assert streamed.shape == drawn().shape and np.abs(streamed - drawn()).max() < 1e-5


@pytest.mark.parametrize("samples", [1, 639, 640, 3200, 16_001])
def test_every_frame_of_short_speech_comes(samples):
    made = table(poses([0.1 * np.ones(samples, np.float32)]))
    assert len(made) == -(-25 * samples // 16_000) and np.isfinite(made).all()


def test_nothing_is_looked_at_beyond_the_look_ahead():
    samples = said().sound.samples
    stream = SpeechMotion()
    frame = 60
    first = list(stream.push(samples[: (frame + 1 + stream.look_ahead) * 640]))
    assert len(first) > frame and stream.look_ahead <= 8


def test_the_first_frame_is_the_portrait_and_still_is_still():
    assert np.abs(drawn()[0, 2:7]).max() < 1e-6
    assert np.abs(drawn()[:, 2:5]).max() > np.radians(1)
    still = table(poses([said().sound.samples], Style(still=True)))
    assert not still[:, 2:7].any() and np.allclose(still[:, :2], drawn()[:, :2])


def test_lips_close_in_pauses_and_on_bilabials_and_open_on_vowels():
    opening = 1000 * drawn()[:, 0]
    for phone in said().phones:
        first, last = int(phone.start * FPS), int(phone.end * FPS) + 1
        if phone.symbol == "pau" and phone.end - phone.start > 0.55 and phone.end < said().sound.seconds - 0.1:
            assert opening[first:last].min() < 0.5
    closed = [
        opening[max(int(p.start * FPS) - 1, 0) : int(p.end * FPS) + 1].min() < 2
        for p in said().phones if p.symbol in "pbm"
    ]  # fmt: skip
    vowels = [opening[int((p.start + p.end) / 2 * FPS)] for p in said().phones if p.symbol in ("aa", "ae", "ay", "aw")]
    assert np.mean(closed) > 0.75 and np.median(vowels) > 5


def test_blinks_renew_like_peoples():
    blinks = motion.Blinks(np.random.default_rng(3))
    pauses = (np.arange(15_000) // 50) % 2 * 1.0  # 10 min, a pause of 2 s after every 2 s
    shut = np.array([blinks(p) for p in pauses])
    starts = np.flatnonzero((shut[1:] > 0) & (shut[:-1] == 0)) + 1
    assert 14 < len(starts) / 10 < 30 and shut.max() == 1
    between = np.diff(starts) / FPS
    assert between.min() > 0.5 and 0.3 < between.std() / between.mean() < 1.0
    near = np.isin(starts % 100, (50, 51)).mean()
    assert near > 0.06  # chance: .02


def test_voices_that_say_little_open_the_mouth_as_wide():
    rng = np.random.default_rng(0)
    usual = 0.1 + 0.35 * rng.beta(2, 1.4, 4000)

    def high(gaps):
        opening = Opening()
        return np.percentile([opening(float(g), 1.0)[0] for g in gaps][2000:], 90)

    assert 0.75 < high(0.75 * usual) / high(usual) < 1.02
    assert Opening()(0.0, 1.0)[0] == 0 and Opening()(2.0, 1.0)[0] < 0.025


def test_a_style_that_does_not_exist():
    with pytest.raises(ConfigError):
        list(poses([np.zeros(6400, np.float32)], Style(head_style=9)))


# ------------------------------------------------------------------------------------------------- files and training
def test_weights_are_small_and_say_what_made_them():
    for module in (open_expnet, open_posevae):
        assert module.WEIGHTS.stat().st_size < 1e6
        tensors, config = load(module.WEIGHTS, module.KIND, module.SCHEMA)
        assert config["figures"]["corpus_minutes"] == 0 and "seed" in config  # nothing but generated material
        assert all(np.isfinite(t).all() for t in tensors.values())


def test_wrong_weights_are_said(tmp_path):
    with pytest.raises(AssetError):
        open_expnet.OpenExpNet(tmp_path / "none.safetensors")
    save(tmp_path / "w.safetensors", "posevae", {"a": np.zeros(3)}, {"schema": 1})
    with pytest.raises(AssetError):
        open_expnet.OpenExpNet(tmp_path / "w.safetensors")


def test_training_of_expnet_learns_a_relation_and_the_numpy_twin_agrees():
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(176, len(MOTIONS))) / 13

    def pair(frames):
        x = np.cumsum(rng.normal(size=(frames, 176)), axis=0).astype(np.float32)
        x = (x - x.mean(0)) / x.std(0)
        return x, (x @ mix).astype(np.float32)

    config = open_expnet.ExpNetConfig(hidden=16, steps=80, batch=6, frames=24, noise=0.1, dropout=0.0)
    pairs = [pair(120) for _ in range(6)]
    own = [(x, np.where(np.arange(10) < 2, y, np.nan)) for x, y in pairs[:2]]  # a corpus that knows two motions
    tensors, figures = open_expnet.fit(pairs[1:], own, pairs[:1], config, 0)
    assert figures["r"]["jaw"] > 0.6 and tensors["head.weight"].shape == (10, 16, 1)
    still = [(x, np.zeros_like(y)) for x, y in pairs[:1]]  # held-out lips that rest: a figure all the same
    figures = open_expnet.fit(pairs[1:], [], still, replace(config, steps=1), 0)[1]
    assert set(figures["r"].values()) == {0.0}


def test_training_of_posevae_runs_and_the_numpy_twin_agrees(tmp_path):
    torch = pytest.importorskip("torch")
    from vocalface.sadtalker import open_posevae_train as train

    rng = np.random.default_rng(5)
    heard = rows_of(said().sound)
    talks = [train.Talk(np.tile(heard, (4, 1)), rng.normal(size=(4 * len(heard), 6)).astype(np.float32).cumsum(0), 2)]
    config = train.PoseVAEConfig(hearing=8, moving=12, steps=8, batch=2)
    tensors, figures = train.fit(talks, [], config, 0)
    assert np.isfinite(list(figures.values())).all()
    save(tmp_path / "p.safetensors", "posevae", tensors, {"schema": 1})
    network = open_posevae.OpenPoseVAE(tmp_path / "p.safetensors")
    decoder = train.Decoder(config)
    decoder.load_state_dict({k: torch.from_numpy(v) for k, v in network.tensors.items() if not k.startswith("head_")})
    x, z = rng.normal(size=(80, 5)).astype(np.float32), rng.normal(size=(80, 14)).astype(np.float32)
    with torch.no_grad():
        made = decoder(torch.from_numpy(x.T[None].copy()), torch.from_numpy(z.T[None].copy()), torch.tensor([2]))
    lost = network.before + network.after - 2 * open_posevae.REACH
    after = sum(n for _, _, n in open_posevae.HEARING)
    ours = network.run(x, z[lost - after : 80 - after], 2)
    assert np.abs(ours - (made[0].T.numpy() * network.tensors["head_std"] + network.tensors["head_mean"])).max() < 1e-3


def test_a_generated_head_goes_with_its_speech():
    from vocalface.sadtalker.open_speech import head_motion

    heard = rows_of(said().sound)
    heads = [head_motion(heard, said().phones, style, np.random.default_rng(style)) for style in (0, 7)]
    assert all(h.shape == (len(heard), 6) and np.isfinite(h).all() for h in heads)
    assert np.abs(np.diff(heads[1][:, :3], axis=0)).mean() > 1.5 * np.abs(np.diff(heads[0][:, :3], axis=0)).mean()
    again = head_motion(heard, said().phones, 7, np.random.default_rng(7))
    assert np.array_equal(heads[1], again)


def test_a_real_head_is_told_in_the_same_terms():
    from vocalface.sadtalker.open_corpus import head_motion
    from vocalface.sadtalker.rig import rotation

    rest = np.diag([1.0, -1.0, -1.0, 1.0])  # the head's axes (y up, z out of the face) seen by a camera
    rest[2, 3] = 0.6
    angles = np.radians([[-6, 0, 0], [6, 0, 0], [0, -4, 0], [0, 4, 0], [0, 0, -5], [0, 0, 5]])
    poses = np.tile(rest, (6, 1, 1))
    for pose, angle in zip(poses, angles):
        pose[:3, :3] = rotation(*angle) @ rest[:3, :3]  # the rig's axes are the camera's
    assert np.abs(head_motion(poses)[:, :3] - angles).max() < 0.002


def test_own_clips_become_training_material():
    from vocalface.observe.indices import BLENDSHAPES
    from vocalface.sadtalker.open_corpus import Seen, pair, talk
    from vocalface.types import FaceTrack

    frames, rng = 100, np.random.default_rng(0)
    points = np.zeros((frames, 478, 3), np.float32)
    points[:, 263, 0] = 100
    points[:, 14, 1] = gap = 5 + 4 * np.sin(np.arange(frames) / 3)
    points[:, 291, 0] = 50 + rng.normal(size=frames)
    valid = np.arange(frames) != 7
    poses = np.tile(np.diag([1.0, -1, -1, 1]), (frames, 1, 1))
    track = FaceTrack(valid, points, rng.random((frames, len(BLENDSHAPES))), np.zeros((frames, 17)), poses)
    seen = Seen(Sound(said().sound.samples[: frames * 640], SPEECH_RATE), track)
    speech, lips = pair(seen)
    assert speech.shape == (frames, 176) and np.isnan(lips[7]).all()
    assert np.corrcoef(lips[valid, MOTIONS.index("gap")], gap[valid])[0, 1] > 0.99
    assert np.isnan(lips[:, MOTIONS.index("tongue")]).all()
    made = talk(seen)
    assert made.head.shape == (frames, 6) and made.prosody.shape == (frames, 5) and made.style == 0


def test_training_says_what_is_wrong(tmp_path):
    from vocalface.errors import ObservationsError, OutputError
    from vocalface.sadtalker import open_corpus

    with pytest.raises(ConfigError):
        open_corpus.train("renderer", None, tmp_path / "w.safetensors")
    with pytest.raises(ObservationsError):
        open_corpus.train("expnet", tmp_path, tmp_path / "w.safetensors")
    for kind in ("expnet", "posevae"):
        made = open_corpus.settings(kind, ("hours=0.5", "steps=7"))
        assert made["hours"] == 0.5 and made["config"].steps == 7 and open_corpus.settings(kind, ()) == {}
        for wrong in ("step=7", "steps=many"):
            with pytest.raises(ConfigError):
                open_corpus.settings(kind, (wrong,))
        with pytest.raises(ConfigError):
            open_corpus.train(kind, None, tmp_path / "w.safetensors", hours=0)
        with pytest.raises(OutputError):
            open_corpus.train(kind, None, tmp_path / "none" / "w.safetensors")


@pytest.fixture
def short_speech(monkeypatch):
    """In place of speech that tools on this machine generate."""
    from vocalface.presenter.articulation import articulate
    from vocalface.sadtalker import open_posevae_train, open_speech

    rng, made = np.random.default_rng(0), []
    for _ in range(2):
        phones, frames = said().phones, 150
        _, motions = articulate(phones, frames, seed=1)
        lips = np.stack(list(motions.values()), axis=1)
        speech = rng.normal(size=(frames, 176)).astype(np.float32)
        made.append(open_speech.Example("here", speech, rows_of(said().sound)[:frames], lips, phones))
    for module in (open_speech, open_posevae_train):
        monkeypatch.setattr(module, "examples", lambda hours, seed, tell=None: iter(made))


@pytest.mark.parametrize("kind", ["expnet", "posevae"])
def test_training_that_was_killed_goes_on_to_the_same_bits(tmp_path, monkeypatch, short_speech, kind):
    from vocalface.sadtalker import open_corpus, open_run

    small = ("hours=0.01", "steps=4", "batch=2", "checkpoint_seconds=0")
    options = open_corpus.settings(kind, (*small, *(("hidden=8",) if kind == "expnet" else ("frames=384",))))
    whole, path = tmp_path / "whole.safetensors", tmp_path / "a.safetensors"
    open_corpus.train(kind, None, whole, **options)
    save, done = open_run.checkpoint.save, []

    def killed(folder, step, state):
        if len(done) == 2:
            raise SystemExit  # nothing of this step is kept
        done.append(step)
        return save(folder, step, state)

    monkeypatch.setattr(open_run.checkpoint, "save", killed)
    with pytest.raises(SystemExit):
        open_corpus.train(kind, None, path, **options)
    assert not path.exists() and done == [1, 2]
    kept = list((tmp_path / ".a.work").rglob("*.safetensors"))
    monkeypatch.setattr(open_run.checkpoint, "save", lambda folder, step, state: done.append(step))
    open_corpus.train(kind, None, path, **options)
    assert done == [1, 2, 3, 4] and len(kept) == 2
    (made, about), (wanted, said_of_it) = (load(p, kind, 1) for p in (path, whole))
    assert made.keys() == wanted.keys() and all(np.array_equal(made[k], wanted[k]) for k in made)
    assert str(about) == str(said_of_it)  # figures too, of which some are no numbers
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "whole.safetensors"]


@pytest.mark.parametrize("kind", ["expnet", "posevae"])
def test_a_handful_of_steps_is_enough_and_what_cannot_be_trained_is_said(tmp_path, short_speech, kind):
    from vocalface.errors import OutputError
    from vocalface.sadtalker import open_corpus

    steps = "steps=5" if kind == "expnet" else "steps=10"  # where the rising part of the rate is one step
    size = "hidden=4" if kind == "expnet" else "frames=384"
    figures = open_corpus.train(
        kind, None, tmp_path / "w.safetensors", **open_corpus.settings(kind, ("hours=0.01", steps, size, "batch=1"))
    )
    assert np.isfinite(figures["loss" if kind == "expnet" else "likeness"])
    for wrong in ("steps=0", "batch=0", "frames=1", "rate=0"):
        with pytest.raises(ConfigError) as error:
            open_corpus.settings(kind, (wrong,))
        assert error.value.fix == "see its defaults"
    with pytest.raises(OutputError, match=r"\.safetensors file"):
        open_corpus.train(kind, None, tmp_path / "w.pth")


def test_bare_generator_is_still_there_to_be_compared():
    assert motion.Sway(np.random.default_rng(0))(0.5)[0].shape == (3,)
