"""Where a fitted head lies under the vertices of a portrait, and what it brings them: depth, and how skin moves.

The head's layout is that of the landmarks, so that a landmark is its own vertex. Between landmarks a vertex lies in a
triangle of theirs. Beyond the face's oval the head is unrolled: what lies so many centimetres outside of the oval in
the picture is taken for what lies so many centimetres further on the head, towards crown, ears or throat. So skin below
a chin moves on softly, where a picture shows neck or collar behind the chin and no throat at all. A brim about the oval
goes along with it: the contour that one sees runs a few pixels beside that of the landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import Delaunay
from scipy.spatial.distance import cdist

from vocalface.faces.heads import LANDMARKS, RINGS, Head, centre
from vocalface.faces.portrait import Fitted
from vocalface.observe.indices import FACE_OVAL, LIPS_INNER

BRIM = 0.07  # of the face's half width: so far outside the landmarks' oval the face's own contour may run
OWN_DEPTH = 0.9  # landmarkers see a face deeper than scans of heads are
EVEN_DEPTH, EVEN_MOTION = 0.012, 0.007  # m, on the picture


@dataclass(frozen=True)
class Places:
    """Where N vertices lie on a head."""

    vertices: np.ndarray  # [N, 3] of the head
    weights: np.ndarray  # [N, 3]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Values [..., V, C] of the head's vertices at these places [..., N, C]."""
        return np.einsum("...nkc,nk->...nc", values[..., self.vertices, :], self.weights)


def places(fitted: Fitted, landmarks: np.ndarray, points: np.ndarray, per_metre: float) -> Places:
    """Places of points [N, 2] px, of which none is a landmark, beside the landmarks [468, 2] px of a portrait."""
    head = fitted.head
    chart = head.chart.astype(np.float64)
    outside, at = unrolled(head, landmarks, points, per_metre)
    in_picture, in_chart = Delaunay(landmarks), Delaunay(chart)
    vertices, weights = np.zeros((len(points), 3), int), np.zeros((len(points), 3))
    for mesh, rows, spots in ((in_picture, ~outside, points), (in_chart, outside, at)):
        found = mesh.find_simplex(spots[rows])
        lost = found < 0  # by a hair
        t = mesh.transform[found]
        two = np.einsum("nij,nj->ni", t[:, :2], spots[rows] - t[:, 2])
        vertices[rows] = mesh.simplices[found]
        weights[rows] = np.concatenate([two, 1 - two.sum(1, keepdims=True)], axis=1)
        if lost.any():
            known = landmarks if mesh is in_picture else chart
            gone = np.flatnonzero(rows)[lost]
            vertices[gone] = np.linalg.norm(spots[gone][:, None] - known, axis=-1).argmin(1)[:, None]
            weights[gone] = (1, 0, 0)
    return Places(vertices, weights)


def unrolled(head: Head, landmarks: np.ndarray, points: np.ndarray, per_metre: float) -> tuple[np.ndarray, np.ndarray]:
    """Which points [N, 2] px lie outside of the oval [N] bool, and where in the chart these are [N, 2]."""
    oval, chart = landmarks[FACE_OVAL], head.chart[FACE_OVAL].astype(np.float64)
    neutral = head.neutral.astype(np.float64)
    radius = np.linalg.norm(neutral[FACE_OVAL] - centre(neutral), axis=1)
    middle = oval.mean(0)
    # The side of the oval that the way out from its middle crosses, and where.
    turned = np.unwrap(np.arctan2(*(oval - middle).T[::-1]))
    direction = 1.0 if turned[-1] > turned[0] else -1.0
    turned = np.maximum.accumulate(direction * turned)
    own = direction * np.arctan2(*(points - middle).T[::-1])
    own = turned[0] + np.mod(own - turned[0], 2 * np.pi)
    ring = np.append(turned, turned[0] + 2 * np.pi)
    k = np.clip(np.searchsorted(ring, own, side="right") - 1, 0, len(oval) - 1)
    t = ((own - ring[k]) / np.maximum(ring[k + 1] - ring[k], 1e-9))[:, None]
    after = (k + 1) % len(oval)
    rim = oval[k] + t * (oval[after] - oval[k])
    place = chart[k] + t * (chart[after] - chart[k])
    wide = np.linalg.norm(rim - middle, axis=1)
    away = np.linalg.norm(points - middle, axis=1) - wide
    further = (away - BRIM * wide) / per_metre / (radius[k] + t[:, 0] * (radius[after] - radius[k]))
    length = np.linalg.norm(place, axis=1)
    reach = np.minimum(np.maximum(further, 0), 0.98 * RINGS[-1])
    return away > 0, place * ((length + reach) / length)[:, None]


def depths(fitted: Fitted, own: np.ndarray, per_metre: float) -> np.ndarray:
    """Depth [V] px of the head's vertices: those of the landmarks are given [468], the shell's go on from the oval."""
    z = fitted.points[:, 2]
    z = (z - z[:LANDMARKS].mean()) * (per_metre * fitted.scale)
    ring = np.tile(own[FACE_OVAL] - z[FACE_OVAL], len(RINGS))
    return np.concatenate([own, z[LANDMARKS:] + ring])


# ------------------------------------------------------------------------------------------- evened out
def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def neighbours(px: np.ndarray, sigma: float) -> np.ndarray:
    """Weights [N, N] of a Gaussian mean over the points [N, 2] that lie within about `sigma` px."""
    weight = np.exp(cdist(px, px, "sqeuclidean").astype(np.float32) / np.float32(-2 * sigma**2))
    return weight / weight.sum(1, keepdims=True)


def even(moves: np.ndarray, px: np.ndarray, per_metre: float) -> np.ndarray:
    """Displacements [E, V, 3] evened out on the picture [V, 2] px but for the lips.

    Where a cheek or a jaw is seen edge-on, skin that moves and skin that rests lie a few pixels apart, nearer than
    landmarks are to the contour that one sees: it would be cut to steps.
    """
    away = cdist(px, px[LIPS_INNER]).min(1) / per_metre
    share = smoothstep(0.010, 0.022, away)[:, None]
    flat = moves.transpose(1, 0, 2).reshape(len(px), -1)
    mean = (neighbours(px, EVEN_MOTION * per_metre) @ flat).reshape(len(px), -1, 3).transpose(1, 0, 2)
    return moves + share * (mean - moves)


def depth(points: np.ndarray, fitted: Fitted, per_metre: float) -> np.ndarray:
    """Depths [468] px of landmarks [468, 3]: their own, and as far as it is scanned and fits, the head's.

    What they disagree in is evened out: a landmark that the head misses would dent the contour of a face that turns.
    """
    z = fitted.points[:LANDMARKS, 2]
    z = (z - z.mean()) * per_metre * fitted.scale
    own = OWN_DEPTH * (points[:, 2] - points[:, 2].mean())
    return own + fitted.trust * neighbours(points[:, :2], EVEN_DEPTH * per_metre) @ (z - own)


def relief(points: np.ndarray, per_metre: float) -> np.ndarray:
    """The landmarks [N, 3] with a gentler fall of the cheeks' rim: a steep one folds when the head turns far."""
    out = points.copy()
    front = np.percentile(points[:, 2], 30)
    far = np.maximum(points[:, 2] - front, 0)
    limit = 0.045 * per_metre
    out[:, 2] = np.where(far > 0, front + limit * np.tanh(far / limit), points[:, 2])
    return out


def gentle(points: np.ndarray, slope: float) -> np.ndarray:
    """Depths [N] of points [N, 3] px such that none rises faster than `slope` against any other.

    A head as steep as 1 / tan(angle) folds when it is turned by that angle, and its contour tears. Midway between the
    least and the largest surface that obey the slope and touch the points, nothing moves that was gentle already.
    """
    away = slope * cdist(points[:, :2], points[:, :2])
    z = points[:, 2]
    return ((z[None] + away).min(1) + (z[None] - away).max(1)) / 2


def forward(points: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Depths [N] of points [N, 3] px, brought forward where they fall back faster than `slope` [N] allows, the lesser
    of two points' between them. What is near stays, so that a nose stands out from a face whose rim was flattened.
    """
    away = np.minimum(slope[:, None], slope) * cdist(points[:, :2], points[:, :2])
    return (points[None, :, 2] + away).min(1)


def within_oval(px: np.ndarray, per_metre: float) -> np.ndarray:
    """How far points [N, 2] px, the landmarks first, lie within the face's oval [N] m, less than 0 outside."""
    oval = px[FACE_OVAL].astype(np.float32).reshape(-1, 1, 2)
    return np.array([cv2.pointPolygonTest(oval, (float(x), float(y)), True) for x, y in px]) / per_metre


def rimmed(z: np.ndarray, px: np.ndarray, per_metre: float) -> np.ndarray:
    """Depths [N] px evened out about the face's oval, where a head falls back as steeply as it may."""
    away = cdist(px, px[FACE_OVAL]).min(1) / per_metre
    share = 1 - smoothstep(0.008, 0.022, away)
    return z + share * (neighbours(px, EVEN_MOTION * per_metre) @ z - z)
