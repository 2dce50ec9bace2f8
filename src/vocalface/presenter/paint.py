"""Procedural colour: skin, brows, lips, strands, knit and the room behind. Display values in 0..1, gamma 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from vocalface.presenter import face as skin_mesh
from vocalface.presenter import surface
from vocalface.presenter.face import MOUTH_Y, bump, smoothstep
from vocalface.render.mesh import render_mesh
from vocalface.types import Camera

CHART_AZIMUTH, CHART_LOW, CHART_HIGH = 2.16, -1.13, 1.34  # the part of the chart a skin texture covers, rad


@dataclass(frozen=True)
class Looks:
    """What tells one person's colours from another's; display values."""

    skin: np.ndarray  # [3]
    blush: float
    freckles: int
    lips: np.ndarray  # [3]
    brows: np.ndarray  # [3]
    iris: np.ndarray  # [3]
    hair: np.ndarray  # [3]
    cloth: np.ndarray  # [3]
    stubble: float = 0.0


def noise(shape: tuple[int, int], cell: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise, mean 0, deviation about 1, whose features are `cell` (rows, columns) pixels large."""
    coarse = [max(4, int(np.ceil(n / c)) + 3) for n, c in zip(shape, cell)]
    small = rng.normal(size=coarse)
    big = zoom(small, [(n + 2) / (m - 1) * 1.02 for n, m in zip(shape, coarse)], order=1 if min(cell) < 2 else 3)
    return big[: shape[0], : shape[1]]


def chart_uv(chart: np.ndarray) -> np.ndarray:
    """Chart angles [..., 2] to texture coordinates [..., 2] in 0..1; the front gets more texels."""
    u = 0.5 + 0.5 * np.sin(chart[..., 0] / CHART_AZIMUTH * (np.pi / 2))
    v = (CHART_HIGH - chart[..., 1]) / (CHART_HIGH - CHART_LOW)
    return np.stack([u, v], axis=-1)


def _bake(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Vertex values [V, C] over the texture [height, width, C]; beyond the mesh, its nearest values."""
    t = skin_mesh.topology()
    count = len(t.wet) - int(t.wet.sum())
    faces = t.faces[(t.faces < count).all(1)]
    at = np.concatenate([chart_uv(t.chart[:count]) * (width, height), np.ones((count, 1))], axis=1)
    out = []
    for start in range(0, values.shape[1], 3):
        part = np.zeros((count, 3))
        part[:, : values.shape[1] - start] = values[:count, start : start + 3]
        camera = Camera(1, 1, 0, 0, width, height)
        drawn = render_mesh(at, faces, camera, light=part, samples=1, encode=False)
        holes = drawn.alpha < 0.5
        from scipy.ndimage import distance_transform_edt

        nearest = distance_transform_edt(holes, return_distances=False, return_indices=True)
        out.append(drawn.color[tuple(nearest)])
    return np.concatenate(out, axis=2)[..., : values.shape[1]]


def _splat(xy: np.ndarray, weight: np.ndarray, height: int, width: int) -> np.ndarray:
    """Adds points [N, 2], texels, into an image, each shared by the four texels around it."""
    image = np.zeros((height, width))
    low = np.floor(xy - 0.5).astype(int)
    f = xy - 0.5 - low
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = low[:, 0] + dx, low[:, 1] + dy
            ok = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            share = np.abs(1 - dx - f[:, 0]) * np.abs(1 - dy - f[:, 1]) * weight
            np.add.at(image, (y[ok], x[ok]), share[ok])
    return image


def _strokes(lines: np.ndarray, strength: np.ndarray, height: int, width: int, thick: float) -> np.ndarray:
    """Tapered strokes along frontal polylines [N, K, 2] (metres): ink in 0..1."""
    n, k, _ = lines.shape
    fine = 24
    t = np.linspace(0, k - 1, fine)
    low = np.minimum(t.astype(int), k - 2)
    knots = chart_uv(skin_mesh._to_chart(lines.reshape(-1, 2))).reshape(n, k, 2) * (width, height)
    uv = (knots[:, low] + (t - low)[None, :, None] * (knots[:, low + 1] - knots[:, low])).reshape(-1, 2)
    length = np.linalg.norm(np.diff(uv.reshape(n, fine, 2), axis=1), axis=2).sum(1)
    taper = np.sin(np.pi * np.linspace(0.06, 1, fine) ** 0.7)
    weight = strength[:, None] * taper * (length / fine)[:, None]
    return 1 - np.exp(-thick * _splat(uv, weight.ravel(), height, width))


def _brow_lines(rng: np.random.Generator, count: int, thickness: float) -> np.ndarray:
    """Hairs of both brows as frontal polylines [N, 4, 2]."""
    lines = []
    for side in (-1, 1):
        t = rng.uniform(0, 1, count) ** 0.92
        x = 0.0105 + 0.0400 * t
        y = 0.0178 + 0.0092 * np.sin(np.pi * np.clip(t, 0, 1) ** 1.25 * 0.80) - 0.0030 * t
        half = thickness * (0.55 + 0.6 * np.sin(np.pi * np.clip(t + 0.12, 0, 1) ** 0.8)) * (1 - 0.62 * t**2)
        across = rng.uniform(-1, 1, count)
        y = y + across * half
        lean = np.radians(66 - 66 * smoothstep(0, 0.45, t) - 14 * t - 16 * across * smoothstep(0.1, 0.5, t))
        lean += rng.normal(0, 0.16, count)
        length = rng.uniform(0.0042, 0.0075, count) * (1 - 0.35 * t)
        s = np.linspace(0, 1, 4)[None]
        bend = lean[:, None] - 0.45 * s
        px = x[:, None] + length[:, None] * s * np.cos(bend)
        py = y[:, None] + length[:, None] * s * np.sin(bend)
        lines.append(np.stack([side * px, py], -1))
    return np.concatenate(lines)


def face_texture(looks: Looks, rng: np.random.Generator, size: int) -> np.ndarray:
    """Skin of the face in the chart [h, w, 3]; `size` is the side of the pictures it is for."""
    width, height = int(3.2 * size), int(2.3 * size)
    t = skin_mesh.topology()
    lip = t.lip.copy()
    for name in ("lip_upper_outer", "lip_lower_outer"):
        lip[t.rims[name]] = 0.5
    fields = np.concatenate([t.rest, lip[:, None]], axis=1)
    baked = _bake(fields, height, width)
    p, lip = baked[..., :3], baked[..., 3]
    q = np.concatenate([np.abs(p[..., :1]), p[..., 1:]], -1)
    shape = (height, width)
    texel = width / (2 * 0.09 * CHART_AZIMUTH * 0.7)  # texels a metre in front, about

    def around(centre, sigma):
        return bump(q, centre, sigma)

    color = np.broadcast_to(looks.skin, (*shape, 3)).copy()
    blotch = noise(shape, (0.016 * texel, 0.016 * texel), rng) + 0.6 * noise(shape, (0.006 * texel,) * 2, rng)
    color *= 1 + blotch[..., None] * np.array([0.006, 0.014, 0.013])
    red = 0.9 * around((0.041, -0.034, 0.07), (0.017, 0.014, 0.04)) + 0.55 * around(
        (0, -0.040, 0.11), (0.012, 0.010, 0.03)
    )
    red += 0.35 * around((0, -0.100, 0.09), (0.016, 0.010, 0.03)) + 0.25 * around((0, 0.06, 0.09), (0.05, 0.02, 0.05))
    red += 0.12 * around((0.0318, 0.0085, 0.08), (0.014, 0.004, 0.02))
    color *= 1 - looks.blush * red[..., None] * np.array([0.020, 0.150, 0.125])
    under = around((0.029, -0.0110, 0.08), (0.012, 0.0035, 0.03))
    color *= 1 - under[..., None] * np.array([0.065, 0.075, 0.045])
    temple = around((0.058, 0.012, 0.05), (0.015, 0.03, 0.04)) + around((0.05, -0.07, 0.06), (0.02, 0.025, 0.04))
    color *= 1 - temple[..., None] * np.array([0.05, 0.07, 0.08])

    # Freckles and a few moles.
    where = rng.normal(0, 1, (looks.freckles, 2)) * (0.027, 0.011) + (0, -0.022)
    spread = rng.uniform(0.2, 1.0, looks.freckles)
    uv = chart_uv(skin_mesh._to_chart(where)) * (width, height)
    dots = gaussian_filter(_splat(uv, spread, height, width), max(0.00045 * texel, 0.4))
    color *= 1 - np.clip(dots * 2.2 * (0.00045 * texel) ** 2 * 2, 0, 1)[..., None] * np.array([0.14, 0.24, 0.28])
    moles = np.array([[0.023, -0.057], [-0.044, -0.050]]) + rng.normal(0, 0.004, (2, 2))
    uv = chart_uv(skin_mesh._to_chart(moles)) * (width, height)
    dots = gaussian_filter(_splat(uv, np.ones(2), height, width), max(0.0006 * texel, 0.5))
    color *= 1 - np.clip(dots / max(dots.max(), 1e-9), 0, 1)[..., None] * np.array([0.30, 0.42, 0.46])

    pores = noise(shape, (0.0011 * texel, 0.0011 * texel), rng)
    on_face = 1 - np.clip(lip, 0, 1)
    color *= 1 + (0.012 * pores * on_face)[..., None]

    # Lids: a crease, a darker edge where lashes grow.
    dx = (q[..., 0] - surface.EYE_X) / skin_mesh.EYE_HALF
    u = np.clip(dx, -1.25, 1.25)
    inside_eye = smoothstep(1.35, 1.0, np.abs(dx)) * (p[..., 2] > 0.05)
    top = skin_mesh.lid_margin(np.clip(u, -1, 1), True)
    bottom = skin_mesh.lid_margin(np.clip(u, -1, 1), False)
    crease = (
        np.exp(-(((p[..., 1] - top - 0.0030 + 0.0012 * u**2) / 0.00065) ** 2))
        * inside_eye
        * smoothstep(1.2, 0.7, np.abs(u))
    )
    color *= 1 - 0.21 * crease[..., None] * np.array([0.9, 1.1, 1.1])
    lid = smoothstep(0.0042, 0.0005, p[..., 1] - top) * inside_eye * smoothstep(1.25, 0.8, np.abs(u))
    color *= 1 - lid[..., None] * np.array([0.06, 0.075, 0.07])
    liner = np.exp(-((np.maximum(p[..., 1] - top, 0) / 0.00075) ** 2)) * (p[..., 1] > bottom + 0.0005) * inside_eye
    liner *= smoothstep(1.12, 0.98, np.abs(u))
    lower = np.exp(-((np.maximum(bottom - p[..., 1], 0) / 0.0006) ** 2)) * (p[..., 1] < (top + bottom) / 2) * inside_eye
    lower *= smoothstep(1.1, 0.9, np.abs(u))
    color *= 1 - liner[..., None] * np.array([0.50, 0.56, 0.58]) - 0.28 * lower[..., None]

    # Nostrils, wings of the nose, folds.
    hole = around((0.0069, -0.0470, 0.097), (0.0024, 0.0020, 0.006))
    color *= 1 - np.clip(0.95 * hole, 0, 0.85)[..., None] * np.array([0.85, 1, 1])
    wing = around((0.0185, -0.0425, 0.088), (0.0016, 0.005, 0.01))
    color *= 1 - 0.16 * wing[..., None] * np.array([0.8, 1.1, 1.1])
    fold_x = 0.0195 + 0.0115 * smoothstep(-0.044, -0.072, p[..., 1])
    fold = (
        np.exp(-(((q[..., 0] - fold_x) / 0.0016) ** 2))
        * smoothstep(-0.040, -0.048, p[..., 1])
        * smoothstep(-0.074, -0.062, p[..., 1])
    )
    color *= 1 - 0.06 * fold[..., None]

    # Lips.
    lines = noise(shape, (0.006 * texel, 0.0006 * texel), rng)
    rose = np.broadcast_to(looks.lips, color.shape) * (1 + 0.028 * lines[..., None])
    rose = rose * (1 - 0.16 * np.exp(-(((p[..., 1] - MOUTH_Y) / 0.0028) ** 2)))[..., None]
    edge = smoothstep(0.25, 0.85, lip)[..., None]
    color = color * (1 - edge) + rose * edge

    # Brows.
    soft = gaussian_filter(
        _strokes(_brow_lines(rng, 500, 0.0030), np.ones(1000), height, width, 0.30 * size / 512), 0.0012 * texel
    )
    count = 430
    ink = _strokes(_brow_lines(rng, count, 0.0036), rng.uniform(0.35, 1, 2 * count), height, width, 0.55 * size / 512)
    ink = np.clip(0.62 * soft + 0.85 * ink, 0, 0.95)[..., None]
    color = color * (1 - ink) + looks.brows * ink

    if looks.stubble > 0:
        beard = smoothstep(-0.052, -0.066, p[..., 1]) * (1 - smoothstep(0.066, 0.075, q[..., 0]))
        beard = np.maximum(beard, smoothstep(0.052, 0.062, q[..., 0]) * smoothstep(0.0, -0.03, p[..., 1]))
        beard *= 1 - smoothstep(0.0, 0.5, gaussian_filter(lip, 0.0015 * texel))
        beard *= 1 - 0.6 * around((0.03, -0.055, 0.08), (0.012, 0.013, 0.04))
        grain = np.clip(0.55 + 0.5 * noise(shape, (1.6, 1.6), rng), 0, 1)
        beard = (looks.stubble * beard * grain)[..., None]
        color = color * (1 - beard) + (looks.brows * 0.9 + 0.06) * beard
    # Under the hair the scalp takes its colour.
    return np.clip(color, 0, 1)


def plain_skin(looks: Looks, rng: np.random.Generator, size: int) -> np.ndarray:
    """Skin of the neck [h, w, 3]."""
    shape = (size, size)
    blotch = noise(shape, (size / 9, size / 9), rng) + 0.5 * noise(shape, (size / 30, size / 30), rng)
    fine = noise(shape, (2.2, 2.2), rng)
    return np.clip(
        looks.skin * (1 + blotch[..., None] * np.array([0.008, 0.016, 0.016]) + 0.010 * fine[..., None]), 0, 1
    )


def strand_texture(rng: np.random.Generator, tapered: bool, size: int = 128) -> np.ndarray:
    """A lock of hair [4 size, size, 4]: strands run down; towards the tip they part and end."""
    height, width = 4 * size, size
    strands = noise((height, width), (height / 3, 2.2), rng) * 0.55 + noise((height, width), (height / 2, 5), rng) * 0.6
    shade = np.clip(0.80 + 0.17 * strands, 0.35, 1.0)
    u = np.linspace(-1, 1, width)[None]
    v = np.linspace(0, 1, height)[:, None]
    ends = noise((1, width), (1, 3.0), rng)
    reach = 1.0 - (0.30 * np.abs(u) ** 1.5 + 0.09 * ends) * (1 if tapered else 0.6)
    sides = 0.99 - 0.07 * noise((height, width), (height / 4, 4), rng)
    alpha = (v < reach) & (np.abs(u) < sides)
    return np.concatenate([np.repeat(shade[..., None], 3, 2), alpha[..., None]], axis=2)


def knit(looks: Looks, rng: np.random.Generator, size: int) -> np.ndarray:
    """Fine ribbed cloth [h, w, 3]."""
    height, width = size, 2 * size
    y, x = np.mgrid[0:height, 0:width]
    ribs = 0.5 + 0.5 * np.sin(x / width * 2 * np.pi * 150)
    stitch = 0.5 + 0.5 * np.sin(y / height * 2 * np.pi * 90 + 2.2 * np.sin(x / width * 2 * np.pi * 75))
    fade = 0.09 if size >= 400 else 0.05
    weave = 1 - fade * (1 - ribs * stitch)
    cloudy = noise((height, width), (size / 6, size / 6), rng) * 0.018 + noise((height, width), (1.5, 1.5), rng) * 0.02
    return np.clip(looks.cloth * (weave + cloudy)[..., None], 0, 1)


def room(rng: np.random.Generator, size: int) -> np.ndarray:
    """A room out of focus [size, size, 3]: wall, shelf with books, a plant, a lamp."""
    n = 256
    y, x = (np.mgrid[0:n, 0:n] + 0.5) / n
    warm = rng.uniform(-0.03, 0.03)
    wall = np.array([0.50 + warm, 0.52, 0.55 - warm])
    image = wall * (1.08 - 0.35 * y - 0.18 * (x - 0.35) ** 2)[..., None]
    image += (
        0.10 * np.exp(-(((x - 0.16) / 0.25) ** 2) - ((y - 0.20) / 0.30) ** 2)[..., None] * np.array([1.0, 0.85, 0.6])
    )

    def block(x0, x1, y0, y1, color):
        image[int(y0 * n) : int(y1 * n), int(x0 * n) : int(x1 * n)] = color

    block(0.70, 1.0, 0.10, 1.0, np.array([0.27, 0.20, 0.15]))
    for shelf in (0.12, 0.36, 0.60, 0.84):
        block(0.72, 1.0, shelf, shelf + 0.215, np.array([0.17, 0.13, 0.11]))
        at = 0.725
        while at < 0.985:
            wide = rng.uniform(0.014, 0.034)
            if rng.random() < 0.85:
                tone = np.array(
                    [
                        [0.55, 0.30, 0.22],
                        [0.22, 0.34, 0.42],
                        [0.62, 0.55, 0.42],
                        [0.25, 0.36, 0.28],
                        [0.48, 0.46, 0.46],
                        [0.60, 0.42, 0.24],
                    ]
                )[rng.integers(6)]
                block(
                    at,
                    min(at + wide, 0.995),
                    shelf + 0.215 - rng.uniform(0.13, 0.195),
                    shelf + 0.215,
                    tone * rng.uniform(0.75, 1.1),
                )
            at += wide + 0.003
    block(0.05, 0.27, 0.13, 0.42, np.array([0.84, 0.82, 0.78]))  # a picture on the wall
    block(0.065, 0.255, 0.15, 0.40, np.array([0.52, 0.61, 0.66]))
    block(0.065, 0.255, 0.30, 0.40, np.array([0.38, 0.45, 0.40]))
    for _ in range(40):  # leaves of a plant
        a, r = rng.uniform(-2.4, -0.7), rng.uniform(0.03, 0.24)
        cx, cy = 0.10 + r * np.cos(a) * 0.8, 0.95 + r * np.sin(a) * 1.6
        turn = a + rng.normal(0, 0.5)
        dx, dy = x - cx, y - cy
        along, side = dx * np.cos(turn) + dy * np.sin(turn), -dx * np.sin(turn) + dy * np.cos(turn)
        leaf = np.exp(-((along / 0.050) ** 2) - (side / 0.014) ** 2) > 0.5
        image[leaf] = np.array([0.27, 0.37, 0.28]) * rng.uniform(0.6, 1.2)
    blurred = np.stack([gaussian_filter(image[..., c], 4.2, mode="nearest") for c in range(3)], -1)
    rows = np.linspace(0, n - 1, size)
    grid = np.meshgrid(rows, rows, indexing="ij")
    big = np.stack([map_coordinates(blurred[..., c], grid, order=1) for c in range(3)], -1)
    plaster = noise((size, size), (2.5, 2.5), rng) * 0.0035 + noise((size, size), (size / 40, size / 40), rng) * 0.006
    return np.clip(big * 0.94 + plaster[..., None], 0, 1)
