"""Training of the official ExpNet (SadTalker, section 3.1): distillation, landmarks, blinks and lip reading.

The target is the expression of Wav2Lip's video of the clip's first frame, which moves the lips alone; without it, the
clip's own expression, blinks included. The other terms need a face model's landmarks or frozen networks that read lips,
and are left out without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vocalface.errors import ConfigError, ObservationsError
from vocalface.sadtalker import train_report
from vocalface.sadtalker.expnet import EXPRESSIONS, ExpNet
from vocalface.sadtalker.train_run import sums
from vocalface.training.distributed import World, alike, average, average_gradients, rows, synchronise
from vocalface.training.loop import step_optimizers
from vocalface.training.rng import at

LEFT_EYE, RIGHT_EYE = range(36, 42), range(42, 48)  # of 68 landmarks


@dataclass(frozen=True)
class ExpNetConfig:
    """Defaults are the published configuration's (batch: stretches, of all processes together)."""

    steps: int = 17_700  # 300 rounds over 1,890 clips
    batch: int = 32
    frames: int = 5
    lr: float = 2e-5
    coefficients: float = 2.0
    landmarks: float = 0.01
    blink: float = 4.0
    lip_reading: float = 0.01
    read: int = 2  # stretches of each process whose lips are drawn and read in a step
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.frames, self.read) < 1 or self.lr <= 0:
            raise ConfigError("steps, batch, frames, read and lr are positive", "ExpNetConfig", "see its defaults")


PRESETS = {"official": ExpNetConfig(), "tiny": ExpNetConfig(steps=30, batch=4, frames=2, lr=1e-3)}


@dataclass(frozen=True)
class Clip:
    """A talking face: what is heard and how it looks."""

    mel: np.ndarray  # [T, 1, 80, 16], or what gives its slices
    expression: np.ndarray  # [T, 64] of the clip itself
    lips: np.ndarray | None = None  # [T, 64] of Wav2Lip's video of its first frame


@dataclass(frozen=True)
class LandmarkModel:
    """68 landmarks of a face seen from the front, linear in the expression; px of a face 224 px wide, as published."""

    mean: Tensor  # [68, 2]
    basis: Tensor  # [64, 68, 2]

    def __call__(self, expression: Tensor) -> Tensor:
        """[..., 64] -> [..., 68, 2]."""
        return self.mean + torch.einsum("...k,kpc->...pc", expression, self.basis)

    def to(self, device: str) -> LandmarkModel:
        return LandmarkModel(self.mean.to(device), self.basis.to(device))


def openness(points: Tensor) -> Tensor:
    """How open the eyes are, height over width, mean of both: [..., 68, 2] -> [...]."""
    ratios = []
    for eye in (LEFT_EYE, RIGHT_EYE):
        a, b, c, d, e, f = (points[..., k, :] for k in eye)
        heights = (b - f).norm(dim=-1) + (c - e).norm(dim=-1)
        ratios.append(heights / (2 * (a - d).norm(dim=-1) + 1e-8))
    return (ratios[0] + ratios[1]) / 2


@dataclass(frozen=True)
class Batch:
    """This process's part of a step's stretches."""

    mel: Tensor  # [B, T, 1, 80, 16]
    reference: Tensor  # [B, T, 64]
    target: Tensor  # [B, T, 64]
    blink: Tensor  # [B, T, 1] closure that is asked for, 0..1
    own: Tensor  # [B] bool: the target is the clip's own expression
    places: list[tuple[int, int]]  # clip and first frame


LipReading = Callable[[Tensor, Batch], Tensor]
"""Expression [B, T, 64] and what it was made for -> scalar, from frozen networks."""


class Trainer:
    """The network, its optimiser, and one step.

    Args:
        voice: state dict of Wav2Lip's audio encoder, to start from; it goes on learning.
        landmarks: of the face model that the coefficients belong to.
        lip_reading: whether the lips can be read.

    Raises:
        ObservationsError: no clip is long enough. ConfigError: a batch that the processes cannot share.
    """

    kind, prefix = "sadtalker.expnet", "audio2exp"

    def __init__(
        self, material: Sequence[Clip], config: ExpNetConfig, world: World | None = None, *,
        voice: dict | None = None, landmarks: LandmarkModel | None = None, lip_reading: LipReading | None = None,
    ) -> None:  # fmt: skip
        self.config, self.world = config, world or World()
        self.material = [clip for clip in material if len(clip.expression) >= config.frames]
        if not self.material:
            raise ObservationsError(f"no clip of {config.frames} frames", "ExpNet", "give longer clips, with sound")
        self.world.check(config.batch)
        torch.manual_seed(config.seed)
        self.net = ExpNet().to(self.world.device)
        if voice is not None:
            self.net.audio_encoder.load_state_dict(voice)
        alike(self.net, self.world)
        synchronise(self.net, self.world)
        self.landmarks = landmarks.to(self.world.device) if landmarks else None
        self.lip_reading = lip_reading
        self.optimiser = torch.optim.Adam(self.net.parameters(), config.lr)
        lips = sum(clip.lips is not None for clip in self.material)
        self.terms = {
            "target": f"Wav2Lip's lips in {lips} of {len(self.material)} clips, else the clip's own expression",
            "voice": "Wav2Lip's" if voice is not None else "from scratch",
            "landmarks and blinks": "on" if landmarks else "off: no landmark model",
            "lip reading": getattr(lip_reading, "name", "on") if lip_reading else "off: no network that reads lips",
        }
        told = [(len(c.expression), *sums(c.mel[0:1], c.expression, c.lips)) for c in self.material]
        self.told = (told, self.terms, getattr(lip_reading, "digest", ""))

    def state(self) -> dict:
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict) -> None:
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])

    def batch(self, step: int) -> Batch:
        c = self.config
        draw = at(c.seed, step)
        starts, blinks = draw.random(c.batch), draw.random((c.batch, 2))
        mine = self.world.share(c.batch)
        mel, reference, target, own, places = [], [], [], [], []
        for row, k in zip(rows(len(self.material), c.batch, c.seed, step, self.world), mine):
            clip = self.material[row]
            first = int(starts[k] * (len(clip.expression) - c.frames + 1))
            part = slice(first, first + c.frames)
            mel.append(clip.mel[part])
            reference.append(np.broadcast_to(clip.expression[0], (c.frames, EXPRESSIONS)))
            target.append((clip.expression if clip.lips is None else clip.lips)[part])
            own.append(clip.lips is None)
            places.append((int(row), first))
        blink = np.linspace(blinks[mine, 0], blinks[mine, 1], c.frames, axis=1)[..., None]  # smooth in time
        parts = (np.stack(mel), np.stack(reference), np.stack(target), blink)
        tensors = [torch.from_numpy(p).float().to(self.world.device) for p in parts]
        return Batch(*tensors, torch.tensor(own, device=self.world.device), places)

    def step(self, step: int) -> dict[str, float]:
        c, batch = self.config, self.batch(step)
        reference, target, blink = batch.reference, batch.target, batch.blink
        if self.landmarks is None:
            blink = torch.zeros_like(blink)  # nothing would teach what it means
        else:
            open_eyes = openness(self.landmarks(reference))
            # A clip's own expression blinks as it blinked: to ask for anything else would contradict the target.
            seen = 1 - openness(self.landmarks(target)) / open_eyes.clamp(min=1e-3)
            blink = torch.where(batch.own[:, None, None], seen.clamp(0, 1)[..., None], blink)
        made = self.net.train()(batch.mel, reference, blink)
        losses = {"coefficients": c.coefficients * (made - target).square().mean()}
        if self.landmarks is not None:
            points = self.landmarks(made)
            wanted = open_eyes * (1 - blink[..., 0])
            losses["landmarks"] = c.landmarks * (points - self.landmarks(target)).norm(dim=-1).mean()
            losses["blink"] = c.blink * (openness(points) - wanted).abs().mean()
        if self.lip_reading is not None:
            losses["lip_reading"] = c.lip_reading * self.lip_reading(made, batch)
        sum(losses.values()).backward()
        average_gradients(self.net.parameters(), self.world)
        step_optimizers(self.optimiser)
        average(self.net.buffers(), self.world)
        return {name: loss.item() for name, loss in losses.items()}

    @torch.no_grad()
    def examine(self, material: Sequence[Clip], frames: int = 125) -> train_report.Shown:
        """The first frames of some clips: squared error of the coefficients, that of a face that rests as it began, and
        the correlation with the target, the median over the coefficients that move."""
        net, rows, curves = self.net.eval(), [], {}
        for clip in material[:4]:
            target = np.asarray(clip.expression if clip.lips is None else clip.lips)[:frames]
            mel, first = torch.from_numpy(clip.mel[0 : len(target)]).float(), torch.from_numpy(clip.expression[:1])
            reference, blink = first.float().expand(len(target), -1), torch.zeros(len(target), 1)
            if self.landmarks is not None and clip.lips is None:
                shape = self.landmarks.to("cpu")
                seen = openness(shape(torch.from_numpy(target).float())) / openness(shape(reference)).clamp(min=1e-3)
                blink = (1 - seen).clamp(0, 1)[:, None]
            made = net(*(x[None].to(self.world.device) for x in (mel, reference, blink)))[0].cpu().numpy()
            moving = np.flatnonzero(target.std(0) > 0.01 * target.std(0).max() + 1e-6)
            told = [np.corrcoef(made[:, k], target[:, k])[0, 1] if made[:, k].std() > 1e-6 else 0.0 for k in moving]
            rows.append({
                "mse": float(np.mean((made - target) ** 2)),
                "mse_at_rest": float(np.mean((reference.numpy() - target) ** 2)),
                "correlation": float(np.median(told)) if told else float("nan"),
            })  # fmt: skip
            most = int(target.std(0).argmax())
            curves[f"coefficient {most}, which moves most"] = {"seen": target[:, most], "said": made[:, most]}
        return train_report.Shown(train_report.mean(rows), curves=curves)
