"""ExpNet's training: the loss falls, lids obey, an interrupted run ends like an unbroken one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vocalface.errors import ObservationsError, OutputError
from vocalface.sadtalker.train_expnet import PRESETS, Clip, LandmarkModel, Trainer, openness
from vocalface.sadtalker.train_run import run
from vocalface.training import checkpoint

TINY = PRESETS["tiny"]


def clip(seed=0, frames=12, lips=False):
    draw = np.random.default_rng(seed)
    mel = draw.normal(size=(frames, 1, 80, 16)).astype(np.float32)
    voice = mel.mean((1, 2, 3))[:, None] * 20
    target = (voice * draw.normal(size=(1, 64))).astype(np.float32)
    return Clip(mel, 0.1 * draw.normal(size=(frames, 64)).astype(np.float32) if lips else target, target)


def lids():
    """Eyes of openness 0.5 whose lids the first coefficient moves."""
    mean, basis = torch.zeros(68, 2), torch.zeros(64, 68, 2)
    for first in (36, 42):
        mean[first : first + 6] = torch.tensor([[0, 0], [1, 1], [3, 1], [4, 0], [3, -1], [1, -1]]).float()
        basis[0, first : first + 6, 1] = torch.tensor([0, 1, 1, 0, -1, -1]).float()
    return LandmarkModel(mean, basis)


def test_openness_is_height_over_width():
    model = lids()
    expression = torch.zeros(3, 64)
    expression[:, 0] = torch.tensor([0, -1, 1])
    assert torch.allclose(openness(model(expression)), torch.tensor([0.5, 0.0, 1.0]), atol=1e-6)


def test_the_loss_falls_with_every_term_and_frozen_readers_get_no_gradient():
    reader = torch.nn.Linear(64, 4).requires_grad_(False)
    trainer = Trainer(
        [clip(), clip(1, lips=True)], TINY, landmarks=lids(),
        lip_reading=lambda made, batch: (reader(made) - reader(batch.target)).square().mean(),
    )  # fmt: skip
    losses = [trainer.step(k) for k in range(TINY.steps)]
    assert set(losses[0]) == {"coefficients", "landmarks", "blink", "lip_reading"}
    total = [sum(v.values()) for v in losses]
    assert np.mean(total[-5:]) < 0.6 * np.mean(total[:5])
    assert all(p.grad is None for p in reader.parameters())


def test_lip_only_motion_is_preferred_and_what_is_missing_is_said():
    trainer = Trainer([clip(2, lips=True)], TINY)
    batch, have = trainer.batch(0), trainer.material[0]
    assert torch.equal(batch.reference[0, 0], torch.from_numpy(have.expression[0]))
    assert np.array_equal(batch.target[0, 0].numpy(), have.lips[batch.places[0][1]]) and not batch.own.any()
    assert trainer.terms["landmarks and blinks"].startswith("off")
    assert set(trainer.step(0)) == {"coefficients"}


def test_resuming_is_bit_exact(tmp_path):
    config, material = replace(TINY, steps=4), [clip()]
    run(Trainer(material, config), tmp_path / "whole.safetensors")
    state = Trainer(material, config)
    for k in range(2):
        state.step(k)
    checkpoint.save(tmp_path / "kept", 2, state.state(), {})
    resumed = Trainer(material, config)
    resumed.restore(checkpoint.latest(tmp_path / "kept")[1])
    for k in range(2, 4):
        resumed.step(k)
    assert [p.name for p in tmp_path.iterdir() if p.name != "kept"] == ["whole.safetensors"]
    whole = load_file(tmp_path / "whole.safetensors")
    assert all(torch.equal(v, whole[f"audio2exp.{k}"]) for k, v in resumed.net.state_dict().items())


def test_bad_material_and_names(tmp_path):
    with pytest.raises(ObservationsError):
        Trainer([], TINY)
    with pytest.raises(OutputError):
        run(Trainer([clip()], TINY), tmp_path / "x.pth")
