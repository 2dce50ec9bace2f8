"""Runs of frames without a camera: a bright face that turns and opens its mouth as its coefficients say."""

import numpy as np


class Moving:
    """As `observe.corpus.Run`, drawn when asked for."""

    def __init__(self, seed=0, frames=12, side=64):
        draw = np.random.default_rng(seed)
        self.frames, self.side, self.tint = frames, side, draw.uniform(0.4, 1, 3)
        rows = np.zeros((frames, 73), np.float32)
        rows[:, 0] = draw.uniform(0, 1, frames)  # mouth
        rows[:, 64:67] = draw.uniform(-0.5, 0.5, (frames, 3))
        rows[:, 70:] = np.array([0.9, side / 2, side / 2]) + draw.uniform(-0.1, 0.1, (frames, 3))
        self.coefficients = rows

    def __len__(self):
        return self.frames

    def face(self, i):
        mouth, (pitch, yaw, _) = self.coefficients[i, 0], self.coefficients[i, 64:67]
        y, x = (np.mgrid[0 : self.side, 0 : self.side] + 0.5) / self.side * 2 - 1
        x, y = x - 0.5 * yaw, y - 0.5 * pitch
        bright = np.exp(-3 * (x**2 + 0.7 * y**2)) - 0.8 * np.exp(-60 * (x**2 + (y - 0.3) ** 2 / (0.1 + mouth)))
        return (255 * np.clip(bright[..., None] * self.tint, 0, 1)).astype(np.uint8)


def interrupted(monkeypatch, trainer: type, at: int) -> list[int]:
    """`trainer.step` raises KeyboardInterrupt when it is asked for the `at`-th time; returns the steps that began."""
    real, began = trainer.step, []

    def noted(self, k):
        began.append(k)
        if len(began) == at:
            raise KeyboardInterrupt
        return real(self, k)

    monkeypatch.setattr(trainer, "step", noted)
    return began
