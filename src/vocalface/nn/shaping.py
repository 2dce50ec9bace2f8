"""Rules that shape what a network says of a face, frame by frame: amplitude, silence, smoothing, lids.

Causal but for what `SilenceGate` states, NumPy only: a stream and a file get the same, and speaking needs no torch.
"""

from __future__ import annotations

import numpy as np

from vocalface.types import FPS

BLINK = np.array([0.5, 1.0, 1.0, 0.75, 0.45, 0.2])  # 2 frames to close, hold, then open


class Amplitude:
    """A foreign voice's motion, given the swing that the trained voice's has, frame by frame.

    A network that hears an unknown voice is less sure and stays nearer to its mean: lips open as far on average, and
    swing 0.6 to 0.9 times as far about it. So the gain acts about the running mean of what is said (causal, as the
    running spread, from a prior that counts as 1.5 s of the trained voice); about the closed mouth it would open the
    lips ever wider. A spread within `FREE` of the trained one is left as it is, and the trained voice with it.
    """

    PRIOR, WINDOW = 1.5 * FPS, 20.0 * FPS  # frames of speech
    LOW, HIGH = 0.8, 1.6  # of the gain
    FREE = 0.04

    def __init__(self, mean: np.ndarray, spread: float) -> None:
        """mean [D] of the trained voice's vectors while it speaks; spread: root of their summed variance."""
        self.spread = max(float(spread), 1e-6)
        self.mean, self.variance, self.heard = np.asarray(mean, np.float64), self.spread**2, self.PRIOR

    @property
    def gain(self) -> float:
        """What the motion about its running mean is multiplied by now."""
        ratio = self.spread / max(np.sqrt(self.variance), 1e-9)
        beyond = max(abs(np.log(ratio)) - np.log1p(self.FREE), 0.0)  # no step where the free range ends
        return float(np.clip(np.exp(np.sign(ratio - 1) * beyond), self.LOW, self.HIGH))

    def __call__(self, x: np.ndarray, speaks: bool) -> np.ndarray:
        """Vector [D] of the next frame in, shaped vector out; a pause teaches nothing."""
        if speaks:
            self.heard = min(self.heard + 1, self.WINDOW)
            step = x - self.mean
            self.mean = self.mean + step / self.heard
            self.variance += (float(step @ (x - self.mean)) - self.variance) / self.heard
        gain = self.gain
        return x if gain == 1 else (x + (gain - 1) * (x - self.mean)).astype(np.float32)


class SilenceGate:
    """How silent each frame is, 0..1: level under a running threshold for over 200 ms, with 80 ms ramps.

    Causal but for `ahead` frames. The threshold stands between a slow noise floor and the running speech level.
    """

    ahead = 3

    def __init__(self) -> None:
        self.floor, self.loud = -60.0, -25.0
        self.quiet = 0
        self.gate = 0.0

    def push(self, level: float) -> float:
        """Level (dB) of frame i + ahead in, gate of frame i out."""
        loud_step = 0.3 if level > self.loud else 0.004
        self.loud += loud_step * (level - self.loud) if level > self.floor + 6 else 0
        self.floor += (0.3 if level < self.floor else 0.01) * (level - self.floor)
        self.floor = max(min(self.floor, self.loud - 15), -75.0)
        threshold = max(self.floor + 0.3 * (self.loud - self.floor), -62.0)
        self.quiet = self.quiet + 1 if level < threshold else 0
        target = 1.0 if self.quiet > 4 else 0.0  # this frame, `ahead` later than the one asked for
        step = 0.5  # 80 ms from open to closed
        self.gate += float(np.clip(target - self.gate, -step, step))
        return self.gate


class Smoother:
    """Light zero-lag smoothing: a symmetric three-tap kernel would need a frame ahead, so the causal part is undone.

    y_t = x_t - s/4 (x_t - 2 x_{t-1} + x_{t-2}) damps frame-to-frame zigzag (gain 1 - s at the highest frequency) and
    passes constants and ramps unchanged, so that it adds no lag to slow motion.
    """

    def __init__(self, strength: float) -> None:
        self.s = strength
        self.past: list[tuple[np.ndarray, ...]] = []

    def __call__(self, *x: np.ndarray) -> tuple[np.ndarray, ...]:
        self.past = [*self.past[-2:], x]
        if len(self.past) < 3 or not self.s:
            return x
        return tuple(c - self.s / 4 * (c - 2 * b + a) for a, b, c in zip(*self.past))
