"""Heads whose expression shapes have the same names, whatever face model they come from.

A head is the 468 landmarks of a face model and a shell of vertices around them (crown, temples, ears, throat), in one
layout for all: small enough to be fitted to a portrait and carried over to it in milliseconds.

Convention: the head's frame, metres, as in `faces`. The chart is azimuthal equidistant: a direction seen from `centre`
lies at its angle (rad) from straight ahead, to the image's right and up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from scipy.spatial import Delaunay, cKDTree

from vocalface import assets
from vocalface.errors import ConfigError
from vocalface.faces import NAMES, FaceModel, ict, load
from vocalface.observe.indices import EARS, FACE_OVAL
from vocalface.types import AU_NAMES

SHAPES = {
    "browInnerUp": "AU01", "browOuterUp": "AU02", "browDown": "AU04", "eyeWide": "AU05", "cheekSquint": "AU06",
    "eyeSquint": "AU07", "noseSneer": "AU09", "mouthUpperUp": "AU10", "mouthSmile": "AU12", "mouthDimple": "AU14",
    "mouthFrown": "AU15", "mouthShrugLower": "AU17", "mouthStretch": "AU20", "mouthPucker": "AU23",
    "mouthLowerDown": "AU25", "jawOpen": "AU26", "eyeBlink": "AU45",
}  # fmt: skip
"""Names of ARKit's blendshapes, both sides together, and the action unit that stands for each in our own face."""
RINGS = (0.15, 0.32, 0.52, 0.75)  # rad beyond the face's oval
BACK = 2.2  # rad from straight ahead: no ring lies further
LANDMARKS = 468
IDENTITIES = 60  # of ICT-FaceKit's 100: the rest change no landmark by half a millimetre
FILE = "procedural_head.safetensors"


@dataclass(frozen=True)
class Head(FaceModel):
    """A face model on the common layout: its first 468 vertices are the landmarks."""

    chart: np.ndarray  # [V, 2] float32 rad

    @property
    def scanned(self) -> bool:
        """Whether it stands for people who were measured; our own was modelled by eye."""
        return self.name == "ict"


@cache
def head(name: str = "auto") -> Head:
    """A head by its face model's name; "auto" is ICT-FaceKit where its file is here, else our own.

    Raises ConfigError: no such model. AssetError: the file of `ict` is not here.
    """
    if name == "auto":
        name = "procedural" if assets.find(ict.FILE) is None else "ict"
    if name == "ict":
        return laid_out(ict.model(ict.HEAD), IDENTITIES, _ict_shapes)
    if name == "procedural":
        return stored()
    raise ConfigError(f"no face model {name!r}", "faces.heads.head", f"one of: auto, {', '.join(NAMES)}")


def stored() -> Head:
    """Our own head from its file: `make` takes seconds to lay out the presenter's solid."""
    from safetensors.numpy import load as parse

    data = parse(resources.files("vocalface.faces").joinpath(FILE).read_bytes())
    data = {k: v.astype(np.int64 if v.dtype.kind in "iu" else np.float32) for k, v in data.items()}
    return Head("procedural", expressions=tuple(SHAPES), **data)


def make(path: Path | str) -> None:
    """Write our own head, made from the presenter's face, as it ships in `FILE`."""
    from safetensors.numpy import save_file

    made = laid_out(load("procedural"), None, _own_shapes, bends=True)
    small = {k: getattr(made, k) for k in ("neutral", "identity", "expression", "weights", "chart")}
    numbers = {k: getattr(made, k).astype(np.int16) for k in ("faces", "anchors")}
    small = {k: v.astype(np.float16) for k, v in small.items()}
    save_file({k: np.ascontiguousarray(v) for k, v in {**small, **numbers}.items()}, path)


def _own_shapes(model: FaceModel) -> np.ndarray:
    return model.expression[[AU_NAMES.index(unit) for unit in SHAPES.values()]]


def _ict_shapes(model: FaceModel) -> np.ndarray:
    """Both sides of each shape together."""
    sides = [[i for i, n in enumerate(model.expressions) if n in (s, f"{s}_L", f"{s}_R")] for s in SHAPES]
    return np.stack([model.expression[rows].sum(0) for rows in sides])


# ------------------------------------------------------------------------------------------------- the layout
def centre(landmarks: np.ndarray) -> np.ndarray:
    """Where the chart's directions are seen from [3]: between the ears, midway from the nose's root to the chin."""
    return np.array([0.0, landmarks[[168, 152], 1].mean(), landmarks[EARS, 2].mean()])


def chart_of(points: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Chart places [..., 2] of points [..., 3]."""
    d = points - middle
    across = np.hypot(d[..., 0], d[..., 1])
    angle = np.arctan2(across, d[..., 2])
    return d[..., :2] * (angle / np.maximum(across, 1e-9))[..., None]


def laid_out(model: FaceModel, identities: int | None, shapes, bends: bool = False) -> Head:
    """A face model on the common layout.

    Args:
        identities: how many of its deviations count; shapes: model -> [len(SHAPES), V, 3].
        bends: add slow changes of proportion to the identity, for a model that has few of its own.
    """
    points = model.landmarks(model.neutral)
    middle = centre(points)
    places = chart_of(points, middle)
    oval = places[FACE_OVAL]
    length = np.linalg.norm(oval, axis=1, keepdims=True)
    rings = [oval / length * np.minimum(length + step, BACK) for step in RINGS]
    shell = np.concatenate(rings)

    # The shell is read off at the nearest vertices; the model's own mesh is fine enough.
    on = chart_of(model.neutral, middle)
    distance, near = cKDTree(on).query(shell, k=4)
    share = 1 / (distance + 1e-3)
    share /= share.sum(1, keepdims=True)

    def carried(field: np.ndarray) -> np.ndarray:
        return np.concatenate([model.landmarks(field), np.einsum("...nkc,nk->...nc", field[..., near, :], share)], -2)

    neutral = carried(model.neutral)
    identity = carried(model.identity[:identities])
    if bends:
        identity = np.concatenate([identity, proportions(neutral, middle)])
    chart = chart_of(neutral, middle)
    anchors = np.repeat(np.arange(LANDMARKS)[:, None], 3, axis=1)
    weights = np.tile(np.float32([1, 0, 0]), (LANDMARKS, 1))
    return Head(
        model.name, neutral.astype(np.float32), identity.astype(np.float32),
        carried(shapes(model)).astype(np.float32), tuple(SHAPES), Delaunay(chart).simplices, anchors, weights,
        chart.astype(np.float32),
    )  # fmt: skip


def proportions(points: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Slow changes of a head's proportions [K, V, 3], of about the deviation that people show (3 mm at its rim)."""
    x, y, z = ((points - middle) / 0.08).T
    terms = ((x, x * y, x * z, x * y * y), (y, y * y, x * x, y * z), (z, y, y * y, x * x, x * x * y))
    out = np.zeros((sum(map(len, terms)), len(points), 3))
    rows = iter(out)
    for axis, group in enumerate(terms):
        for term in group:
            next(rows)[:, axis] = 0.003 * term
    return out
