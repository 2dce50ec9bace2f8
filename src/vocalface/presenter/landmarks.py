"""Where MediaPipe's 478 landmarks lie on our own surface, and its 52 blendshapes from our action units.

Contours of lips and lids and the irises are placed on ours exactly. The other points, and the places along a contour,
come from `calibrate.py`, which shows the landmarker our own neutral face; `landmarks.json` holds its outcome.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import numpy as np
from scipy.spatial import cKDTree

from vocalface.observe.indices import BLENDSHAPES
from vocalface.presenter import body
from vocalface.presenter.face import topology
from vocalface.types import AU_NAMES, Camera

# Each contour in the order of our rim's vertices, image left to right (lids: as the rim runs, nose to temple).
CONTOURS = {
    "lip_upper_outer": [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291],
    "lip_lower_outer": [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291],
    "lip_upper_inner": [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308],
    "lip_lower_inner": [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308],
    "lid_left_upper": [133, 173, 157, 158, 159, 160, 161, 246, 33],
    "lid_left_lower": [133, 155, 154, 153, 145, 144, 163, 7, 33],
    "lid_right_upper": [362, 398, 384, 385, 386, 387, 388, 466, 263],
    "lid_right_lower": [362, 382, 381, 380, 374, 373, 390, 249, 263],
}
IRISES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))  # centre, then +x, up, -x, down in the image


@cache
def table() -> dict:
    """`chart`: [478][2] angles; `along`: contour name to places in 0..1 along it."""
    return json.loads(resources.files("vocalface.presenter").joinpath("landmarks.json").read_text())


@cache
def anchors() -> tuple[np.ndarray, np.ndarray]:
    """For the first 468 landmarks: vertices [468, 3] of the face mesh and their weights [468, 3]."""
    t = topology()
    chart = np.array(table()["chart"])[:468]
    index, weight = in_chart(chart)
    for name, members in CONTOURS.items():
        row = t.rims[name]
        for landmark, place in zip(members, table()["along"][name]):
            at = place * (len(row) - 1)
            low = min(int(at), len(row) - 2)
            index[landmark] = (row[low], row[low + 1], row[low])
            weight[landmark] = (1 - (at - low), at - low, 0)
    return index, weight.astype(np.float32)


def in_chart(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The triangle of the face mesh around each chart point [N, 2]: vertices [N, 3], barycentric weights [N, 3]."""
    t = topology()
    faces = t.faces[(t.wet[t.faces] == 0).all(1)]
    corners = t.chart[faces]
    _, near = cKDTree(corners.mean(1)).query(points, k=24)
    index, weight = np.zeros((len(points), 3), int), np.zeros((len(points), 3))
    for i, candidates in enumerate(near):
        best = -np.inf
        for f in candidates:
            w = barycentric(corners[f], points[i])
            if w.min() > best:
                best, index[i], weight[i] = w.min(), faces[f], w
        weight[i] = np.clip(weight[i], 0, None) / np.clip(weight[i], 0, None).sum()
    return index, weight


def barycentric(corners: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Weights [3] of a point in a triangle [3, 2]."""
    (a, b, c), p = corners, point
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    u = ((p[0] - a[0]) * (c[1] - a[1]) - (p[1] - a[1]) * (c[0] - a[0])) / area
    v = ((b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])) / area
    return np.array([1 - u - v, u, v])


def on_surface(vertices: np.ndarray, gaze: np.ndarray) -> np.ndarray:
    """The 478 landmarks [478, 3] in the head's frame, metres, of a face whose vertices are [V, 3]."""
    index, weight = anchors()
    skin = (vertices[index] * weight[..., None]).sum(1)
    ring = body.IRIS * np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]])
    eyes = [body.eye_point(eye, np.asarray(gaze, float) + ring) for eye in (0, 1)]
    return np.concatenate([skin, *eyes])


def project(points: np.ndarray, head_pose: np.ndarray, camera: Camera) -> np.ndarray:
    """Head-frame points [N, 3] to x, y px and z px, relative to the head's origin, smaller is nearer [N, 3]."""
    p = points @ head_pose[:3, :3].T + head_pose[:3, 3]
    origin = head_pose[2, 3]
    return np.stack(
        [
            camera.fx * p[:, 0] / p[:, 2] + camera.cx,
            camera.fy * p[:, 1] / p[:, 2] + camera.cy,
            camera.fx * (p[:, 2] - origin) / origin,
        ],
        axis=1,
    ).astype(np.float32)


# Blendshape: action units that make it, with weights on AU / 5.
_SIDED = {
    "browDown": {"AU04": 1.0}, "browOuterUp": {"AU02": 1.0}, "cheekSquint": {"AU06": 1.0}, "eyeBlink": {"AU45": 1.0},
    "eyeSquint": {"AU07": 0.8, "AU06": 0.3}, "eyeWide": {"AU05": 1.0}, "mouthDimple": {"AU14": 1.0},
    "mouthFrown": {"AU15": 1.0}, "mouthLowerDown": {"AU25": 0.6}, "mouthSmile": {"AU12": 1.0},
    "mouthStretch": {"AU20": 1.0}, "mouthUpperUp": {"AU10": 1.0, "AU25": 0.15}, "noseSneer": {"AU09": 1.0},
}  # fmt: skip
_WHOLE = {
    "browInnerUp": {"AU01": 1.0}, "jawOpen": {"AU26": 1.0}, "mouthShrugLower": {"AU17": 1.0},
    "mouthShrugUpper": {"AU17": 0.4}, "mouthPucker": {"AU23": 1.0},
}  # fmt: skip


def blendshapes(action_units: np.ndarray, gaze: np.ndarray) -> np.ndarray:
    """The 52 blendshapes [T, 52] in 0..1 of action units [T, 17] and gaze [T, 2]."""
    share = dict(zip(AU_NAMES, np.asarray(action_units).T / 5))
    out = np.zeros((len(action_units), len(BLENDSHAPES)), np.float32)

    def put(name: str, values: np.ndarray) -> None:
        out[:, BLENDSHAPES.index(name)] = np.clip(values, 0, 1)

    for name, mix in _WHOLE.items():
        put(name, sum(w * share[au] for au, w in mix.items()))
    for name, mix in _SIDED.items():
        for side in ("Left", "Right"):
            put(name + side, sum(w * share[au] for au, w in mix.items()))
    put("mouthFunnel", share["AU23"] * share["AU25"])
    right, up = np.asarray(gaze).T / np.radians(30)  # a look to the image's right is to the person's left
    put("eyeLookOutLeft", right), put("eyeLookInRight", right)
    put("eyeLookInLeft", -right), put("eyeLookOutRight", -right)
    for side in ("Left", "Right"):
        put(f"eyeLookUp{side}", up), put(f"eyeLookDown{side}", -up)
    return out
