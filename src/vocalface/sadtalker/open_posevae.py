"""A PoseVAE of our own: prosody, a style and noise in, a head that moves while it speaks out. Any length, no seams.

A convolutional variational auto-encoder over time. Its latents live on three grids (`STRIDES`: a nod, a phrase, a
posture) and are spread to frames by cubic B-splines, so that what is decoded has no blocks and no seams; the decoder
hears the prosody around each frame. Drawing the latents from a seed gives motion that was in no training example.
Runs on NumPy alone; `open_posevae_train.py` trains it. See MODEL_CARD_POSEVAE.md.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from vocalface.errors import ConfigError
from vocalface.sadtalker.open_weights import Context, convolve, gelu, load

WEIGHTS = Path(__file__).with_name("open_posevae.safetensors")
KIND, SCHEMA = "posevae", 1
HEAD = ("yaw", "pitch", "roll", "right", "down", "brow")
"""Angles in rad (to the image's right, down, clockwise), way in m, brow raise about 0..1."""
STYLES = 8
"""Ways to move, from calm (0) to lively (7)."""
STRIDES = (6, 24, 96)
LATENTS = (6, 4, 4)  # channels on each grid
HEARING = ((5, 1, 0), (3, 2, 1), (3, 4, 0), (3, 8, 0))  # taps, dilation, frames ahead of what listens
SMOOTH = ((5, 1), (3, 2))  # of what moves; as far back as ahead
REACH = sum((taps - 1) // 2 * dilation for taps, dilation in SMOOTH)


class OpenPoseVAE:
    """The trained decoder. Immutable."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.tensors, self.config = _cached(Path(path) if path else WEIGHTS)
        self.before, self.after = context()

    def __call__(self, prosody: np.ndarray, style: float = 3, seed: int = 0) -> np.ndarray:
        """Head [F, 6], columns `HEAD`, of prosody [F, 5]."""
        stream = self.stream(style, seed)
        return np.concatenate([stream.push(prosody), stream.flush()])

    def stream(self, style: float = 3, seed: int = 0) -> PoseStream:
        return PoseStream(self, style, seed)

    def run(self, prosody: np.ndarray, latents: np.ndarray, style: float) -> np.ndarray:
        """Prosody [T, 5] and latents [T - hearing, 14] -> head [T - before - after, 6]."""
        t = self.tensors
        x = gelu(prosody @ t["listen.weight"][:, :, 0].T + t["listen.bias"])
        for i, (taps, dilation, ahead) in enumerate(HEARING):
            past = (taps - 1) * dilation - ahead
            x = x[past : len(x) - ahead] + gelu(convolve(x, t[f"hear.{i}.weight"], t[f"hear.{i}.bias"], dilation))
        manner = (1 - style % 1) * t["styles"][int(style)] + style % 1 * t["styles"][min(int(style) + 1, STYLES - 1)]
        x = np.concatenate([x, latents, np.broadcast_to(manner, (len(x), len(manner)))], axis=1)
        x = gelu(x @ t["join.weight"][:, :, 0].T + t["join.bias"])
        for i, (taps, dilation) in enumerate(SMOOTH):
            edge = (taps - 1) // 2 * dilation
            x = x[edge : len(x) - edge] + gelu(convolve(x, t[f"move.{i}.weight"], t[f"move.{i}.bias"], dilation))
        return (x @ t["head.weight"][:, :, 0].T + t["head.bias"]) * t["head_std"] + t["head_mean"]


def context() -> tuple[int, int]:
    """Frames of prosody that the decoder needs before and after a frame."""
    ahead = sum(n for _, _, n in HEARING)
    return sum((taps - 1) * dilation for taps, dilation, _ in HEARING) - ahead + REACH, ahead + REACH


@cache
def _cached(path: Path) -> tuple[dict, dict]:
    return load(path, KIND, SCHEMA)


def check_style(style: float) -> float:
    """The style; ConfigError outside 0..7."""
    if not 0 <= style <= STYLES - 1:
        raise ConfigError(
            f"There is no head style {style:g}", "--head-style", f"choose 0 (calm) to {STYLES - 1} (lively)"
        )
    return float(style)


class PoseStream:
    """Rows of prosody in, rows of the head out, `look_ahead` frames later."""

    def __init__(self, network: OpenPoseVAE, style: float, seed: int) -> None:
        self.network, self.style = network, check_style(style)
        self.context = Context(network.before, network.after)
        self.look_ahead = network.after
        self.noise = Noise(seed)
        self.frame = 0

    def push(self, rows: np.ndarray) -> np.ndarray:
        return self._run(self.context.push(rows))

    def flush(self) -> np.ndarray:
        return self._run(self.context.flush())

    def _run(self, block: np.ndarray | None) -> np.ndarray:
        if block is None:
            return np.zeros((0, len(HEAD)), np.float32)
        count = len(block) - self.network.before - self.network.after
        latents = self.noise(self.frame - REACH, self.frame + count + REACH)
        self.frame += count
        return self.network.run(block, latents, self.style)


class Noise:
    """Latents of any frames, drawn from a seed: [stop - start, sum(LATENTS)], the same however they are asked for."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.drawn: list[dict[int, np.ndarray]] = [{} for _ in STRIDES]

    def __call__(self, start: int, stop: int) -> np.ndarray:
        return np.concatenate([self._level(k, start, stop) for k in range(len(STRIDES))], axis=1).astype(np.float32)

    def _level(self, level: int, start: int, stop: int) -> np.ndarray:
        stride, drawn = STRIDES[level], self.drawn[level]
        first, last = start // stride - 1, (stop - 1) // stride + 2
        for k in range(first, last + 1):
            if k not in drawn:
                drawn[k] = np.random.default_rng([self.seed, level, k + 1000]).normal(size=LATENTS[level])
        for k in [k for k in drawn if k < first - 2]:
            del drawn[k]
        knots = np.array([drawn[k] for k in range(first, last + 1)])
        return spread(knots, np.arange(start, stop) / stride - first)


def spread(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Cubic B-spline over `knots` [K, C] at places [T], of deviation 1 where the knots are white of deviation 1."""
    base = np.floor(at).astype(int)
    weights = spline(at - base)
    return sum(weights[:, j, None] * knots[base - 1 + j] for j in range(4))


def spline(t: np.ndarray) -> np.ndarray:
    """The four weights [T, 4] of a cubic B-spline at t in 0..1, of unit energy."""
    w = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3], axis=1) / 6
    return w / np.sqrt((w**2).sum(1, keepdims=True))
