"""The skin of the face: one mesh with holes for eyes and mouth, moved by 17 action units.

The mesh is laid out in a chart, the azimuth and elevation seen from inside the head; rings follow the contours of lids
and lips, so that landmarks lie on them exactly. Action units are displacement fields, the jaw is a rotation, and lids
slide over the eyeballs by a table, for a straight line from open to shut would cut through the eye.

Convention: metres, head frame. `LIFT` brings the line of the eyes, from which `surface.py` counts, to its height.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import Delaunay, cKDTree

from vocalface.presenter import surface
from vocalface.types import AU_NAMES

LIFT = np.array([0.0, 0.025, 0.0])
JAW_PIVOT = np.array([0.0, -0.020, 0.004])  # about the ear canals, y from the eyes
JAW_ANGLE = np.radians(8.5)  # at AU26 = 5
MOUTH_Y = -0.0705
CORNER_RISE = 0.0016  # the corners of a friendly mouth lie a little higher than its middle
MOUTH_HALF, INNER_HALF = 0.0248, 0.0218  # half widths of the outer and inner contours
EYE_HALF = 0.0146  # half width of the lid fissure
COLUMNS = 56  # of the lip mesh, corner to corner
LID_POINTS = 30  # of a lid, corner to corner
LIP_ROWS = 8
_SEAL = 0.0042  # metres of jaw drop that closed lips can follow
_LID_LEVELS = np.linspace(-0.4, 1.0, 15)


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bump(p: np.ndarray, centre, sigma) -> np.ndarray:
    """Gaussian [V] around a point."""
    return np.exp(-0.5 * (((p - np.asarray(centre)) / np.asarray(sigma)) ** 2).sum(-1))


def _spaced(count: int) -> np.ndarray:
    """-1..1, closer together at the ends [count + 1]."""
    t = np.linspace(-1, 1, count + 1)
    return 0.6 * t + 0.4 * np.sin(np.pi / 2 * t)


# Contours, as seen from the front; u runs from -1 to 1.


def lip_contact(u: np.ndarray) -> np.ndarray:
    """y where the lips meet."""
    corner = CORNER_RISE * np.clip(np.abs(u), 0, 1) ** 3
    return MOUTH_Y + corner - 0.0015 * np.exp(-((u / 0.22) ** 2)) + 0.0003 * np.exp(-(((np.abs(u) - 0.4) / 0.25) ** 2))


def lip_outer(u: np.ndarray, upper: bool) -> np.ndarray:
    """y of the vermilion's border."""
    a = np.minimum(np.abs(u), 1)
    if upper:
        return (
            MOUTH_Y + CORNER_RISE * a**3 + 0.0084 * (1 - a**1.5) ** 0.9 - 0.0019 * np.exp(-((u / 0.13) ** 2)) * (1 - a)
        )
    return MOUTH_Y + CORNER_RISE * a**3 - 0.0102 * (1 - a**2.2) ** 0.85


def lid_margin(u: np.ndarray, upper: bool) -> np.ndarray:
    """y of a lid's edge; u = -1 at the nose."""
    a = np.minimum(np.abs(u), 1)
    corner = 0.0002 + 0.0011 * u
    if upper:
        return corner + 0.0051 * (1 - a**2.3) ** 0.75 * (1 - 0.10 * u)
    return corner - 0.0046 * (1 - a**2.3) ** 0.85 * (1 + 0.14 * u)


def lid_meeting(u: np.ndarray) -> np.ndarray:
    """y where shut lids meet."""
    return 0.86 * lid_margin(u, False) + 0.14 * lid_margin(u, True)


@dataclass(frozen=True)
class Topology:
    """What every identity shares."""

    chart: np.ndarray  # [V, 2] azimuth, elevation, rad
    rest: np.ndarray  # [V, 3] neutral, lips closed, eyes open; y from the eyes
    faces: np.ndarray  # [F, 3], outward
    basis: np.ndarray  # [17, V, 3] metres at intensity 5
    jaw: np.ndarray  # [V] share of the jaw's rotation
    seal: np.ndarray  # [V, 3] what a metre of jaw drop does to closed lips
    lip: np.ndarray  # [V] 1 on the vermilion, 0 off it
    lid_index: np.ndarray  # [L] vertices that blink
    lid_table: np.ndarray  # [K, L, 3] displacement at `_LID_LEVELS`
    lid_lower: np.ndarray  # [L] bool, belongs to the lower lid
    rims: dict[str, np.ndarray]  # named vertex rows: lip_upper_outer, lip_lower_inner, lid_left_upper, ...
    wet: np.ndarray  # [V] 1 on what is wet: inner lips and lid rims
    accumulate: csr_matrix  # [V, F] sums face normals at vertices


class _Builder:
    def __init__(self) -> None:
        self.chart: list[np.ndarray] = []  # [n, 2]
        self.rest: list[np.ndarray] = []  # [n, 3]
        self.count = 0

    def add(self, chart: np.ndarray, rest: np.ndarray) -> np.ndarray:
        self.chart.append(chart)
        self.rest.append(rest)
        self.count += len(chart)
        return np.arange(self.count - len(chart), self.count)


def _inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Even-odd rule: which points [N, 2] lie in the polygon [M, 2]."""
    x, y = points[:, 0, None], points[:, 1, None]
    ax, ay = polygon[:, 0], polygon[:, 1]
    bx, by = np.roll(ax, -1), np.roll(ay, -1)
    crosses = (ay > y) != (by > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = ax + (y - ay) / (by - ay) * (bx - ax)
    return (crosses & (x < at)).sum(1) % 2 == 1


def _to_chart(xy: np.ndarray) -> np.ndarray:
    return surface.angles(surface.frontal(xy))


def _lip_bulge(u: np.ndarray, r: np.ndarray, upper: bool) -> np.ndarray:
    """How far the vermilion stands out over the muzzle [N] metres; r = 0 at its border, 1 where the lips meet."""
    taper = np.clip(1 - np.abs(u) ** 2.6, 0, 1) ** 0.7
    if upper:
        centre = 1 + 0.25 * np.exp(-((u / 0.18) ** 2))
        return taper * (centre * 0.0033 * np.sin(np.pi * np.clip(r, 0, 1) ** 0.75) ** 0.8 + 0.0018 * r) + 0.0004
    pair = 1 + 0.10 * np.exp(-(((np.abs(u) - 0.3) / 0.2) ** 2))
    return taper * (pair * 0.0046 * np.sin(np.pi * np.clip(r, 0, 1) ** 0.85) ** 0.75 + 0.0018 * r) + 0.0004


def _lips(b: _Builder, rims: dict) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Lip rows. Returns inner rims for the wrap, chart polygon of the mouth's hole, outline for fill points [M, 2]."""
    u = _spaced(COLUMNS)
    rows: dict[bool, list[np.ndarray]] = {}
    shared: list[list[int]] = [[], []]  # the corner columns belong to both lips
    for upper in (True, False):
        rows[upper] = []
        for j in range(LIP_ROWS + 1):
            r = j / LIP_ROWS
            x = u * (MOUTH_HALF + r * (INNER_HALF - MOUTH_HALF))
            outer, contact = lip_outer(u, upper), lip_contact(u)
            gape = 0.0024 * np.sqrt(np.clip(1 - u * u, 0, 1)) * (1 if upper else -1)
            y, chart_y = outer + r * (contact - outer), outer + r * (contact + gape - outer)
            skin = surface.frontal(np.stack([x, y], 1))
            out = np.stack([x / 0.034, np.zeros_like(x), np.ones_like(x)], 1)
            out /= np.linalg.norm(out, axis=1, keepdims=True)
            skin = skin + out * _lip_bulge(u, np.full_like(u, r), upper)[:, None]
            chart = _to_chart(np.stack([x, chart_y], 1))
            if upper:
                index = b.add(chart, skin)
                shared[0].append(index[0])
                shared[1].append(index[-1])
            else:
                index = np.concatenate([[shared[0][j]], b.add(chart[1:-1], skin[1:-1]), [shared[1][j]]])
            rows[upper].append(index)
    for upper, name in ((True, "upper"), (False, "lower")):
        rims[f"lip_{name}"] = np.stack(rows[upper])
        rims[f"lip_{name}_outer"], rims[f"lip_{name}_inner"] = rows[upper][0], rows[upper][-1]
    middle = np.array([0, MOUTH_Y])
    ring = np.concatenate(
        [np.stack([u * MOUTH_HALF, lip_outer(u, True)], 1), np.stack([u * MOUTH_HALF, lip_outer(u, False)], 1)[-2:0:-1]]
    )
    outline = ring
    for k, grow in enumerate((1.0, 2.2, 3.7)):
        away = ring - middle
        outline = ring + away / np.linalg.norm(away, axis=1, keepdims=True) * grow * 1e-3
        picked = outline[:: 1 if k == 0 else 2]
        skin = surface.frontal(picked)
        b.add(surface.angles(skin), skin)
    hole = np.concatenate([rims["lip_upper_inner"], rims["lip_lower_inner"][-2:0:-1]])
    return [rims["lip_upper_inner"], rims["lip_lower_inner"]], hole, outline


def _eye(b: _Builder, rims: dict, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Lid rings of one eye (side -1 is image left). Returns the hole's vertices and an outline for fill points."""
    u = _spaced(LID_POINTS)
    x = side * (surface.EYE_X + u * EYE_HALF)
    name = "left" if side < 0 else "right"
    ring = np.concatenate([np.stack([x, lid_margin(u, True)], 1), np.stack([x, lid_margin(u, False)], 1)[-2:0:-1]])
    skin = surface.frontal(ring)
    index = b.add(surface.angles(skin), skin)
    rims[f"lid_{name}_upper"] = index[: LID_POINTS + 1]
    rims[f"lid_{name}_lower"] = np.concatenate([index[:1], index[: LID_POINTS - 1 : -1]])
    rims[f"lid_{name}"] = index
    middle = np.array([side * surface.EYE_X, 0])
    outline = ring
    for grow in (0.7, 1.5, 2.5, 3.7, 5.1):
        away = ring - middle
        outline = ring + grow * 1e-3 * away / np.linalg.norm(away, axis=1, keepdims=True)
        skin = surface.frontal(outline)
        b.add(surface.angles(skin), skin)
    return index, outline


def _fill(holes: list[np.ndarray]) -> np.ndarray:
    """Chart points [N, 2] everywhere else, closer together where the face has detail."""

    def hexagons(a0, a1, e0, e1, step):
        rows = np.arange(e0, e1, step * 0.866)
        columns = np.arange(a0, a1 + 1e-9, step)
        a, e = np.meshgrid(columns, rows)
        a = a + step / 2 * (np.arange(len(rows)) % 2)[:, None]
        return np.stack([a, e], -1).reshape(-1, 2)

    nose = hexagons(-0.28, 0.28, -0.34, 0.30, 0.017)
    front = hexagons(-0.84, 0.84, -1.02, 0.80, 0.030)
    rest = hexagons(-1.95, 1.95, -1.10, 1.30, 0.065)
    in_nose = (np.abs(front[:, 0]) < 0.30) & (front[:, 1] > -0.36) & (front[:, 1] < 0.32)
    in_front = (np.abs(rest[:, 0]) < 0.87) & (rest[:, 1] > -1.04) & (rest[:, 1] < 0.83)
    points = np.concatenate([nose, front[~in_nose], rest[~in_front]])
    for hole in holes:
        middle = hole.mean(0)
        points = points[~_inside(points, middle + (hole - middle) * 1.03)]
    return points


@cache
def topology() -> Topology:
    """Builds the mesh and its motions; some seconds once a process."""
    b, rims = _Builder(), {}
    lip_rims, mouth, lips_outline = _lips(b, rims)
    eyes = [_eye(b, rims, side) for side in (-1, 1)]
    outlines = [_to_chart(o) for o in (lips_outline, *(outline for _, outline in eyes))]
    fill = _fill(outlines)
    b.add(fill, surface.radial(fill))
    chart, rest = np.concatenate(b.chart), np.concatenate(b.rest)
    faces = Delaunay(chart).simplices
    centres = chart[faces].mean(1)
    for hole in (mouth, *(index for index, _ in eyes)):
        keep = ~_inside(centres, chart[hole])
        faces, centres = faces[keep], centres[keep]

    # Behind the contours: the lips' wet inside, the lids' rims.
    extra_chart, extra_rest, extra_faces, wet_from = [chart], [rest], [faces], len(rest)
    sources = [np.arange(len(rest))]

    def wrap(row: np.ndarray, offsets: list[np.ndarray], flip: bool) -> None:
        previous = row
        for offset in offsets:
            start = sum(map(len, extra_rest))
            extra_chart.append(chart[row])
            extra_rest.append(rest[row] + offset)
            sources.append(row)
            new = np.arange(start, start + len(row))
            quads = _strip(previous, new)
            extra_faces.append(quads[:, ::-1] if flip else quads)
            previous = new

    u = _spaced(COLUMNS)
    for row, up in zip(lip_rims, (1, -1)):
        taper = np.sqrt(np.clip(1 - 0.8 * u * u, 0, 1))[:, None]
        wrap(
            row,
            [taper * np.array([[0, up * dy, -dz]]) * 1e-3 for dy, dz in ((0.3, 1.6), (1.2, 3.4), (3.2, 5.0), (6, 5.5))],
            flip=up > 0,
        )
    lid_rows = {}
    for side, name in ((-1, "left"), (1, "right")):
        centre = np.array([side * surface.EYE_X, 0, surface.EYE_Z])
        for lid, flip in (("upper", side < 0), ("lower", side > 0)):
            row = rims[f"lid_{name}_{lid}"]
            start = sum(map(len, extra_rest))
            wrap(row, [(centre - rest[row]) * 0.085], flip=not flip)
            lid_rows[f"lid_{name}_{lid}_rim"] = np.arange(start, start + len(row))
    rims.update(lid_rows)
    chart, rest = np.concatenate(extra_chart), np.concatenate(extra_rest)
    faces, source = np.concatenate(extra_faces).astype(np.int32), np.concatenate(sources)
    wet = np.zeros(len(rest))
    wet[wet_from:] = 1

    motion = _motion(rest[:wet_from], rims, source)
    count = len(rest)
    rows = faces.T.ravel()
    columns = np.tile(np.arange(len(faces)), 3)
    accumulate = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (count, len(faces)))
    return Topology(chart, rest, faces, rims=rims, wet=wet, accumulate=accumulate, **motion)


def _strip(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two triangles for each step along a pair of vertex rows."""
    a, b, c, d = first[:-1], first[1:], second[:-1], second[1:]
    return np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])


def _motion(rest: np.ndarray, rims: dict, source: np.ndarray) -> dict:
    """Everything that moves the mesh. Wrapped vertices move as the contour vertex they hang on (`source`)."""
    upper, lower, on_lip, near = _lip_fields(rest, rims)
    basis = np.stack([_displacement(name, rest, upper, lower, near) for name in AU_NAMES])

    below = smoothstep(-0.052, -0.098, rest[:, 1])  # of skin away from the lips
    corner = 0.45
    with_lips = corner + np.where(lower > upper, (1 - corner) * lower, -(corner - 0.03) * upper)
    jaw = below + near * (with_lips - below)
    jaw *= smoothstep(-0.020, 0.012, rest[:, 2])
    seal = np.zeros_like(rest)
    seal[:, 1] = 0.97 * (0.62 * lower - 0.38 * upper)  # 0.97 is what the jaw opens the lips by

    index, table, is_lower = _lids(rest, rims)
    position = {int(v): i for i, v in enumerate(index)}
    hangs = np.array([v for v in range(len(rest), len(source)) if int(source[v]) in position], int)
    at = np.array([position[int(source[v])] for v in hangs], int)
    wrapped_lower = np.zeros(len(hangs), bool)
    for name in ("left", "right"):
        wrapped_lower |= np.isin(hangs, rims[f"lid_{name}_lower_rim"])
    return {
        "basis": basis[:, source].astype(np.float32),
        "jaw": jaw[source].astype(np.float32),
        "seal": seal[source].astype(np.float32),
        "lip": np.concatenate([on_lip, np.zeros(len(source) - len(rest))]),
        "lid_index": np.concatenate([index, hangs]),
        "lid_table": np.concatenate([table, table[:, at]], axis=1).astype(np.float32),
        "lid_lower": np.concatenate([is_lower, wrapped_lower]),
    }


def _lip_fields(rest: np.ndarray, rims: dict) -> tuple[np.ndarray, ...]:
    """How far each vertex belongs to the upper lip, the lower lip [V]: 1 in the middle of a lip, 0 at the corners; 1
    on the vermilion; nearness to the mouth, 1 on the lips and falling off around them."""
    u = _spaced(COLUMNS)
    profile = np.clip(1 - np.abs(u) ** 2.4, 0, 1) ** 0.8
    upper, lower, on_lip = np.zeros(len(rest)), np.zeros(len(rest)), np.zeros(len(rest))
    ring = np.concatenate([rims["lip_upper_outer"], rims["lip_lower_outer"]])
    distance, nearest = cKDTree(rest[ring]).query(rest)
    near = np.exp(-((distance / 0.0095) ** 2))
    fade = np.exp(-((distance / 0.0110) ** 2)) * np.tile(profile, 2)[nearest]
    is_upper = nearest < COLUMNS + 1
    upper[is_upper], lower[~is_upper] = fade[is_upper], fade[~is_upper]
    for rows, field, other in ((rims["lip_upper"], upper, lower), (rims["lip_lower"], lower, upper)):
        for row in rows:
            field[row[1:-1]], other[row[1:-1]] = profile[1:-1], 0
            upper[row[[0, -1]]] = lower[row[[0, -1]]] = 0
            on_lip[row], near[row] = 1, 1
    return upper, lower, on_lip, near


def _displacement(name: str, p: np.ndarray, upper: np.ndarray, lower: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Displacement [V, 3] of an action unit at intensity 5; the two sides mirror each other."""
    side = np.tanh(p[:, 0] / 0.004)
    q = np.concatenate([np.abs(p[:, :1]), p[:, 1:]], axis=1)
    corner = bump(q, (0.0255, MOUTH_Y, 0.088), (0.010, 0.010, 0.02))
    cheek = bump(q, (0.038, -0.034, 0.078), (0.014, 0.014, 0.03))
    lips = np.maximum(near, corner)

    def move(weight, x=0.0, y=0.0, z=0.0):
        """mm; x points away from the middle."""
        return weight[:, None] * np.stack([side * x, np.full_like(side, y), np.full_like(side, z)], axis=1) * 1e-3

    if name == "AU01":  # inner brow raiser
        return move(bump(q, (0.013, 0.027, 0.09), (0.012, 0.013, 0.03)), 0, 7.5, 0.3)
    if name == "AU02":  # outer brow raiser
        return move(bump(q, (0.040, 0.028, 0.08), (0.014, 0.013, 0.03)), 0, 7.5, -0.5)
    if name == "AU04":  # brow lowerer
        return move(bump(q, (0.014, 0.024, 0.09), (0.013, 0.010, 0.03)), -3.0, -5.0, 1.2)
    if name == "AU06":  # cheek raiser
        return move(cheek, 0.5, 4.5, 2.8) + move(bump(q, (0.034, -0.016, 0.08), (0.014, 0.006, 0.03)), 0, 1.5, 1.0)
    if name == "AU09":  # nose wrinkler
        wing = bump(q, (0.012, -0.038, 0.098), (0.009, 0.012, 0.03))
        return move(wing, 0.6, 3.8, -0.8) + move(upper * near, 0, 2.2, 0) + move(bump(q, (0, 0.006, 0.09), 0.01), 0, -1)
    if name == "AU10":  # upper lip raiser
        fold = bump(q, (0.022, -0.052, 0.088), (0.011, 0.010, 0.03))
        return move(upper * near, 0, 4.0, 0.8) + move(fold, 0, 2.0, 1.2)
    if name == "AU12":  # lip corner puller
        # The lips stretch: what lies at the corner goes all the way, the middle stays.
        pull = np.clip(np.abs(p[:, 0]) / MOUTH_HALF, 0, 1.25) ** 1.5 * near
        pull = np.maximum(pull, 0.9 * corner)
        return move(pull, 6.5, 6.5, -4.0) + move(cheek, 0.8, 3.5, 3.2)
    if name == "AU14":  # dimpler
        return move(np.maximum(corner, near * (np.abs(p[:, 0]) / MOUTH_HALF) ** 3), 2.5, 0.5, -3.5)
    if name == "AU15":  # lip corner depressor
        pull = np.maximum(corner, np.clip(np.abs(p[:, 0]) / MOUTH_HALF, 0, 1.2) ** 2 * near)
        return move(pull, 0.8, -6.0, -0.8)
    if name == "AU17":  # chin raiser
        chin = bump(q, (0, -0.097, 0.092), (0.016, 0.011, 0.03))
        return move(chin, 0, 3.8, 0.8) + move((upper + lower) * near, 0, 2.0, 1.0)
    if name == "AU20":  # lip stretcher
        pull = np.maximum(np.clip(np.abs(p[:, 0]) / MOUTH_HALF, 0, 1.2) * near, 0.85 * corner)
        return move(pull, 5.5, -0.8, -3.0) + move(lower * near, 0, 0, -0.8)
    if name == "AU23":  # lip tightener; carries rounding
        inward = np.clip(np.abs(p[:, 0]) / MOUTH_HALF, 0, 1.2)
        middle = np.clip(1 - 0.6 * inward**2, 0, 1)
        return move(lips * inward, -9.0, 0, 1.5) + move(lips * middle, 0, 0, 5.5) + move(lips * (upper - lower), 0, 0.9)
    if name == "AU25":  # lips part
        return move(upper * near, 0, 2.9, 0.2) + move(lower * near, 0, -4.4, -0.4)
    return np.zeros_like(p)  # AU05, AU07, AU45 are lids; AU26 is the jaw


def _lids(rest: np.ndarray, rims: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices that blink, their displacement at each level, and which belong to the lower lid."""
    dx = np.abs(rest[:, 0]) - surface.EYE_X
    u = dx / EYE_HALF
    inner = np.clip(u, -1, 1)
    opening = lid_margin(inner, True) - lid_margin(inner, False)
    beside = 1 - smoothstep(1.0, 1.35, np.abs(u))  # skin beside the corners hardly moves
    above = rest[:, 1] - lid_margin(inner, True)
    below = lid_margin(inner, False) - rest[:, 1]
    over = (1 - smoothstep(0.0, 0.0095, above)) * beside
    under = (1 - smoothstep(0.0, 0.0075, below)) * beside
    in_lower = rest[:, 1] < (lid_margin(inner, True) + lid_margin(inner, False)) / 2
    for name in ("left", "right"):  # the contours decide, whatever rounding says
        in_lower[rims[f"lid_{name}_lower"][1:-1]] = True
        in_lower[rims[f"lid_{name}_upper"]] = False
    front = rest[:, 2] > 0.05
    moves = front & (np.where(in_lower, under, over) > 1e-3) & (np.where(in_lower, below, above) > -1e-4)
    index = np.flatnonzero(moves)
    meeting = lid_meeting(inner[index])
    lower = in_lower[index]
    travel = np.where(lower, meeting - lid_margin(inner[index], False), meeting - lid_margin(inner[index], True))
    travel = travel * np.where(lower, under[index], over[index])
    # Corner columns have no opening; fading there keeps the skin beside them still.
    travel *= smoothstep(0.0, 0.0008, opening[index]) if len(index) else 1
    shut = []
    for level in _LID_LEVELS:
        xy = rest[index, :2] + np.stack([np.zeros_like(travel), level * travel], 1)
        shut.append(surface.frontal(xy, rest[index, 2] + 0.004))
    shut = np.array(shut)
    at_rest = shut[np.argmin(np.abs(_LID_LEVELS))] - rest[index]
    return index, shut - rest[index] - at_rest, lower


class Face:
    """One person's face.

    Args:
        warp: moves neutral points [N, 3] (y from the eyes) to this person's; rigid around the eyes.
    """

    def __init__(self, warp) -> None:
        self.topology = topology()
        self.neutral = (warp(self.topology.rest) + LIFT).astype(np.float32)
        self.faces = self.topology.faces
        self.pivot = (JAW_PIVOT + LIFT).astype(np.float32)
        self._basis = self.topology.basis.reshape(len(AU_NAMES), -1)

    def jaw_rotation(self, action_units: np.ndarray) -> np.ndarray:
        """[3, 3], about `pivot`."""
        angle = float(action_units[AU_NAMES.index("AU26")]) / 5 * JAW_ANGLE
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]], np.float32)

    def pose(self, action_units: np.ndarray) -> np.ndarray:
        """Vertices [V, 3] float32, head frame, for action units [17]."""
        t = self.topology
        au = dict(zip(AU_NAMES, np.asarray(action_units, np.float32) / 5))
        scale = np.array([au[name] for name in AU_NAMES], np.float32)
        p = self.neutral + (scale @ self._basis).reshape(-1, 3)
        upper = np.clip(au["AU45"] + 0.16 * au["AU07"] - 0.30 * au["AU05"], -0.4, 1)
        lower = np.clip(au["AU45"] + 0.45 * au["AU07"] + 0.25 * au["AU06"], 0, 1)
        upper_at, lower_at = _at_level(t.lid_table, upper), _at_level(t.lid_table, lower)
        p[t.lid_index] += np.where(t.lid_lower[:, None], lower_at, upper_at)
        drop = self._contact_drop(float(au["AU26"]) * JAW_ANGLE)
        p += t.seal * np.float32(min(drop, _SEAL) * (1 - smoothstep(0.0, 0.22, au["AU25"])))
        turned = (p - self.pivot) @ self.jaw_rotation(action_units).T + self.pivot
        return p + t.jaw[:, None] * (turned - p)

    def _contact_drop(self, angle: float) -> float:
        """How far the jaw's turn lowers the middle of the mouth, metres."""
        contact = self.neutral[self.topology.rims["lip_lower_inner"][COLUMNS // 2]] - self.pivot
        return float(contact[1] * (1 - np.cos(angle)) + contact[2] * np.sin(angle))

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Unit normals [V, 3] float32, outward."""
        a, b, c = (vertices.take(self.faces[:, k], axis=0) for k in range(3))
        u, v = b - a, c - a
        n = np.empty_like(u)
        n[:, 0] = u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1]
        n[:, 1] = u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2]
        n[:, 2] = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
        n = self.topology.accumulate @ n
        return n / np.maximum(np.sqrt(np.einsum("ij,ij->i", n, n)), 1e-12)[:, None]


def _at_level(table: np.ndarray, level: float) -> np.ndarray:
    at = (level - _LID_LEVELS[0]) / (_LID_LEVELS[1] - _LID_LEVELS[0])
    low = int(np.clip(at, 0, len(_LID_LEVELS) - 2))
    t = np.float32(at - low)
    return (1 - t) * table[low] + t * table[low + 1]
