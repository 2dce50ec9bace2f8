"""ICT-FaceKit (USC Institute for Creative Technologies, MIT licence) from its packed file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from vocalface import assets
from vocalface.errors import AssetError
from vocalface.faces import FaceModel
from vocalface.observe.indices import LANDMARKS_68

FILE, CANONICAL = "ict_facekit/ict_facekit.npz", "mediapipe/canonical_face_model.obj"
SKIN = 9409  # vertices of the face come first; then head, mouth socket, eyes, teeth
UNIT = 0.01  # the file is in centimetres
LANDMARK_VERTICES = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443, 268, 493, 1914,
    2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360, 1507, 1542, 1537,
    1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518,
    5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)  # fmt: skip
"""Vertices of the 68 points of the 300-W layout, as ICT-FaceKit publishes them."""


def model() -> FaceModel:
    """The whole head with teeth and eyes, quads split in two. Raises AssetError without its two files."""
    path, canonical = assets.path(FILE), assets.path(CANONICAL)
    try:
        with np.load(path) as data:
            neutral = data["neutral"].astype(np.float32)
            quads, names = data["faces"], tuple(str(n) for n in data["expr_names"])
            expression, identity = (data[k].astype(np.float32) for k in ("expr", "identity"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise AssetError("not the packed ICT-FaceKit", path, "pack it as registry.toml says") from error
    whole = quads[:, 3] >= 0
    faces = np.concatenate([quads[:, :3], quads[whole][:, [0, 2, 3]]])
    anchors = np.repeat(correspondence(read_points(canonical), neutral)[:, None], 3, axis=1)
    weights = np.tile(np.float32([1, 0, 0]), (len(anchors), 1))
    return FaceModel("ict", neutral * UNIT, identity * UNIT, expression * UNIT, names, faces, anchors, weights)


def read_points(path: Path) -> np.ndarray:
    """The vertices [N, 3] of an OBJ file."""
    try:
        rows = [line.split()[1:4] for line in path.read_text().splitlines() if line.startswith("v ")]
        points = np.array(rows, float)
    except (OSError, ValueError) as error:
        raise AssetError("cannot read the canonical face", path, f"vocalface fetch {CANONICAL}") from error
    if points.shape != (468, 3):
        raise AssetError(f"{len(points)} points, expected 468", path, f"vocalface fetch {CANONICAL}")
    return points


def correspondence(canonical: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """The vertex of each of MediaPipe's 468 landmarks, [468].

    The canonical face is laid on the model by a similarity, bent by radial basis functions until the 68 common points
    meet, and read off at the nearest vertex of the skin; the 68 keep their published vertices.
    """
    from scipy.interpolate import RBFInterpolator
    from scipy.spatial import cKDTree

    from vocalface.observe.pose import similarity_transform

    known = neutral[list(LANDMARK_VERTICES)].astype(float)
    scale, r, t = similarity_transform(canonical[LANDMARKS_68], known)
    laid = scale * canonical @ r.T + t
    _, first = np.unique(LANDMARKS_68, return_index=True)
    bend = RBFInterpolator(laid[LANDMARKS_68[first]], known[first] - laid[LANDMARKS_68[first]], smoothing=1e-3)
    found = cKDTree(neutral[:SKIN]).query(laid + bend(laid))[1]
    found[LANDMARKS_68[first]] = np.array(LANDMARK_VERTICES)[first]
    return found
