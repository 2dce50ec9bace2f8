"""Writes `landmarks.json`: shows MediaPipe's landmarker our own neutral face and finds its points on our surface.

    VOCALFACE_ASSETS=... python -m vocalface.presenter.calibrate

Run it again after the face's shape or paint has changed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vocalface.observe.landmarks import Landmarker
from vocalface.presenter.landmarks import CONTOURS, barycentric, project
from vocalface.presenter.motion import _poses
from vocalface.presenter.scene import Person, State, rest_pose
from vocalface.types import AU_NAMES

VIEWS = np.radians([[0, 0, 0], [-9, 0, 0], [9, 0, 0], [0, 6, 0], [0, -6, 0], [-5, 3, 2], [5, 3, -2]])


def seen(person: Person, detect, units: dict[str, float]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Views of a face: (landmarks [478, 2] px, mesh projected [V, 3], vertices [V, 3])."""
    au = np.zeros(len(AU_NAMES))
    for name, value in units.items():
        au[AU_NAMES.index(name)] = value
    out = []
    for angles in VIEWS:
        pose = _poses(angles[None], np.zeros((1, 3)))[0]
        frame = person.draw(State(au, pose, rest_pose()))
        found = detect(frame.image)
        if found is not None:
            out.append((found[:, :2], project(frame.vertices, pose, person.camera), frame.vertices))
    return out


def chart_of(points: np.ndarray, mesh: np.ndarray, topology) -> np.ndarray:
    """Chart angles [N, 2] of the front-most skin under points [N, 2]; the nearest visible vertex beside the mesh."""
    faces = topology.faces[(topology.wet[topology.faces] == 0).all(1)]
    a, b, c = (mesh[faces[:, k]] for k in range(3))
    turn = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    front = faces[turn < 0]  # outward faces turn clockwise where y points down
    corners = mesh[front]
    low, high = corners[..., :2].min(1), corners[..., :2].max(1)
    out = np.zeros((len(points), 2))
    for i, p in enumerate(points):
        hits = np.flatnonzero(((low <= p) & (high >= p)).all(1))
        best, depth = None, np.inf
        for f in hits:
            w = barycentric(corners[f, :, :2], p)
            if w.min() >= -1e-6 and (z := float(w @ corners[f, :, 2])) < depth:
                best, depth = w @ topology.chart[front[f]], z
        if best is None:
            visible = np.unique(front)
            best = topology.chart[visible[np.argmin(((mesh[visible, :2] - p) ** 2).sum(1))]]
        out[i] = best
    return out


def places(points: np.ndarray, row: np.ndarray) -> list[float]:
    """Where along a projected contour [M, 2] each point [N, 2] lies, 0..1; the ends are the corners."""
    fine = np.linspace(0, len(row) - 1, 20 * len(row))
    x = np.stack([np.interp(fine, np.arange(len(row)), row[:, k]) for k in (0, 1)], 1)
    at = [fine[np.argmin(((x - p) ** 2).sum(1))] / (len(row) - 1) for p in points]
    at[0], at[-1] = 0.0, 1.0
    return at


def calibrate(detect, seed: int = 0, size: int = 512) -> dict:
    """The table. `detect` takes an image and gives landmarks [478, 3] px or None."""
    person = Person(seed, size)
    t = person.face.topology
    neutral = seen(person, detect, {})
    open_ = seen(person, detect, {"AU25": 4.0, "AU26": 3.0})
    chart = np.median([chart_of(p[:468], mesh, t) for p, mesh, _ in neutral], axis=0)
    # The two sides are alike: pair each point with the one that lies nearest to its mirror image.
    mirrored = chart * (-1, 1)
    pair = np.argmin(((chart[:, None] - mirrored[None]) ** 2).sum(-1), axis=1)
    chart = (chart + mirrored[pair]) / 2
    along = {}
    for name, members in CONTOURS.items():
        views = open_ if name.startswith("lip") else neutral
        at = np.median([places(p[members], mesh[t.rims[name], :2]) for p, mesh, _ in views], axis=0)
        along[name] = at
    for name in ("lip_upper_outer", "lip_lower_outer", "lip_upper_inner", "lip_lower_inner"):
        along[name] = (along[name] + 1 - along[name][::-1]) / 2
    for lid in ("upper", "lower"):
        mean = (along[f"lid_left_{lid}"] + along[f"lid_right_{lid}"]) / 2
        along[f"lid_left_{lid}"] = along[f"lid_right_{lid}"] = mean
    return {
        "chart": np.round(chart, 4).tolist(),
        "along": {name: np.round(at, 4).tolist() for name, at in along.items()},
    }


def main() -> None:
    with Landmarker() as landmarker:

        def detect(image: np.ndarray):
            found = landmarker(image)
            return None if not found else found[0].landmarks

        made = calibrate(detect)
    path = Path(__file__).with_name("landmarks.json")
    path.write_text(json.dumps(made, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
