"""A drawn person before a textured wall, with every mask known: the test-bed of the masks and layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from vocalface.observe.masks import BROWS, FACE_OVAL, MOUTH_INTERIOR
from vocalface.types import BACKGROUND, FACE, HAIR, NECK, TORSO

SKIN, DARK, SHIRT = (205, 150, 120), (60, 40, 30), (40, 70, 150)


@dataclass
class Drawn:
    frame: np.ndarray  # [S, S, 3] uint8
    labels: np.ndarray  # [S, S] uint8, the mouth counted as face
    head: np.ndarray  # [S, S] float32, true alpha
    person: np.ndarray  # [S, S] float32, true alpha
    landmarks: np.ndarray  # [478, 3] float32


def wall(size: int, seed: int = 0) -> np.ndarray:
    """A textured wall, greenish grey, [S, S, 3] uint8."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), size / 40)
    noise *= 25 / noise.std()
    return np.clip(np.array([110, 160, 130]) + noise[..., None], 0, 255).astype(np.uint8)


def template(size: int, x: float = 0.5, y: float = 0.42, gap: float = 0.0) -> np.ndarray:
    """478 landmarks of a frontal face, centre (x, y) and lip gap as shares of the frame, [478, 3] float32 px."""
    points = np.zeros((478, 3), np.float32)
    points[:, :2] = x, y
    turn = 2 * np.pi * np.arange(len(FACE_OVAL)) / len(FACE_OVAL)
    points[list(FACE_OVAL), 0] = x + 0.15 * np.sin(turn)
    points[list(FACE_OVAL), 1] = y - 0.2 * np.cos(turn)
    points[list(BROWS), 0] = x + np.linspace(-0.1, 0.1, len(BROWS))
    points[list(BROWS), 1] = y - 0.08
    # The inner lips from corner to corner over the top, then back along the lower lip.
    side = np.pi * np.arange(len(MOUTH_INTERIOR)) / 10
    points[list(MOUTH_INTERIOR), 0] = x - 0.05 * np.cos(side)
    points[list(MOUTH_INTERIOR), 1] = y + 0.1 - gap / 2 * np.sin(side)
    return points * np.float32(size)


def draw(
    size: int, x: float = 0.5, y: float = 0.42, gap: float = 0.0, long_hair: bool = False, shirt=SHIRT,
    bent: float = 0.0, swing: float = 0.0,
) -> Drawn:  # fmt: skip
    """The person at (x, y), antialiased by drawing at three times the size.

    `bent` is how far the shoulders come up beside the chin, before the hair; `swing` how far out, share of the frame,
    the ends of long hair hang on the image's left.
    """
    big = 3 * size
    columns, rows = np.meshgrid((np.arange(big) + 0.5) / big - x, (np.arange(big) + 0.5) / big - y)
    face = (columns / 0.15) ** 2 + (rows / 0.2) ** 2 < 1
    cap = ((columns / 0.18) ** 2 + ((rows + 0.03) / 0.24) ** 2 < 1) & (rows < -0.06)
    if long_hair:
        cap |= (np.abs(columns) < 0.19) & (np.abs(columns) > 0.1) & (rows > -0.07) & (rows < 0.28)
        out = 0.19 + swing * ((rows + 0.07) / 0.2).clip(0, 1)
        cap |= (columns < -0.1) & (columns > -out) & (rows > -0.07) & (rows < 0.28)
    neck = (np.abs(columns) < 0.09) & (rows > 0.1)
    top = 0.3 - bent
    torso = (rows > top) & (np.abs(columns) < 0.16 + 1.2 * (rows - top).clip(0))
    if bent:
        cap &= ~torso
    labels = np.full((big, big), BACKGROUND, np.uint8)
    labels[neck], labels[torso], labels[cap], labels[face & ~(cap & (rows < -0.12))] = NECK, TORSO, HAIR, FACE
    colours = np.array([(0, 0, 0), SKIN, DARK, SKIN, tuple(int(0.8 * c) for c in SKIN), shirt], np.float32)

    def shrink(image):
        return image.reshape(size, 3, size, 3, -1).mean((1, 3))

    person = shrink((labels != BACKGROUND).astype(np.float32))
    paint = shrink(colours[labels])  # premultiplied: the background's colour is black
    frame = np.rint(paint + wall(size) * (1 - person)).astype(np.uint8)
    head = shrink(np.isin(labels, (FACE, HAIR)).astype(np.float32))[..., 0]
    return Drawn(frame, labels[1::3, 1::3], head, person[..., 0].astype(np.float32), template(size, x, y, gap))


def clip(size: int, frames: int = 12, reach: float = 0.0, **options) -> list[Drawn]:
    """The person walking sideways by +-reach of the frame."""
    return [draw(size, x=0.5 + reach * np.sin(2 * np.pi * i / frames), **options) for i in range(frames)]


def person_mask(drawn: list[Drawn]):
    """A person mask that knows the truth and blurs it, as a network does."""
    known = {d.frame.tobytes(): gaussian_filter(d.person, 1.5 * d.frame.shape[0] / 256) for d in drawn}
    return lambda frame: known[np.ascontiguousarray(frame).tobytes()]
