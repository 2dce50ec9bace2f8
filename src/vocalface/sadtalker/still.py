"""One picture of a source: the picture itself, or of a video the frame that makes the best portrait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import MediaError
from vocalface.media.container import FIX
from vocalface.media.crop import resize
from vocalface.observe.indices import EYE_LEFT, EYE_RIGHT
from vocalface.observe.landmarks import Face

TRIED = 12  # frames of a video that are looked at
WITHIN = 10.0  # s from its beginning
MEND = "give a picture (PNG, JPEG, WebP) or a video that shows a face"
SEARCH = 640  # px, longer side of what is looked at


def picture(path: Path | str, search: Callable[[np.ndarray], list[Face]], reduce_to: int) -> np.ndarray:
    """RGBA [H, W, 4] uint8. Raises MediaError."""
    try:
        clip = media.open_clip(path)
        moving = len(clip.times) > TRIED
    except MediaError:
        moving = False
    if moving:
        return best(clip, search)
    try:
        return media.read_image(path, alpha=True, reduce_to=reduce_to)
    except MediaError as error:
        if error.fix == FIX:
            raise MediaError(error.what, error.where, MEND) from error
        raise


def check(path: Path | str) -> None:
    """Before anything is loaded: whether there is such a file. Raises MediaError."""
    if Path(path).is_dir():
        raise MediaError("a folder, not a picture", path, MEND)
    if not Path(path).exists():
        raise MediaError("no such file", path, "check the path")


def best(clip: media.Clip, search: Callable[[np.ndarray], list[Face]]) -> np.ndarray:
    """The frame [H, W, 4] that shows its largest face from the front, eyes open and mouth shut; else the first."""
    view = clip.at(25)
    stop = min(len(view), round(WITHIN * 25))
    step = max(stop // TRIED, 1)
    kept, mark = None, -np.inf
    for i, image in enumerate(view.iterate(0, stop)):
        if i % step:
            continue
        shrink = min(1.0, SEARCH / max(image.shape[:2]))
        faces = search(resize(image, *(max(round(v * shrink), 1) for v in image.shape[1::-1])))
        value = quality(faces[0].landmarks) if faces else -1e9
        if value > mark:
            kept, mark = image, value
    return np.dstack([kept, np.full(kept.shape[:2], 255, np.uint8)])


def quality(points: np.ndarray) -> float:
    """How good a portrait landmarks [478, 3] make: open eyes count for it, an open mouth and a turned head against."""
    tall = max(float(np.ptp(points[:, 1])), 1e-6)
    opened = np.mean([np.ptp(points[rim, 1]) / max(np.ptp(points[rim, 0]), 1e-6) for rim in (EYE_LEFT, EYE_RIGHT)])
    gap = np.linalg.norm(points[13, :2] - points[14, :2]) / tall
    left, right = (np.linalg.norm(points[k, :2] - points[4, :2]) for k in (234, 454))
    turned = abs(left - right) / max(left + right, 1e-6)
    return float(min(opened, 0.35) - 2 * gap - 0.7 * turned)
