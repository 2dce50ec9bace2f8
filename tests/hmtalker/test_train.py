"""Training: it learns, it resumes to the same bits, it survives being killed, and what it freezes stays frozen."""

import copy
import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import drawn
import numpy as np
import pytest
import torch

from vocalface.hmtalker import frames, state, tracking
from vocalface.hmtalker import train as training
from vocalface.hmtalker.config import PRESETS
from vocalface.hmtalker.data import noisy_copies, prepare, train_frames
from vocalface.hmtalker.densify import densify_and_prune
from vocalface.hmtalker.head import Head
from vocalface.hmtalker.model import GaussianField
from vocalface.hmtalker.swing import match_amplitude, match_swing
from vocalface.training import checkpoint

pytestmark = pytest.mark.early

TINY = PRESETS["tiny"].replace(
    face_gaussians=250, mouth_gaussians=60, warmup_steps=10, face_steps=30, mouth_steps=12, fuse_steps=14,
    speech_steps=6, pose_refine_steps=2, upper_steps=1, audio="mel",
)  # fmt: skip


@pytest.fixture(scope="module")
def obs(tmp_path_factory):
    return drawn.observations(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def material(obs, tmp_path_factory):
    return prepare(obs, TINY, tmp_path_factory.mktemp("work"))


def digest(trainer) -> str:
    h = hashlib.sha256()
    for module in (trainer.face, trainer.mouth, trainer.face_net, trainer.mouth_net, trainer.poses):
        for name, value in sorted(module.state_dict().items()):
            h.update(name.encode() + value.numpy().tobytes())
    h.update(trainer.upper.numpy().tobytes())
    return h.hexdigest()


def total(trainer) -> int:
    return sum(trainer.lengths().values())


@pytest.fixture(scope="module")
def whole(material, tmp_path_factory):
    trainer = training.Trainer(material, TINY)
    training.run(trainer, tmp_path_factory.mktemp("whole"))
    return trainer


def test_speech_is_learned_from_noisy_copies_too_but_judged_on_the_sound_as_it_is(material):
    trainer = training.Trainer(material, TINY)
    rows, gen = np.arange(5, 9), torch.Generator().manual_seed(0)
    clean = (material.features - trainer.feature_mean) / trainer.feature_std
    np.testing.assert_allclose(trainer.windows(rows)[:, 4].numpy(), clean[rows].clip(-6, 6), atol=1e-5)
    copies = [trainer.windows(rows, k) for k in range(TINY.noisy_copies + 1)]
    assert all(not torch.equal(copies[0], other) for other in copies[1:])
    assert {trainer.any_copy(gen) for _ in range(60)} == set(range(TINY.noisy_copies + 1))
    assert len(trainer.teacher.known) == len(copies) * len(trainer.trainable)


def test_noisy_copies_lie_15_to_40_dB_over_their_noise():
    sound = np.sin(np.arange(16_000) * 0.1)
    copies = list(noisy_copies(sound, TINY.replace(noisy_copies=12)))
    over = np.array([10 * np.log10(np.mean(sound**2) / np.mean((c - sound) ** 2)) for c in copies])
    assert len(over) == 12 and over.min() > 14.5 and over.max() < 40.5 and np.ptp(over) > 8
    assert not list(noisy_copies(sound, TINY.replace(noisy_copies=0)))


def test_more_pixels_get_more_gaussians_and_steps_where_heads_start_from_the_surface():
    small, paper = PRESETS["fast"], PRESETS["paper"]
    large = small.at_size(512)
    assert small.at_size(256) == small and PRESETS["tiny"].at_size(64) == PRESETS["tiny"]
    for name in ("face_gaussians", "face_steps", "mouth_steps", "fuse_steps"):
        assert 1.2 < getattr(large, name) / getattr(small, name) < 1.7
    assert paper.at_size(256) == paper.replace(size=256)


def test_split_is_ten_to_one():
    assert train_frames(11, 1 / 11) == 10 and train_frames(7637, 1 / 11) == 6942


def test_same_seed_same_bits(material, whole, tmp_path):
    again = training.Trainer(material, TINY)
    training.run(again, tmp_path)
    assert digest(again) == digest(whole)
    other = training.Trainer(material, TINY.replace(seed=1))
    training.run(other, tmp_path / "other", stop=3)
    assert digest(other) != digest(whole)


@pytest.mark.parametrize("stop", [3, 20, 40, 55, 63])
def test_resume_in_every_stage_gives_the_same_bits(material, whole, tmp_path, stop):
    first = training.Trainer(material, TINY)
    assert stop < total(first)
    training.run(first, tmp_path, stop=stop)
    step, state, _ = checkpoint.latest(tmp_path)
    assert step == stop
    second = training.Trainer(material, TINY)
    second.restore(state)
    training.run(second, tmp_path, start=step)
    assert digest(second) == digest(whole)


def test_frames_refined_in_turn_give_the_bits_of_frames_refined_in_a_second_thread(
    material, whole, tmp_path, monkeypatch
):
    class InTurn:
        def __init__(self, threads):
            pass

        def submit(self, work):
            done = tracking.Future()
            done.set_result(work())
            return done

    monkeypatch.setattr(tracking, "ThreadPoolExecutor", InTurn)
    one = training.Trainer(material, TINY)
    training.run(one, tmp_path)
    assert digest(one) == digest(whole)


def test_resume_with_densification_gives_the_same_bits(material, tmp_path):
    config = TINY.replace(
        init="random", densify_from=4, densify_until=28, densify_every=6, densify_gradient=1e-6,
        densify_gradient_mouth=1e-6, sh_degree=1, pose_steps=0, pose_refine_steps=0,
    )  # fmt: skip
    one = training.Trainer(material, config)
    training.run(one, tmp_path / "one")
    assert len(one.face) != config.face_gaussians, "densification changed the field"
    two = training.Trainer(material, config)
    training.run(two, tmp_path / "two", stop=22)
    three = training.Trainer(material, config)
    three.restore(checkpoint.latest(tmp_path / "two")[1])
    training.run(three, tmp_path / "two", start=22)
    assert digest(three) == digest(one)


def test_an_upper_face_is_found_again_by_pixels_above_the_nose_alone(material, whole):
    trainer = training.Trainer(material, TINY)
    trainer.restore(whole.state())
    i = material.train + 1
    tracked, view = trainer.upper[i].clone(), trainer.view(i)
    torch.manual_seed(0)
    for p in trainer.face_net.head.parameters():  # a face that moves at a glance
        p.data += 0.4 * torch.randn_like(p)

    def picture() -> torch.Tensor:
        with torch.no_grad():
            motion, _ = trainer.motion(i, "audio")
            delta = trainer.face_net.deform(trainer.face_net.regions(trainer.face), motion.c_f, motion.c_u)
            image, alpha = training.draw(trainer.face.gaussians(delta), trainer.poses.at(i), material.camera, view.box)
            return image + (1 - alpha)[..., None] * view.behind

    nose = int(material.landmarks[i, 2, 1]) - material.box[1]
    trainer.upper[i] = tracked + trainer.upper_std * 0.5
    truth = picture()
    found = []
    for below in (truth[nose:], torch.rand_like(truth[nose:])):
        trainer.upper[i] = tracked
        before = (picture() - truth)[:nose].abs().mean()
        trainer.refine_upper(i, replace(view, image=torch.cat([truth[:nose], below])), "audio", 4)
        assert (picture() - truth)[:nose].abs().mean() < 0.4 * before
        found.append(trainer.upper[i].clone())
    assert torch.equal(*found)


def test_training_refines_the_upper_face_of_every_frame_that_it_draws(material, whole):
    moved = (whole.upper - torch.from_numpy(material.upper)).abs().sum(1) > 0
    assert moved[material.train :].any() and moved[: material.train].any()
    still = training.Trainer(material, TINY.replace(upper_steps=0))
    still.refine_upper(material.train, still.view(material.train), "audio", still.config.upper_steps)
    assert torch.equal(still.upper, torch.from_numpy(material.upper))


def test_the_fuse_stage_refines_upper_faces_at_a_frames_first_visit_and_poses_at_the_others(material, whole):
    trainer = training.Trainer(material, TINY.replace(fuse_steps=9))
    trainer.restore(copy.deepcopy(whole.state()))
    trainer.trainable = trainer.trainable[:3]
    start = TINY.speech_steps + TINY.face_steps + TINY.mouth_steps
    moved = []
    for visit in range(3):
        upper, pose = trainer.upper.clone(), trainer.poses.delta.clone()
        for k in range(3):
            trainer.advance(start + 3 * visit + k)
        moved.append((not torch.equal(upper, trainer.upper), not torch.equal(pose, trainer.poses.delta)))
    assert moved == [(True, False), (False, True), (False, True)]


def test_behind_a_head_that_hides_the_same_training_sees_another_colour(material):
    frame = material.read(2)
    view = frames.view_of(frame, material, 2)
    same = frames.view_of(replace(frame, behind=frame.image), material, 2)  # a torso layer with the head's own hair
    inside, outside = view.alpha > 0.95, view.alpha == 0
    assert inside.any() and outside.any()
    assert ((same.behind - same.image).abs().amax(-1)[inside] > 0.4).all()
    assert torch.equal(same.behind[outside], same.image[outside])
    assert torch.equal(same.image, view.image) and torch.equal(same.alpha, view.alpha)


KILLED = """
import sys, os, signal
sys.path.insert(0, {tests!r})
from pathlib import Path
from vocalface.observe import store
from vocalface.hmtalker import train as training
import test_train
material = training.prepare(store.load({obs!r}), test_train.TINY, Path({work!r}))
trainer = training.Trainer(material, test_train.TINY)
advance = trainer.advance
def step(done):
    if done == 37:
        os.kill(os.getpid(), signal.SIGKILL)
    return advance(done)
training.Loop(test_train.total(trainer), step, checkpoint_every_steps=7, save_fn=lambda done:
    training.checkpoint.save(Path({work!r}) / "states", done, trainer.state(), {{}})).run(0)
"""


def test_kill_9_and_start_again_gives_the_same_bits(obs, material, whole, tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent), obs=str(obs.folder), work=str(tmp_path))
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    step, state, _ = checkpoint.latest(tmp_path / "states")
    assert step == 35
    again = training.Trainer(material, TINY)
    again.restore(state)
    training.run(again, tmp_path / "states", start=step)
    assert digest(again) == digest(whole)


def test_papers_fuse_stage_touches_colour_and_face_opacity_only(material, tmp_path):
    config = TINY.replace(fuse_motion=False, pose_steps=0, pose_refine_steps=0)
    trainer = training.Trainer(material, config)
    start = total(trainer) - config.fuse_steps
    training.run(trainer, tmp_path, stop=start)
    before = {
        f"{m}.{k}": v.clone() for m in ("face", "mouth", "face_net", "mouth_net")
        for k, v in getattr(trainer, m).state_dict().items()
    }  # fmt: skip
    training.run(trainer, tmp_path, start=start)
    changed = {
        f"{m}.{k}" for m in ("face", "mouth", "face_net", "mouth_net")
        for k, v in getattr(trainer, m).state_dict().items() if not torch.equal(v, before[f"{m}.{k}"])
    }  # fmt: skip
    assert changed == {"face.sh0", "mouth.sh0", "face.opacities"}


def test_frame_selection_always_gives_frames(material):
    still = frames.Incremental(
        np.arange(20), np.zeros(20, np.float32), np.zeros(20, np.float32), np.arange(1), np.arange(10)
    )
    for done in np.linspace(0, 1, 11):
        assert len(still.opening(done)) and len(still.blink(done))
    lists = frames.incremental_lists(material, np.arange(material.train))
    small, large = lists.opening(0.05), lists.opening(0.95)
    assert material.gap[small].mean() < material.gap[large].mean()


def test_a_still_head_keeps_its_extent():
    assert state.camera_extent(np.tile(np.eye(4), (5, 1, 1))) == 0.1


def test_densify_splits_clones_and_prunes():
    torch.manual_seed(0)
    field = GaussianField(torch.rand(100, 3), torch.rand(100, 3), torch.full((100,), 0.01), 0, opacity=0.5)
    field.scales.data[:10] = 0.5  # large
    field.opacities.data[50:60] = -6  # faint
    optimiser = torch.optim.Adam([{"params": [getattr(field, n)], "name": n} for n in ("means", "opacities")])
    (field.means.sum() + field.opacities.sum()).backward()
    optimiser.step()
    gradient = torch.zeros(100)
    gradient[:20] = 1
    densify_and_prune(
        field, optimiser, gradient, 0.5, min_opacity=0.05, extent=10.0, percent_dense=0.005,
        generator=torch.Generator().manual_seed(0), limit=1000,
    )  # fmt: skip
    assert len(field) == 100 - 10 - 10 + 10 + 2 * 10  # faint and split leave; clones and two halves of each come
    assert all(len(getattr(field, n)) == len(field) for n in ("quats", "scales", "opacities", "sh0", "shn"))
    state = optimiser.state[optimiser.param_groups[0]["params"][0]]
    assert state["exp_avg"].shape == field.means.shape and (state["exp_avg"][-20:] == 0).all()


def test_matching_the_amplitude_spreads_shrunken_units_about_their_mean(material, monkeypatch):
    monkeypatch.setattr(state, "foretold", lambda windows, units: units.numpy())  # the voice tells them all
    trainer = training.Trainer(material, TINY)
    last = trainer.face_net.mapper.layers[2]
    with torch.no_grad():
        last.weight[-2] *= 3  # AU25 moves well above zero, and less than it should
        last.bias[-2] = 2.0
    trainer.explicit[:, -2] = 2 + 3 * torch.randn(len(trainer.explicit), generator=torch.manual_seed(1))
    rows = trainer.trainable

    def said():
        with torch.no_grad():
            return trainer.face_net.motion(trainer.windows(rows), trainer.upper[rows]).c_ea[:, -2]

    before = said()
    gain = match_amplitude(trainer)
    assert (gain >= 1).all() and (gain <= 1.4).all() and gain[-2] > 1
    assert torch.allclose(said().mean(), before.mean(), atol=1e-3)
    assert torch.allclose(said() - said().mean(), gain[-2] * (before - before.mean()), atol=1e-3)


def test_lips_of_speech_open_as_far_as_those_of_seen_units(material):
    trainer = training.Trainer(material, TINY)
    field, rows = trainer.face_net, trainer.trainable
    with torch.no_grad():  # a field that answers, to units more than to speech
        field.encoder.table.normal_(0, 0.3)
        field.fusion.mlp[2].bias.fill_(1.0)

    def controls(path):
        with torch.no_grad():
            return field.motion(trainer.windows(rows), trainer.upper[rows], trainer.explicit[rows], path).c_f

    before = controls("audio")
    swing = match_swing(trainer)
    assert 1 <= swing.gain <= 1.6 and field.swing is swing
    torch.testing.assert_close(
        controls("audio") - before.mean(0), swing.gain * (before - before.mean(0)), atol=1e-4, rtol=1e-3
    )
    assert match_swing(trainer, limit=1.0).gain == 1


def test_units_that_speech_does_not_tell_stay_small(material, monkeypatch):
    def all_but_the_second(windows, units):
        told = units.numpy().copy()
        told[:, 1] = np.random.default_rng(0).normal(size=len(told))
        return told

    monkeypatch.setattr(state, "foretold", all_but_the_second)
    trainer = training.Trainer(material, TINY)
    trainer.explicit[:, [1, -2]] = 2 + 3 * torch.randn(len(trainer.explicit), 2, generator=torch.manual_seed(1))
    last = trainer.face_net.mapper.layers[2]
    with torch.no_grad():
        last.bias[-10:] = 2.0  # none is dead
        last.weight[[-9, -2]] *= 3
    gain = match_amplitude(trainer)
    assert gain[1] == 1 and gain[-2] > 1


@pytest.mark.slow
def test_a_drawn_head_learns_to_speak(tmp_path):
    obs = drawn.observations(tmp_path / "clip", frames=300)
    config = TINY.replace(
        face_gaussians=900, mouth_gaussians=150, warmup_steps=60, face_steps=500, mouth_steps=150, fuse_steps=300,
        speech_steps=200, pose_refine_steps=10,
    )  # fmt: skip
    head = training.train(obs, tmp_path / "drawn.vface", config=config, consent="drawn by a test")
    rows = head.metrics["rows"]
    assert rows["audio"]["psnr_head"] > 25
    assert rows["audio"]["psnr_mouth"] > rows["mouth_frozen"]["psnr_mouth"] + 1
    assert rows["audio"]["au25_corr"] > 0.9
    assert Head.load(tmp_path / "drawn.vface").provenance["consent"] == "drawn by a test"
    assert not list(tmp_path.glob(".*.work")) and (tmp_path / "drawn.report.html").stat().st_size > 5_000


def test_pauses_are_told_apart_from_speech(whole, obs, monkeypatch):
    from vocalface.hmtalker import validate
    from vocalface.hmtalker.collect import head_of

    m = whole.material
    monkeypatch.setattr(validate, "measure_lips", lambda *_: None)
    silent = np.zeros(m.frames, bool)
    silent[m.train : m.train + 2] = True
    monkeypatch.setattr(m, "silent", silent)
    result = validate.validate(whole, obs, head_of(whole, obs, consent=None, seconds=1.0))
    for name, row in result.rows.items():
        along = result.along[name]
        assert row["psnr_head_pauses"] == pytest.approx(along[:2].mean())
        assert row["psnr_head_spoken"] == pytest.approx(along[2:].mean())
        assert row["psnr_head"] == pytest.approx(along.mean())


def test_a_head_speaks_in_poses_that_it_was_trained_on(whole, obs):
    from vocalface.hmtalker.collect import head_of, played

    train, frames = whole.material.train, whole.material.frames
    head = head_of(whole, obs, consent=None, seconds=1.0)
    assert head.segment() == (0, train) and head.segment(train) == (train, frames)
    # a jump cut before the held-out part, within it, and nothing held out
    assert played([(0, 40), (40, 100)], 90).tolist() == [[0, 40], [40, 90], [90, 100]]
    assert played([(0, 95), (95, 100)], 90).tolist() == [[0, 90], [90, 95], [95, 100]]
    assert played([(0, 100)], 100).tolist() == [[0, 100]]


def test_a_head_knows_its_voice_as_it_will_hear_it(whole, obs):
    from vocalface import media
    from vocalface.hmtalker.collect import head_of
    from vocalface.hmtalker.drive import Options, SpeechControls
    from vocalface.hmtalker.runtime import Runtime
    from vocalface.types import SPEECH_RATE

    head = head_of(whole, obs, consent=None, seconds=1.0)
    samples = media.open_clip(obs.clip).speech(SPEECH_RATE).samples[: whole.material.train * 640]
    said = {}
    for match in (True, False):
        controls = SpeechControls(Runtime(head), "mel", Options(match_voice=match, smooth=0, close_in_silence=False))
        out = [*controls.push(samples), *controls.flush()]
        said[match] = np.array([c.c_f for c in out]), np.array([c.mouth for c in out])
    speaks = ~whole.material.silent[: whole.material.train]
    for k in range(2):
        spread = np.sqrt(said[False][k][speaks].var(0).sum())
        assert abs(head.arrays["voice.spread"][k] / spread - 1) < 0.05
        assert abs(np.sqrt(said[True][k][speaks].var(0).sum()) / spread - 1) < 0.06  # of 2.7 s with a pause
