"""Training off the CPU: no step mixes devices, and it gives what the CPU gives."""

import sys
from functools import partial

import drawn
import elsewhere
import numpy as np
import pytest
import torch

from vocalface.errors import DeviceError
from vocalface.hmtalker import tracking
from vocalface.hmtalker import train as training
from vocalface.hmtalker.config import PRESETS
from vocalface.hmtalker.data import prepare

SHORT = PRESETS["tiny"].replace(
    face_gaussians=60, mouth_gaussians=24, warmup_steps=2, face_steps=5, mouth_steps=4, fuse_steps=3, speech_steps=2,
    pose_refine_steps=1, pose_steps=1, audio="mel", attention_weight=1e-4,
)  # fmt: skip


def train(config, material, device, steps):
    trainer = training.Trainer(material, config, device)
    losses = []
    for done in steps:
        trainer.advance(done)
        losses.append(trainer.smooth)
    trainer.to("cpu").poses.matrices()
    return losses


def test_every_stage_runs_on_another_device_and_gives_what_the_cpu_gives(tmp_path, monkeypatch):
    # the fused optimiser wants a device that it knows
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *_: None)
    # a vector through nn.Linear is squeezed in place, which the stand-in cannot follow
    linear = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear",
        lambda x, w, b=None: linear(x[None], w, b).squeeze(0) if x.dim() == 1 else linear(x, w, b),
    )  # fmt: skip
    for room in (training, tracking):
        monkeypatch.setattr(room, "draw", partial(training.draw, backend="reference"))  # what a GPU draws with
    # in-place `out=` is beyond the stand-in; SSIM has tests of its own
    monkeypatch.setattr(training, "l1_dssim", lambda x, y, _: (x - y).square().mean())
    material = prepare(drawn.observations(tmp_path / "drawn"), SHORT, tmp_path / "work")
    lengths = training.Trainer(material, SHORT).lengths()
    steps = [*range(sum(lengths.values()) - lengths["poses"] + 1)]
    near = train(SHORT, material, "cpu", steps)
    with elsewhere.Elsewhere():
        far = train(SHORT, material, "meta", steps)
    np.testing.assert_allclose(far, near, rtol=1e-2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_an_error():
    with pytest.raises(DeviceError):
        training.choose_device("cuda")
    assert training.choose_device("auto") == torch.device("cpu")
