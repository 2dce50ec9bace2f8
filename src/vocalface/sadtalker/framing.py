"""What stands around the official networks: where the face is cut, what a frame hears, blinks, paths of the camera.

Landmarks are the classical 68 [68, 2], px, y down. Sources: the published code's description in the SadTalker paper and
its crop after FFHQ ("A Style-Based Generator Architecture for GANs", Karras et al., 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vocalface.errors import FaceError

WINDOW, REACH = 16, 13  # mel columns that a frame hears; frames on each side that the MappingNet sees
ALIGNED, SPAN = 224, 102.0  # px of the aligned face; its size in units of the reference points
BLINK = np.array([0.5, 0.9, 1.0, 0.9, 0.5])
SIDE = 512  # px, the crop's nominal size: much larger faces are halved first


# ------------------------------------------------------------------------------------------------------------- speech
def mel_windows(columns: np.ndarray, frames: int) -> np.ndarray:
    """Log-mel columns [n, 80], 80 a second -> what each frame hears [frames, 1, 80, 16]; edges repeat."""
    starts = np.trunc(80.0 * (np.arange(frames) - 2) / 25).astype(int)
    index = np.clip(starts[:, None] + np.arange(WINDOW), 0, len(columns) - 1)
    return columns[index].transpose(0, 2, 1)[:, None].astype(np.float32)


# ---------------------------------------------------------------------------------------------------------- the motion
def blinks(frames: int, rng) -> np.ndarray:
    """Closure [frames]: blinks of five frames at random gaps (`rng.randrange`); none within 21 frames, where the
    published code fails at exactly 21."""
    out = np.zeros(frames)
    low, high = min(10, frames), min(frames // 2, 70)
    if low >= high:
        return out
    at = 0
    while True:
        at += rng.randrange(low, high)
        if at + len(BLINK) >= frames:
            return out
        out[at : at + len(BLINK)] = BLINK
        at += len(BLINK)


def camera_path(keys: np.ndarray | list[float], frames: int) -> np.ndarray:
    """Key angles joined at constant speed, [frames]; equal neighbours take no time, one frame shows the first key."""
    keys = np.asarray(keys, np.float64)
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(keys)))])
    if way[-1] == 0 or frames == 1:
        return np.full(frames, keys[0])
    return np.interp(np.linspace(0, way[-1], frames), way, keys)


def coefficient_window(coefficients: np.ndarray, frame: int) -> np.ndarray:
    """[T, C] -> what the MappingNet sees of a frame, [C, 27]; edges repeat."""
    rows = np.clip(np.arange(frame - REACH, frame + REACH + 1), 0, len(coefficients) - 1)
    return coefficients[rows].T


# ------------------------------------------------------------------------------------------------------------- framing
def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose, corners of the mouth [5, D] of 68 points [68, D]."""
    eyes = [landmarks[[36, 39]].mean(0), landmarks[[42, 45]].mean(0)]
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])


@dataclass(frozen=True)
class Alignment:
    """How a picture becomes the 224-px square that the face model reads."""

    width: int
    height: int
    scale: float
    x: float  # where the reference's origin lies, px of the picture
    y: float  # upwards

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the scaled picture."""
        return int(self.width * self.scale), int(self.height * self.scale)

    @property
    def corner(self) -> tuple[int, int]:
        """Left and top of the square in the scaled picture; what lies outside it is black."""
        wide, high = self.size
        left = int(wide / 2 - ALIGNED // 2 + (self.x - self.width / 2) * self.scale)
        return left, int(high / 2 - ALIGNED // 2 + (self.height / 2 - self.y) * self.scale)

    @property
    def crop(self) -> np.ndarray:
        """Scale and place [3], the last of the 73 coefficients."""
        return np.array([self.scale, self.x, self.y])


def align(points: np.ndarray, reference: np.ndarray, width: int, height: int) -> Alignment:
    """The weak-perspective fit of five reference points [5, 3] to five points [5, 2] of a picture, y upwards."""
    rows = np.concatenate([reference, np.ones((5, 1))], axis=1)
    affine = np.linalg.lstsq(rows, points, rcond=None)[0].T  # [2, 4]
    size = np.linalg.norm(affine[:, :3], axis=1).mean()
    return Alignment(width, height, SPAN / size, float(affine[0, 3]), float(affine[1, 3]))


@dataclass(frozen=True)
class Frame:
    """Where the face is cut: the picture is scaled to `size`, cut to `outer`, and to `inner` within that."""

    size: tuple[int, int]
    outer: tuple[int, int, int, int]  # left, top, right, bottom
    inner: tuple[float, float, float, float]  # within `outer`
    shrink: float  # px of the picture to one of the scaled picture

    def place(self, whole: bool) -> tuple[float, float, float, float]:
        """Where the cut square lies in the picture itself: left, top, right, bottom. (The published code forgets
        `shrink`, and puts large faces back in the wrong place.)"""
        x, y, right, bottom = self.outer
        if not whole:
            x, y, right, bottom = x + self.inner[0], y + self.inner[1], x + self.inner[2], y + self.inner[3]
        return tuple(self.shrink * v for v in (x, y, right, bottom))


def frame(landmarks: np.ndarray, width: int, height: int) -> Frame:
    """The crop about a face. Raises FaceError for landmarks that span nothing."""
    left, right = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    between, middle = right - left, (left + right) / 2
    down = (landmarks[48] + landmarks[54]) / 2 - middle
    x = between - down[::-1] * (-1, 1)
    if not np.linalg.norm(x) > 0:
        raise FaceError("the face has no extent", "landmarks", "give a picture in which the face is seen")
    x = x / np.linalg.norm(x) * max(2 * np.linalg.norm(between), 1.8 * np.linalg.norm(down))
    y = x[::-1] * (-1, 1)
    centre = middle + 0.1 * down
    quad = np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    span = 2 * np.linalg.norm(x)
    shrink = int(np.floor(span / SIDE * 0.5))
    size = (width, height)
    if shrink > 1:
        size = (int(np.rint(width / shrink)), int(np.rint(height / shrink)))
        quad, span = quad / shrink, span / shrink
    border = max(int(np.rint(span * 0.1)), 3)
    low, high = np.floor(quad.min(0)).astype(int) - border, np.ceil(quad.max(0)).astype(int) + border
    outer = (max(low[0], 0), max(low[1], 0), min(high[0], size[0]), min(high[1], size[1]))
    wide, high_ = outer[2] - outer[0], outer[3] - outer[1]
    quad = quad - outer[:2] + 0.5
    inner = (
        max(min(quad[0, 0], quad[1, 0]), 0), max(min(quad[0, 1], quad[3, 1]), 0),
        min(max(quad[2, 0], quad[3, 0]), wide), min(max(quad[1, 1], quad[2, 1]), high_),
    )  # fmt: skip
    return Frame(size, tuple(int(v) for v in outer), tuple(float(v) for v in inner), max(shrink, 1))
