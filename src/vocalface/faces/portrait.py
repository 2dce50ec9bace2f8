"""A head fitted to the landmarks of one picture: who it is, with what expression, and where it stands.

Gauss-Newton on the reprojection error under a pinhole camera, with ridges that say what is likely. The size of a face
cannot be told from one picture: it is the model's, up to what its identities say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vocalface.faces.heads import LANDMARKS, Head
from vocalface.observe.pose import rotations, similarity_transform
from vocalface.types import Camera

ROUNDS = 8
SEEN = 0.0015  # m, by which a landmark misses the model's point, sideways
DEEP = 0.008  # m, by which the landmarker's own depth misses
SHARED = 3.0  # landmarks that err together as one
LIKELY = 0.35  # expressions are about so strong, identities of deviation 1
FLIP = np.diag([1.0, -1.0, -1.0])  # head frame (y up, z out) to camera axes


@dataclass(frozen=True)
class Fitted:
    """A head in front of a camera."""

    head: Head
    identity: np.ndarray  # [K]
    expression: np.ndarray  # [E] 0..1
    rotation: np.ndarray  # [3, 3] head frame to camera (OpenCV axes)
    shift: np.ndarray  # [3] m, the head frame's origin in camera coordinates
    residual: np.ndarray  # [468] m, how far each landmark is from its vertex, sideways

    @property
    def points(self) -> np.ndarray:
        """The head's vertices [V, 3], camera coordinates."""
        shape = self.head.vertices(self.identity, self.expression)
        return shape @ self.rotation.T + self.shift

    @property
    def scale(self) -> float:
        """Metres on a face taken to be 0.14 m wide, for one of the head's."""
        width = float(np.linalg.norm(np.subtract(*self.points[[454, 234]])))
        return 0.14 / width

    @property
    def trust(self) -> float:
        """0..1: how far the head's own depths are to be believed; a scanned one's, where it fits."""
        far = float(np.sqrt((self.residual**2).mean()))
        return float(self.head.scanned * np.clip((0.005 - far) / 0.002, 0, 1))

    def moves(self) -> np.ndarray:
        """What each shape does at 1 [E, V, 3], camera axes, metres."""
        return self.head.expression @ self.rotation.T


def fit(head: Head, landmarks: np.ndarray, camera: Camera) -> Fitted:
    """Identity, expression and pose of a head from landmarks [>= 468, 3] px, whose z is depth in px and little trusted.

    The method of Gauss and Newton over all unknowns, eight rounds; expressions are kept within 0..1.
    """
    seen = np.asarray(landmarks[:LANDMARKS], np.float64)
    basis = np.concatenate([head.identity, head.expression])[:, :LANDMARKS].astype(np.float64)
    neutral = head.neutral[:LANDMARKS].astype(np.float64)
    people, count = len(head.identity), len(basis)
    lowest = np.concatenate([np.full(people, -3.0), np.zeros(count - people)])
    highest = np.concatenate([np.full(people, 3.0), np.ones(count - people)])
    prior = np.concatenate([np.ones(people), np.full(count - people, 1 / LIKELY**2)])

    focal, middle = np.array([camera.fx, camera.fy]), np.array([camera.cx, camera.cy])
    scale, turn, _ = similarity_transform(neutral @ FLIP, seen)
    rotation, distance = turn @ FLIP, camera.fx / scale
    shift = np.append((seen[:, :2].mean(0) - middle) / focal, 1) * distance - rotation @ neutral.mean(0)
    values = np.zeros(count)
    for _ in range(ROUNDS):
        turned = (neutral + np.tensordot(values, basis, 1)) @ rotation.T
        p = turned + shift
        z = p[:, 2:]
        off = seen[:, :2] - (p[:, :2] / z * focal + middle)
        depth = p[:, 2].mean()
        deep = (seen[:, 2] - seen[:, 2].mean()) * depth / camera.fx - (p[:, 2] - depth)
        # What a move of each point does to its picture, in metres at its distance, and to its depth.
        directions = np.concatenate([basis @ rotation.T, turning(turned), np.eye(3)[:, None].repeat(LANDMARKS, 1)])
        sideways = (directions[..., :2] - directions[..., 2:] * (p[:, :2] / z)) / SEEN
        inward = (directions[..., 2] - directions[..., 2].mean(1, keepdims=True)) / DEEP
        rows = np.concatenate([sideways.reshape(len(directions), -1), inward], axis=1)
        missing = np.concatenate([(off * z / focal / SEEN).ravel(), deep / DEEP])
        # Landmarks err together: each tells less than one that errs alone.
        gram, right = rows @ rows.T / SHARED, rows @ missing / SHARED
        gram[np.arange(count), np.arange(count)] += prior
        right[:count] -= prior * values
        step = bounded(gram, right, lowest - values, highest - values)
        values = np.clip(values + step[:count], lowest, highest)
        rotation = rotations(step[count : count + 3]) @ rotation
        shift = shift + step[count + 3 :]
    found = Fitted(head, values[:people], values[people:], rotation, shift, np.zeros(LANDMARKS))
    p = found.points[:LANDMARKS]
    off = (seen[:, :2] - (p[:, :2] / p[:, 2:] * focal + middle)) * p[:, 2:] / focal
    return Fitted(head, values[:people], values[people:], rotation, shift, np.linalg.norm(off, axis=1))


def bounded(gram: np.ndarray, right: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """x of G x = b [N], the first of whose unknowns have bounds: what would leave is held, the rest solved again."""
    step, free = np.zeros(len(gram)), np.ones(len(gram), bool)
    for _ in range(6):
        rest = right[free] - gram[np.ix_(free, ~free)] @ step[~free]
        step[free] = np.linalg.solve(gram[np.ix_(free, free)], rest)
        held = np.clip(step[: len(lowest)], lowest, highest)
        out = np.flatnonzero(held != step[: len(lowest)])
        if not len(out):
            break
        step[out] = held[out]
        free[out] = False
    return step


def turning(points: np.ndarray) -> np.ndarray:
    """What turns about the three axes do to points [N, 3]: [3, N, 3]."""
    return np.stack([np.cross(axis, points) for axis in np.eye(3)])
