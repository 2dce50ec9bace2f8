"""Landmarks and blendshapes for measuring: every frame by itself, the same way for every video that is compared.

A landmarker that follows a video smooths over time, and would hide what trembles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vocalface.errors import AssetError
from vocalface.observe.indices import BLENDSHAPES
from vocalface.observe.landmarks import Landmarker

BACKEND = "MediaPipe landmarks, each frame by itself"


@dataclass(frozen=True)
class Detections:
    """What was seen; rows without a face are NaN."""

    points: np.ndarray  # [T, 478, 3] float32: x, y px; z px, relative
    blendshapes: np.ndarray  # [T, 52] float32, observe.indices.BLENDSHAPES' order

    def __len__(self) -> int:
        return len(self.points)

    @property
    def found(self) -> np.ndarray:
        """[T] bool"""
        return np.isfinite(self.points[:, 0, 0])


class Detector:
    """The largest face of single frames. Use as a context manager.

    Raises AssetError when the landmarker's file is not here.
    """

    def __init__(self) -> None:
        self._landmarker = Landmarker()

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks [478, 3] px and blendshapes [52] of the face in [H, W, 3] uint8; NaN without a face."""
        faces = self._landmarker.search(image)
        if not faces:
            return np.full((478, 3), np.nan, np.float32), np.full(len(BLENDSHAPES), np.nan, np.float32)
        return faces[0].landmarks, faces[0].blendshapes

    def close(self) -> None:
        self._landmarker.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_detector() -> tuple[Detector | None, str]:
    """A detector, or (None, why not)."""
    try:
        return Detector(), ""
    except AssetError as error:
        return None, f"{error.what}: {error.fix}"


def detect(frames: Iterable[np.ndarray]) -> tuple[Detections | None, str]:
    """Landmarks and blendshapes of every frame, or (None, why not).

    Args:
        frames: [H, W, 3] uint8 RGB, one at a time.
    """
    detector, reason = open_detector()
    if detector is None:
        return None, reason
    with detector:
        return gather([detector(frame) for frame in frames])


def gather(rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Detections | None, str]:
    """What a detector gave for each frame, as arrays; (None, why) when it never found a face."""
    if not any(np.isfinite(points[0, 0]) for points, _ in rows):
        return None, "no face was found in any frame"
    points, blendshapes = (np.stack(v) for v in zip(*rows))
    return Detections(points, blendshapes), ""


def detect_landmarks(frames: Iterable[np.ndarray]) -> tuple[np.ndarray | None, str]:
    """Landmarks [T, 478, 3] alone, or (None, why not)."""
    found, reason = detect(frames)
    return (None, reason) if found is None else (found.points, "")
