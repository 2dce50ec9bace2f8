"""Faces in frames: MediaPipe's landmarker in IMAGE mode, a tiled search for small faces, the automatic crop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from vocalface import assets, media
from vocalface.errors import AssetError, FaceError
from vocalface.types import CropBox

LEAST_FACE = 60  # px of the source: a smaller face holds no lips worth training on


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keeps the C++ log of MediaPipe off stderr while its graph is built."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(null)
        os.close(saved)


@dataclass(frozen=True)
class Face:
    """One detection."""

    landmarks: np.ndarray  # [478, 3] px (z relative)
    blendshapes: np.ndarray  # [52]

    @property
    def box(self) -> np.ndarray:
        """x0, y0, x1, y1 px."""
        return np.concatenate([self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)])

    @property
    def size(self) -> float:
        """Height of the landmarks' box, px."""
        return float(self.box[3] - self.box[1])


class Landmarker:
    """MediaPipe FaceLandmarker on single images. Use as a context manager.

    Raises AssetError when the model file is absent or MediaPipe cannot start.
    """

    def __init__(self, faces: int = 3) -> None:
        path = assets.path("mediapipe/face_landmarker.task")
        try:
            with silenced():
                import mediapipe as mp
                from mediapipe.tasks.python import BaseOptions, vision

                options = vision.FaceLandmarkerOptions(
                    base_options=BaseOptions(model_asset_path=str(path)), running_mode=vision.RunningMode.IMAGE,
                    num_faces=faces, output_face_blendshapes=True, min_face_detection_confidence=0.4,
                    min_face_presence_confidence=0.4,
                )  # fmt: skip
                self._task = vision.FaceLandmarker.create_from_options(options)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise AssetError(
                "MediaPipe cannot start",
                str(error).splitlines()[0][:120],
                "vocalface doctor  (says which library lacks)",
            ) from error
        self._mp = mp
        self._first = True

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Faces of an RGB image [H, W, 3] uint8, the largest first."""
        h, w = image.shape[:2]
        picture = self._mp.Image(image_format=self._mp.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        if self._first:
            with silenced():
                result = self._task.detect(picture)
            self._first = False
        else:
            result = self._task.detect(picture)
        scale = np.array([w, h, w], np.float32)
        found = [
            Face(
                np.array([(p.x, p.y, p.z) for p in points], np.float32) * scale,
                np.array([s.score for s in shapes], np.float32),
            )
            for points, shapes in zip(result.face_landmarks, result.face_blendshapes)
        ]
        return sorted(found, key=lambda f: -f.size)

    def search(self, image: np.ndarray) -> list[Face]:
        """Like calling it, then over tiles: the detector misses faces under a tenth of the frame's height."""
        found = self(image)
        if found:
            return found
        h, w = image.shape[:2]
        for share in (0.6, 0.35):
            side = int(min(h, w) * share)
            if side < 96:
                break
            xs = np.unique(np.linspace(0, w - side, max(2, round(1.6 * w / side))).astype(int))
            ys = np.unique(np.linspace(0, h - side, max(2, round(1.6 * h / side))).astype(int))
            found = []
            for y in ys:
                for x in xs:
                    for face in self(image[y : y + side, x : x + side]):
                        found.append(Face(face.landmarks + np.array([x, y, 0], np.float32), face.blendshapes))
            if found:
                return distinct(sorted(found, key=lambda f: -f.size))
        return []

    def close(self) -> None:
        self._task.close()

    def __enter__(self) -> Landmarker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def distinct(faces: list[Face]) -> list[Face]:
    """Drops detections whose centre lies in an earlier one's box."""
    kept: list[Face] = []
    for face in faces:
        centre = (face.box[:2] + face.box[2:]) / 2
        if not any((centre > f.box[:2]).all() and (centre < f.box[2:]).all() for f in kept):
            kept.append(face)
    return kept


def scan(
    clip: media.Clip, landmarker: Landmarker, mark: Callable[[np.ndarray], np.ndarray],
    tell: Callable[[int], None] = lambda done: None, samples: int = 48,
) -> tuple[list[tuple[int, list[Face]]], list[np.ndarray]]:  # fmt: skip
    """Faces in evenly spaced frames of the 25 fps view, and `mark` of every frame."""
    view = clip.at(25)
    step = max(1, len(view) // samples)
    found, marks = [], []
    for i, image in enumerate(view):
        marks.append(mark(image))
        if i % step == 0:
            found.append((i, landmarker.search(image)))
        tell(i + 1)
    return found, marks


def choose(found: list[tuple[int, list[Face]]], which: str, path: object) -> np.ndarray:
    """Boxes [k, 4] of the chosen face in the scanned frames.

    Args:
        which: "largest", or its number from the left (0, 1, …).

    Raises:
        FaceError: no face, or several of a like size with "largest" ambiguous.
    """
    seen = [(i, faces) for i, faces in found if faces]
    if not seen:
        raise FaceError("no face in this clip", path, "give a clip in which the face is seen, larger than 60 px")
    if which != "largest":
        try:
            k = int(which)
            boxes = [sorted(faces, key=lambda f: f.box[0])[k].box for _, faces in seen if len(faces) > k]
        except ValueError:
            boxes = []
        if not boxes:
            raise FaceError(f"there is no face {which!r}", path, "use --face largest, or 0, 1, … from the left")
        return np.array(boxes)
    rivals = [faces for _, faces in seen if len(faces) > 1 and faces[1].size > 0.7 * faces[0].size]
    if len(rivals) > 0.3 * len(seen):
        raise FaceError(
            f"{max(len(f) for f in rivals)} faces of a like size", path, "say which: --face 0 (leftmost), --face 1, …"
        )
    return np.array([faces[0].box for _, faces in seen])


def automatic_crop(boxes: np.ndarray, width: int, height: int) -> CropBox:
    """A square around head and shoulders: side 2.2 faces or more, inside the frame where it can be.

    It leaves room for the hair above and the neck below wherever the face moves. The whole frame is kept when it is
    already a portrait square.
    """
    low, high = np.percentile(boxes[:, :2], 5, axis=0), np.percentile(boxes[:, 2:], 95, axis=0)
    face = float(np.median(boxes[:, 3] - boxes[:, 1]))
    low, high = low - np.array([0.4, 0.55]) * face, high + np.array([0.4, 0.45]) * face
    wish = max(2.2 * face, float((high - low).max()))
    if width == height and wish > 0.6 * width:
        return CropBox(0, 0, width)
    side = int(min(wish, width, height)) // 2 * 2
    centre = (low + high) / 2
    x = np.clip(round(centre[0] - side / 2), 0, width - side)
    y = np.clip(round(centre[1] - side / 2), 0, height - side)
    return CropBox(float(x), float(y), float(side))


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """[start, end) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def fill(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Rows where `valid` is False interpolated linearly in time."""
    if valid.all() or not valid.any():
        return values
    at = np.arange(len(values))
    flat = values.reshape(len(values), -1)
    known = at[valid]
    right = np.clip(np.searchsorted(known, at), 0, len(known) - 1)
    left = np.clip(right - (known[right] > at), 0, len(known) - 1)
    span = np.maximum(known[right] - known[left], 1)
    t = np.clip((at - known[left]) / span, 0, 1)[:, None]
    return ((1 - t) * flat[known[left]] + t * flat[known[right]]).reshape(values.shape).astype(values.dtype)
