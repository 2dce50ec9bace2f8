"""One picture in: the face is found and a square around head and shoulders is cut out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import FaceError
from vocalface.media.crop import resize
from vocalface.observe.landmarks import Face, Landmarker, automatic_crop
from vocalface.sadtalker import still
from vocalface.types import CropBox

SIZE = 512
LEAST_FACE = 40  # px of the source
SEARCH = 1600  # px, longer side of what the landmarker searches
LARGEST = 4096  # px, longer side: a larger picture is reduced while it is read
GROUND = 128  # grey under transparent pixels

Search = Callable[[np.ndarray], list[Face]]
"""RGB [H, W, 3] uint8 -> faces, the largest first."""


@dataclass(frozen=True)
class Portrait:
    """A picture with one chosen face."""

    image: np.ndarray  # [S, S, 3] uint8, the crop
    landmarks: np.ndarray  # [478, 3] px of the crop; z relative, smaller is nearer
    box: CropBox  # the crop in source px, for pasting back
    faces: int  # how many were found
    source: np.ndarray | None = None  # [H, W, 3] uint8, the uncropped picture, when it was asked for


def load(
    path: Path | str, *, size: int = SIZE, search: Search | None = None, face: str = "largest", keep: bool = False
) -> Portrait:
    """A face of a picture, with head and shoulders.

    Args:
        face: "largest", a number from the left, or "x,y,w,h" in px of the picture: the face whose middle lies nearest.
        keep: keep the uncropped picture too.
        path: a picture, or a video (its best frame); EXIF orientation counts, transparency lies over grey.
        size: side of the crop, px.
        search: finds faces; MediaPipe's landmarker by default.

    Raises:
        MediaError: not a picture. FaceError: no face, or one under 40 px.
        AssetError: the landmarker's model is absent.
    """
    if search is None:
        still.check(path)
        with Landmarker() as landmarker:
            return load(path, size=size, search=landmarker.search, face=face, keep=keep)
    image = over_ground(still.picture(path, search, LARGEST))
    made = cut(image, search, size, path, face)
    return replace(made, source=image) if keep else made


def picked(path: Path | str, search: Search, face: str = "largest") -> tuple[np.ndarray, np.ndarray, int]:
    """The picture [H, W, 3] uint8, the chosen face's landmarks [478, 3] in it, and how many faces there are.

    Arguments and errors as of `load`.
    """
    image = over_ground(still.picture(path, search, LARGEST))
    return image, *_find(image, search, path, face)


def over_ground(image: np.ndarray) -> np.ndarray:
    """RGBA [H, W, 4] uint8 over grey -> RGB."""
    if image[..., 3].min() == 255:
        return np.ascontiguousarray(image[..., :3])
    out = np.empty((*image.shape[:2], 3), np.uint8)
    for top in range(0, len(image), 512):  # in strips: memory stays small
        part = image[top : top + 512]
        out[top : top + 512] = media.over(part[..., :3], GROUND, part[..., 3])
    return out


def cut(image: np.ndarray, search: Search, size: int, path: Path | str, face: str = "largest") -> Portrait:
    """The portrait within an RGB picture. Raises FaceError."""
    height, width = image.shape[:2]
    landmarks, count = _find(image, search, path, face)
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    box = automatic_crop(np.concatenate([low, high])[None], width, height)
    crop = media.crop(image, box, size)
    near = [face for face in search(crop) if _same(face.landmarks, landmarks, box, size)]
    k = size / box.side
    points = near[0].landmarks if near else (landmarks - np.array([box.x, box.y, 0])) * k
    return Portrait(crop, np.asarray(points, np.float32), box, count)


def _find(image: np.ndarray, search: Search, path: Path | str, face: str) -> tuple[np.ndarray, int]:
    height, width = image.shape[:2]
    shrink = min(1.0, SEARCH / max(height, width))
    small = resize(image, max(1, round(width * shrink)), max(1, round(height * shrink))) if shrink < 1 else image
    faces = search(small)
    if not faces:
        raise FaceError("no face in this picture", path, "give one in which a face looks towards the camera")
    scale = np.array([width / small.shape[1], height / small.shape[0], width / small.shape[1]], np.float32)
    landmarks = chosen(faces, face, 1 / scale[0], path).landmarks * scale
    tall = float(np.ptp(landmarks[:, 1]))
    if tall < LEAST_FACE:
        raise FaceError(
            f"the face is {tall:.0f} px tall", path, f"give a picture whose face has {LEAST_FACE} px or more"
        )
    return landmarks, len(faces)


def chosen(faces: list[Face], which: str, scale: float, path: Path | str) -> Face:
    """One of the faces; `scale` is searched px per px of the picture. Raises FaceError."""
    middles = np.array([face.landmarks[:, :2].mean(0) for face in faces])
    numbers = [part.strip() for part in which.split(",")]
    try:
        if which == "largest":
            return faces[0]
        if len(numbers) == 1:
            return faces[np.argsort(middles[:, 0])[int(which)]]
        x, y, w, h = (float(n) * scale for n in numbers)
        return faces[int(np.linalg.norm(middles - (x + w / 2, y + h / 2), axis=1).argmin())]
    except (ValueError, IndexError):
        raise FaceError(
            f"there is no face {which!r} among {len(faces)}", path,
            "use --face largest, 0, 1, … from the left, or x,y,w,h",
        ) from None  # fmt: skip


def _same(found: np.ndarray, wanted: np.ndarray, box: CropBox, size: int) -> bool:
    """Whether the face seen in the crop is the one that was chosen."""
    wanted = (wanted[:, :2] - (box.x, box.y)) * (size / box.side)
    return float(np.abs(found[:, :2] - wanted).mean()) < 0.15 * float(np.ptp(wanted[:, 1]))
