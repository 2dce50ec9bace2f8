"""The presenter's face as a morphable model: its 17 action units at 5, and how its people differ."""

from __future__ import annotations

import numpy as np

from vocalface.faces import FaceModel
from vocalface.presenter import landmarks, scene
from vocalface.presenter.face import Face
from vocalface.types import AU_NAMES


def model() -> FaceModel:
    """Identity: the nine deviations of a person's shape and the male one. Expression: each action unit at 5."""

    def person(shape: np.ndarray, male: float) -> Face:
        return Face(lambda points: scene.warp(points, shape, male))

    mean = person(np.zeros(9), 0.0)
    identity = [person(row, 0.0).neutral - mean.neutral for row in np.eye(9)]
    identity.append(person(np.zeros(9), 1.0).neutral - mean.neutral)
    rest = mean.pose(np.zeros(len(AU_NAMES)))
    expression = [mean.pose(5 * row) - rest for row in np.eye(len(AU_NAMES))]
    anchors, weights = landmarks.anchors()
    return FaceModel(
        "procedural", rest, np.float32(identity), np.float32(expression), AU_NAMES, mean.faces, anchors, weights
    )
