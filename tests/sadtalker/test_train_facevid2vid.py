"""Stage 1 of the renderer trains: its loss falls, a resumed run gives the same bits, its file can be drawn with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import Moving, interrupted
from safetensors import safe_open
from safetensors.torch import load_file

from vocalface.errors import ConfigError, ObservationsError
from vocalface.sadtalker.train_facevid2vid import PRESETS, FaceVid2VidConfig, Trainer, frames_of, picture
from vocalface.sadtalker.train_mapping import load_renderer
from vocalface.sadtalker.train_run import run
from vocalface.training.distributed import World

pytestmark = pytest.mark.early

TINY = replace(PRESETS["tiny"], size=32, depth=2, steps=4)


@pytest.fixture(scope="module")
def runs():
    return [Moving(0), Moving(1)]


def bits(trainer):
    return torch.cat([v.flatten().double() for v in trainer.net.state_dict().values()])


def test_the_loss_falls_and_every_part_learns(runs, monkeypatch):
    trainer = Trainer(runs, replace(TINY, steps=16, lr=2e-3))
    before = {k: v.clone() for k, v in trainer.net.named_parameters()}
    batch = trainer.batch(0)
    monkeypatch.setattr(trainer, "batch", lambda step: batch)
    losses = [trainer.step(k) for k in range(16)]
    parts = {"perceptual", "gan", "matching", "equivariance", "prior", "pose", "deformation"}
    assert set(losses[0]) == parts | {"critic"} and np.isfinite([list(v.values()) for v in losses]).all()
    first, last = ({name: np.mean([v[name] for v in part]) for name in parts} for part in (losses[:3], losses[-3:]))
    assert sum(last.values()) < 0.6 * sum(first.values())
    assert last["perceptual"] < 0.9 * first["perceptual"] and last["pose"] < 0.6 * first["pose"]
    still = [k for k, v in trainer.net.named_parameters() if "weight" in k and torch.equal(v, before[k])]
    assert not still, still


def test_the_rate_falls_near_the_end(runs):
    trainer = Trainer(runs, replace(TINY, steps=10))
    for step, rate in ((8, 1e-3), (9, 1e-4)):
        trainer.step(step)
        rates = [g["lr"] for o in (trainer.maker, trainer.critic) for g in o.param_groups]
        assert rates == pytest.approx([rate, rate])


def test_resuming_gives_the_same_bits_and_the_file_can_be_drawn_with(runs, tmp_path, monkeypatch):
    small = replace(TINY, base=4, keypoint_base=4, pose_base=4, critic_base=4)
    whole = Trainer(runs, small)
    for k in range(4):
        whole.step(k)
    began = interrupted(monkeypatch, Trainer, at=3)
    every = replace(small, checkpoint_seconds=0.0)
    out = tmp_path / "renderer.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(Trainer(runs, every), out)
    assert not out.exists()
    torch.manual_seed(7)  # nothing may hang on torch's own generator
    made = run(Trainer(runs, small), out, about={"coefficients": "drawn"})  # how often it saves is no other run
    assert began == [0, 1, 2, 2, 3] and made["steps"] == 4 and not list(tmp_path.glob(".*"))
    state, wanted = load_file(out), whole.net.state_dict()
    assert state.keys() == wanted.keys() and all(torch.equal(v, wanted[k]) for k, v in state.items())
    with safe_open(out, "pt") as file:
        assert file.metadata()["kind"] == "sadtalker.renderer" and file.metadata()["coefficients"] == "drawn"

    loaded = load_renderer(out)
    assert loaded.size == 32 and not any(p.requires_grad for p in loaded.to("cpu").generator.parameters())
    image = torch.from_numpy(picture(runs[0].face(0), 32))[None]
    networks = whole.net.eval()
    with torch.no_grad():
        points = networks["kp_extractor"](image)
        assert torch.equal(points, loaded.keypoints(image))
        theirs = networks["generator"](image, points, points).prediction
        assert (loaded.generator(image, points, points).prediction - theirs).abs().max() < 1e-5


def test_a_step_that_is_not_finite_leaves_nothing_behind(runs, tmp_path, monkeypatch):
    trainer, real = Trainer(runs, replace(TINY, steps=3)), Trainer.batch

    def broken(self, step):
        images, *others = real(self, step)
        return (images * float("nan") if step == 1 else images), *others

    monkeypatch.setattr(Trainer, "batch", broken)
    run(trainer, tmp_path / "r.safetensors")
    assert all(v.isfinite().all() for v in trainer.net.state_dict().values() if v.is_floating_point())


def test_begin_anew(runs, tmp_path, monkeypatch):
    began = interrupted(monkeypatch, Trainer, at=2)
    every = replace(TINY, steps=2, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        run(Trainer(runs, every), tmp_path / "r.safetensors")
    run(Trainer(runs, every), tmp_path / "r.safetensors", resume=False)
    assert began == [0, 1, 0, 1]


def test_a_batch_depends_on_the_step_alone_and_is_dealt_out(runs):
    trainer = Trainer(runs, TINY)
    whole, parts = trainer.batch(5), []
    assert all(torch.equal(a, b) for a, b in zip(trainer.batch(5)[:3], whole[:3]))
    assert not torch.equal(trainer.batch(6)[0], whole[0])
    for rank in (0, 1):
        trainer.world = World(rank, 2)
        parts.append(trainer.batch(5))
    for k in range(3):
        assert torch.equal(torch.cat([p[k] for p in parts]), whole[k])
    assert torch.equal(torch.cat([p[3].affine for p in parts]), whole[3].affine)


def test_two_frames_of_a_run_differ():
    draws = np.random.default_rng(0).random((200, 2))
    pairs = {frames_of(range(5), d) for d in draws}
    assert len(pairs) == 20 and all(a != b for a, b in pairs)


def test_what_cannot_be_trained_is_said(runs):
    with pytest.raises(ObservationsError, match="two frames"):
        Trainer([Moving(frames=1)], TINY)
    with pytest.raises(ConfigError, match="2 cannot be shared by 3"):
        Trainer(runs, TINY, World(0, 3))
    with pytest.raises(ConfigError, match="divisible"):
        FaceVid2VidConfig(size=200)
