"""Where the published networks look: the crop about the face, and the face laid on five reference points.

Convention: landmarks are px, x right, y down; rectangles are (left, top, right, bottom) in px of the source picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vocalface.errors import ConfigError
from vocalface.media.crop import resize
from vocalface.observe.indices import LANDMARKS_68
from vocalface.sadtalker import framing
from vocalface.sadtalker.recon import SIDE

MODES = ("crop", "extcrop", "resize", "full", "extfull")
PASTED = ("full", "extfull")
"""Modes whose square goes back into the whole picture; they use the mapping of 73 channels."""

REFERENCE = np.array([
    [-0.31148657, 0.29036078, 0.13377953], [0.30979887, 0.28972036, 0.13179526], [0.0032535, -0.04617932, 0.55244243],
    [-0.25216928, -0.38133916, 0.22405732], [0.2484662, -0.38128236, 0.22235769],
])  # fmt: skip
"""Eyes, tip of the nose, corners of the mouth of the face model, y up (Deep3DFaceRecon's `similarity_Lm3D_all`)."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Crop:
    """What of a picture the networks see."""

    box: Box  # of the source picture
    pasted: bool  # whether the result goes back into it

    @property
    def width(self) -> int:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]


def landmarks_68(points: np.ndarray) -> np.ndarray:
    """MediaPipe's landmarks [478, 2 or 3] -> the 68 of the 300-W layout [68, 2]."""
    return np.asarray(points, np.float64)[LANDMARKS_68, :2]


def crop_for(points: np.ndarray, width: int, height: int, mode: str) -> Crop:
    """The crop of a mode about a face, in px of the source picture whatever its size.

    crop: close; extcrop: wider; resize: the whole picture; full, extfull: as crop and extcrop, put back.

    Raises ConfigError.
    """
    if mode not in MODES:
        raise ConfigError(f"there is no crop {mode!r}", "--crop", f"choose {', '.join(MODES)}")
    if mode == "resize":
        return Crop((0, 0, width, height), False)
    place = framing.frame(points, width, height).place(whole=mode.startswith("ext"))
    x0, y0, x1, y1 = (int(v) for v in place)
    x0, y0 = min(max(x0, 0), width - 2), min(max(y0, 0), height - 2)
    x1, y1 = max(min(x1, width), x0 + 2), max(min(y1, height), y0 + 2)
    return Crop((x0, y0, x1, y1), mode in PASTED)


def cut(image: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """What the networks see [size, size, 3] uint8 of a picture [H, W, 3]."""
    x0, y0, x1, y1 = crop.box
    return resize(np.ascontiguousarray(image[y0:y1, x0:x1]), size, size)


# ----------------------------------------------------------------------------------------- five points
def aligned(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The face as Deep3DFaceRecon sees it.

    Args:
        image: [H, W, 3] uint8.
        points: five points [5, 2], y down.

    Returns:
        [224, 224, 3] uint8, black beyond the picture; and scale, x and y of the alignment [3] float32.
    """
    height, width = image.shape[:2]
    upwards = np.stack([points[:, 0], height - 1 - points[:, 1]], 1)
    place = framing.align(upwards, REFERENCE, width, height)
    return window_of(image, *place.size, *place.corner), place.crop.astype(np.float32)


def window_of(image: np.ndarray, wide: int, tall: int, left: int, top: int) -> np.ndarray:
    """A square of SIDE px of the picture as if resized to wide x tall; only that square is computed."""
    height, width = image.shape[:2]
    across, down = cubic(width, wide, left, SIDE), cubic(height, tall, top, SIDE)
    rows = np.einsum("yh,hwc->ywc", down, image.astype(np.float64), optimize=True)
    out = np.einsum("xw,ywc->yxc", across, rows, optimize=True)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def cubic(length: int, count: int, start: int, side: int) -> np.ndarray:
    """Weights [side, length] of samples start..start + side - 1 of `length` px resized to `count`; 0 beyond them.

    Cubic (a = -1/2), widened when shrinking, as Pillow's BICUBIC.
    """
    scale = length / max(count, 1)
    widened = max(scale, 1.0)
    at = np.arange(start, start + side)
    centre = (at + 0.5) * scale
    t = np.abs(np.arange(length) + 0.5 - centre[:, None]) / widened
    weights = np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))
    total = weights.sum(1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=np.abs(total) > 1e-9)
    weights[(at < 0) | (at >= count)] = 0
    return weights


# ------------------------------------------------------------------------------------------ back again
class PasteBack:
    """Puts drawn squares into the whole picture: a soft rim, and colours that meet the picture's.

    Sides at the picture's own border have no rim. The colour of the portrait as drawn first is held against the picture
    within the rim; that correction, one factor and one offset a channel, stays for the whole video and cannot flicker.
    """

    RIM = 0.08  # share of the shorter side

    def __init__(self, picture: np.ndarray, crop: Crop) -> None:
        self.picture, self.crop = picture, crop
        height, width = picture.shape[:2]
        x0, y0, x1, y1 = crop.box
        rim = max(self.RIM * min(crop.width, crop.height), 1.0)
        across = ramp(crop.width, rim, x0 > 0, x1 < width)
        down = ramp(crop.height, rim, y0 > 0, y1 < height)
        self.weight = np.minimum(down[:, None], across[None])[..., None].astype(np.float32)
        self.gain: np.ndarray | None = None
        self.offset = np.zeros(3, np.float32)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The whole picture [H, W, 3] uint8 with this square [S, S, 3] in it."""
        x0, y0, x1, y1 = self.crop.box
        patch = resize(image, self.crop.width, self.crop.height).astype(np.float32)
        under = self.picture[y0:y1, x0:x1].astype(np.float32)
        if self.gain is None:
            self._match(patch, under)
        out = self.picture.copy()
        patch = patch * self.gain + self.offset
        out[y0:y1, x0:x1] = np.clip(np.rint(under + self.weight * (patch - under)), 0, 255)
        return out

    def _match(self, patch: np.ndarray, under: np.ndarray) -> None:
        rim = self.weight[..., 0] < 1
        if not rim.any():
            rim = np.ones_like(rim)
        new, old = patch[rim], under[rim]
        self.gain = np.clip(old.std(0) / np.maximum(new.std(0), 1.0), 0.8, 1.25)
        self.offset = np.clip(old.mean(0) - self.gain * new.mean(0), -40, 40)


def ramp(length: int, rim: float, begins: bool, ends: bool) -> np.ndarray:
    """[length] weights, rising smoothly from either end that has a rim."""
    at = np.arange(length) + 0.5
    t = np.ones(length)
    if begins:
        t = np.minimum(t, at / rim)
    if ends:
        t = np.minimum(t, (length - at) / rim)
    return t * t * (3 - 2 * t)
