"""The official PoseVAE trains: losses fall, a resumed run gives the same bits, frozen stays frozen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from vocalface.errors import ConfigError, ObservationsError, OutputError
from vocalface.sadtalker import checkpoints, posevae, train_run
from vocalface.sadtalker import train_posevae as t
from vocalface.training.distributed import World

TINY = t.PoseVAEConfig(steps=4, batch=2, lr=1e-3)


class SmallEar(nn.Module):
    """Stands in for Wav2Lip's encoder of 2.8 million parameters, which is not what is tested here."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(80 * 16, posevae.AUDIO)

    def forward(self, mel):
        return self.layer(mel.flatten(1))


class Narrow(posevae.ResUNet):
    """The same layers with few channels."""

    def __init__(self):
        super().__init__((4, 8, 16, 32))


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(posevae, "ResUNet", Narrow)


@pytest.fixture
def small(monkeypatch, narrow):
    monkeypatch.setattr(posevae, "AudioEncoder", SmallEar)


def material(count=3, frames=60, seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        loud = np.convolve(rng.random(frames), np.ones(7) / 7, "same")
        mel = np.repeat(loud[:, None, None, None], 80, 2).repeat(16, 3) * 4 - 2
        pose = np.stack([np.sin(np.arange(frames) / (5 + k)) * loud * (0.1 + 0.05 * j) for j in range(6)], 1)
        out.append(t.Clip(mel.astype(np.float32), pose.astype(np.float32), k))
    return out


def weights(trainer) -> np.ndarray:
    return torch.cat([v.flatten().float() for v in trainer.net.state_dict().values()]).numpy()


def test_the_loss_falls_and_every_part_learns(small):
    trainer = t.Trainer(material(), t.PoseVAEConfig(steps=20, batch=4, lr=3e-3, gan=0.05, kl=0.01))
    before = {k: v.clone() for k, v in trainer.net.named_parameters()}
    losses = [trainer.step(k)["reg"] for k in range(20)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])
    same = [k for k, v in trainer.net.named_parameters() if torch.equal(v, before[k])]
    assert not same, same


def test_a_given_voice_stays_as_it_is(small):
    given = posevae.Audio2Pose().audio_encoder.state_dict()
    trainer = t.Trainer(material(), TINY, voice=given)
    trainer.step(0)
    for key, value in trainer.net.audio_encoder.state_dict().items():
        assert torch.equal(value, given[key]), key
    assert trainer.voice_is_given


def test_a_resumed_run_gives_the_same_bits(small):
    whole, part = t.Trainer(material(), TINY), t.Trainer(material(), TINY)
    for k in range(4):
        whole.step(k)
        if k < 2:
            part.step(k)
    other = t.Trainer(material(), TINY)
    torch.manual_seed(99)
    other.restore(part.state())
    for k in (2, 3):
        other.step(k)
    assert np.array_equal(weights(other), weights(whole))


def test_the_file_has_the_published_keys_and_an_interrupted_run_goes_on(narrow, tmp_path, monkeypatch):
    out, single = tmp_path / "pose.safetensors", replace(TINY, batch=1)
    real, calls = t.Trainer.step, []

    def dies(self, k):
        calls.append(k)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, k)

    monkeypatch.setattr(t.Trainer, "step", dies)
    monkeypatch.setattr(train_run, "Loop", lambda total, step, save_fn, **_: Saving(total, step, save_fn))
    with pytest.raises(KeyboardInterrupt):
        train_run.run(t.Trainer(material(), single), out)
    assert not out.exists()
    made = train_run.run(t.Trainer(material(), single), out)
    assert calls == [0, 1, 2, 2, 3] and made["steps"] == 4
    loaded = checkpoints.load_published(out, ["audio2pose"])["audio2pose"]
    poses = loaded.generate(torch.zeros(1, 40, 1, 80, 16), torch.zeros(1, 6), 2)
    assert poses.shape == (1, 40, 6) and not list(tmp_path.glob(".*"))


class Saving:
    """A loop that saves after two steps."""

    def __init__(self, total, step, save):
        self.total, self.step, self.save = total, step, save

    def run(self, start=0):
        for k in range(start, self.total):
            self.step(k)
            if k == 1:
                self.save(2)


def test_what_cannot_be_trained_is_said(small, tmp_path):
    with pytest.raises(ObservationsError, match="33 frames"):
        t.Trainer(material(frames=20), TINY)
    with pytest.raises(ObservationsError, match="47 speakers"):
        t.Trainer([t.Clip(c.mel, c.pose, k) for c in material(1) for k in range(47)], TINY)
    with pytest.raises(ConfigError, match="cannot be shared"):
        t.Trainer(material(), TINY, World(0, 4))
    with pytest.raises(OutputError, match="safetensors"):
        train_run.run(t.Trainer(material(), TINY), tmp_path / "x.pth")
    with pytest.raises(ConfigError):
        t.PoseVAEConfig(batch=0)


def test_processes_share_the_batch_of_one(small):
    trainer = t.Trainer(material(), TINY)
    whole, parts = trainer.batch(3), []
    for rank in (0, 1):
        trainer.world = World(rank, 2)
        parts.append(trainer.batch(3))
    assert all(torch.equal(torch.cat(pair), w) for pair, w in zip(zip(*parts), whole))
