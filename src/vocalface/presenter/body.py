"""Everything of the person but the skin of the face: eyes, teeth, tongue, ears, neck, clothes.

A `Part` is a mesh in the frame of what carries it: the head, the jaw or the torso. Metres; y from the head's origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vocalface.presenter import surface
from vocalface.presenter.face import LIFT, MOUTH_Y, smoothstep
from vocalface.types import FACE, MOUTH, NECK, TORSO

EYES = np.array([[-surface.EYE_X, 0, surface.EYE_Z], [surface.EYE_X, 0, surface.EYE_Z]]) + LIFT
IRIS = 0.465  # rad, the iris' half angle seen from the eyeball's centre
MOUTH_LEVEL = MOUTH_Y + LIFT[1]


@dataclass
class Part:
    """A mesh with its colours."""

    name: str
    vertices: np.ndarray  # [V, 3] metres
    faces: np.ndarray  # [F, 3]
    label: int
    carrier: str = "head"  # head, jaw or torso
    tint: np.ndarray | None = None  # [V, 3] linear, multiplies the texture; ones when None
    uv: np.ndarray | None = None  # [V, 2] in 0..1 of its own texture; (0, 0) top left
    texture: np.ndarray | None = None  # [h, w, 3 or 4] in 0..1, gamma 2; white when None
    sheen: tuple[float, int] = (0.0, 8)  # strength and sharpness of its highlights
    hair: np.ndarray | None = None  # [V, 3] unit tangents where light glides along strands
    cutout: bool = False  # the texture's alpha cuts holes
    normals: np.ndarray | None = None  # [V, 3]; from the faces when None


def grid_faces(rows: int, columns: int, flip: bool = False) -> np.ndarray:
    """Triangles [F, 3] of a row-major grid of vertices."""
    i = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, :-1].ravel(), i[1:, 1:].ravel()
    faces = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    return faces[:, ::-1] if flip else faces


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3], area-weighted."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    n = np.cross(b - a, c - a)
    out = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(out, faces[:, k], n)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


# Eyes


def eye_point(eye: int, angles: np.ndarray, radius: float = surface.EYE_RADIUS) -> np.ndarray:
    """Points [..., 3] of an eyeball (0 is image left) at (right, up) [..., 2] rad from straight ahead."""
    right, up = angles[..., 0], angles[..., 1]
    direction = np.stack([np.sin(right) * np.cos(up) * surface.EYE_WIDE, np.sin(up), np.cos(right) * np.cos(up)], -1)
    return EYES[eye] + radius * direction


def eyeball(eye: int) -> tuple[Part, np.ndarray]:
    """The front of an eyeball, and its vertices' angles [V, 2] rad; the gaze moves the texture over it."""
    right, up = np.meshgrid(np.linspace(-1.45, 1.45, 31), np.linspace(0.75, -0.75, 17))
    angles = np.stack([right, up], -1).reshape(-1, 2)
    vertices = eye_point(eye, angles, surface.EYE_RADIUS * 0.998)
    return Part(f"eye{eye}", vertices, grid_faces(17, 31), FACE, sheen=(0.10, 60)), angles


def eye_texture(color: np.ndarray, rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """Iris and sclera [size, size, 3], covering +-1 rad around the gaze; `color` [3] of the iris, display values."""
    y, x = np.meshgrid(*[(np.arange(size) + 0.5) / size * 2 - 1] * 2, indexing="ij")
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    white = np.array([0.90, 0.875, 0.86]) - np.array([0.03, 0.13, 0.14]) * smoothstep(0.50, 1.0, np.abs(x))[..., None]
    waves = sum(
        np.sin(angle * k + rng.uniform(0, 6.3) + 2.5 * r * rng.normal()) / (4 + 0.1 * k)
        for k in rng.integers(20, 90, 9)
    )
    crypt = np.sin(angle * 5 + rng.uniform(0, 6)) * 0.3 + np.sin(angle * 9 + rng.uniform(0, 6)) * 0.3
    ring = np.exp(-(((r / IRIS - 0.48 - 0.06 * crypt) / 0.12) ** 2))
    iris = color * (0.92 + 0.55 * waves * smoothstep(0.15, 0.3, r / IRIS))[..., None]
    iris = iris + ring[..., None] * np.array([0.14, 0.085, 0.02])
    iris = iris * (0.80 + 0.42 * smoothstep(-0.35, 0.40, y))[..., None]  # light from above pools below
    iris = iris * (1 - 0.72 * smoothstep(0.76, 1.0, r / IRIS))[..., None]  # limbal ring
    iris = iris * smoothstep(0.155, 0.190, r)[..., None] + 0.015  # pupil
    edge = smoothstep(IRIS - 0.030, IRIS + 0.030, r)[..., None]
    return np.clip(iris * (1 - edge) + white * edge, 0, 1)


def glint(eye: int, scale: float) -> Part:
    """A highlight: a small disc at the origin, facing +z; `scene.py` puts it on the cornea."""
    angle = np.linspace(0, 2 * np.pi, 13)[:-1]
    rim = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], 1) * scale
    faces = np.array([[12, i, (i + 1) % 12] for i in range(12)])
    return Part(f"glint{eye}", np.concatenate([rim, [[0, 0, 0]]]), faces, FACE)


# Mouth


def _arch(x: np.ndarray) -> np.ndarray:
    """How far behind the front teeth the arch lies at x, metres, both positive."""
    return 26 * x**2 + 9000 * x**4


def teeth(upper: bool) -> Part:
    """A row of teeth with its gum."""
    if upper:
        widths = np.array([8.4, 6.6, 7.4, 6.8, 6.6, 9.0]) * 1e-3
        lengths, edges = np.array([10.2, 8.8, 9.8, 8.4, 8.0, 7.6]), np.array([0.0, 0.75, 0.15, 0.8, 1.1, 1.5])
        front, level = 0.0890, MOUTH_LEVEL - 0.0022
    else:
        widths = np.array([5.3, 5.8, 6.6, 6.9, 7.0, 10.0]) * 1e-3
        lengths, edges = np.array([8.6, 8.7, 9.2, 8.2, 7.8, 7.4]), np.array([0.15, 0.1, 0.0, 0.7, 1.1, 1.5])
        front, level = 0.0858, MOUTH_LEVEL - 0.0008
    per = 9  # columns a tooth
    local = np.linspace(-1, 1, per)
    starts = np.concatenate([[0], np.cumsum(widths)])
    along = np.concatenate([starts[i] + (local + 1) / 2 * widths[i] for i in range(6)])
    tooth = np.repeat(np.arange(6), per)
    across = np.tile(local, 6)
    along, tooth, across = (
        np.concatenate([-along[::-1], along]), np.concatenate([tooth[::-1], tooth]),
        np.concatenate([-across[::-1], across]),
    )  # fmt: skip
    # Arc length along the arch to x.
    xs = np.linspace(0, 0.032, 400)
    arc = np.concatenate([[0], np.cumsum(np.hypot(np.diff(xs), np.diff(_arch(xs))))])
    x = np.sign(along) * np.interp(np.abs(along), arc, xs)
    down = np.linspace(-0.32, 1, 13)[:, None]  # below 0 is gum, 1 is the biting edge
    length = lengths[tooth] * 1e-3
    edge = edges[tooth] * 1e-3 + 0.0009 * np.abs(across) ** 5
    point = np.where(tooth == 2, 0.0007 * np.abs(across), 0)
    scallop = 0.0014 * across**2  # the gum reaches down between teeth
    reach = length - edge - point
    y = np.where(down >= 0, down * (reach - scallop) + scallop, down * length + scallop)
    body = np.sqrt(np.clip(1 - 0.96 * np.abs(across) ** 5, 0, 1))
    bulge = 0.0017 * body * np.sqrt(np.clip(1 - np.clip(down, 0, 1) ** 6, 0, 1)) - 0.0012 * np.clip(down, 0, 1) ** 2
    bulge = np.where(down < 0, 0.0006 + 0.0 * bulge, bulge)
    normal_x = np.sign(x) * 52 * np.abs(x) / np.sqrt(1 + (52 * x) ** 2)
    z = front - _arch(np.abs(x)) + bulge
    side = 1 if upper else -1
    top = level + side * 0.0102 if upper else level - 0.0092
    vertices = np.stack(np.broadcast_arrays(x + bulge * normal_x * 0.6, top - side * y, z), axis=-1).reshape(-1, 3)
    enamel = np.array([0.74, 0.68, 0.57]) * np.array([1, 1, 1, 0.97, 0.95, 0.93])[tooth][None, :, None]
    enamel = enamel * (0.86 + 0.14 * smoothstep(0.0, 0.35, down))[..., None]
    seam = (1 - 0.55 * np.abs(across) ** 9)[None, :, None]
    tint = np.where((down < 0)[..., None], np.array([0.50, 0.20, 0.19]), enamel * seam)
    tint = tint * (1 - 0.82 * smoothstep(0.009, 0.027, np.abs(x)))[None, :, None]  # the cheeks shade the back
    faces = grid_faces(13, len(x), flip=not upper)
    name, carrier = ("teeth_upper", "head") if upper else ("teeth_lower", "jaw")
    return Part(name, vertices, faces, MOUTH, carrier, np.asarray(tint).reshape(-1, 3), sheen=(0.16, 30))


def tongue() -> Part:
    """At rest on the floor of the mouth; `scene.py` lifts its tip."""
    rows, columns = 22, 19
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    half = 0.0175 * np.sqrt(np.clip(1 - (1 - v) ** 4, 0, 1)) + 0.0015  # v = 0 is the tip
    x = half * np.sin(u * np.pi / 2 * 1.15)
    z = 0.0805 - 0.026 * v
    y = MOUTH_LEVEL - 0.0100 + 0.0058 * np.sin(np.pi * np.clip(v, 0, 1) ** 0.6) - 0.0065 * np.abs(u) ** 2.5
    y -= 0.0014 * np.exp(-((u / 0.13) ** 2)) * smoothstep(0, 0.3, v)
    tint = np.array([0.46, 0.185, 0.18]) * (1 - 0.55 * v[..., None]) * (1 - 0.15 * np.abs(u)[..., None])
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    return Part(
        "tongue", vertices, grid_faces(rows, columns, flip=True), MOUTH, "jaw", tint.reshape(-1, 3), sheen=(0.10, 20)
    )


def cavity() -> Part:
    """The dark behind it all: a bag open to the front."""
    rows, columns = 12, 28
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 2 * np.pi, columns), indexing="ij")
    rim = np.cos(v * np.pi / 2)
    x, y = 0.0270 * rim * np.cos(u), 0.0200 * rim * np.sin(u) + MOUTH_LEVEL - 0.004
    z = 0.0790 - 0.026 * np.sin(v * np.pi / 2) - 10 * (0.0270 * np.cos(u)) ** 2 * rim
    tint = np.array([0.085, 0.022, 0.020]) * (1 - 0.75 * v[..., None])
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    return Part("cavity", vertices, grid_faces(rows, columns), MOUTH, "jaw_half", tint.reshape(-1, 3))


# Ears


def ear(side: int, skin: np.ndarray) -> Part:
    """One ear; `skin` [3] linear."""
    rings, count = 17, 40
    r, t = np.meshgrid(np.linspace(0, 1, rings), np.linspace(0, 2 * np.pi, count), indexing="ij")
    # Outline: t = 0 points forward, pi / 2 up; narrow lobe below.
    wide = 0.0165 * (1 + 0.18 * np.sin(t)) * (1 - 0.10 * np.cos(t))
    high = 0.0310
    back, up = -wide * r * np.cos(t), high * r * np.sin(t)
    around = smoothstep(-0.85, -0.25, np.sin(t)) * (
        1 - 0.9 * np.exp(-(((t - 0.0) / 0.5) ** 2)) - 0.9 * np.exp(-(((t - 2 * np.pi) / 0.5) ** 2))
    )
    helix = 0.0046 * np.exp(-(((r - 0.90) / 0.075) ** 2)) * (0.25 + 0.75 * np.clip(around, 0, 1))
    inner = 0.0034 * np.exp(-(((r - 0.60) / 0.10) ** 2)) * np.clip(around, 0, 1)
    bowl = -0.0075 * np.exp(-(((back + 0.002) / 0.0075) ** 2) - ((up + 0.005) / 0.0095) ** 2)
    tragus = 0.0045 * np.exp(-(((back + 0.0135) / 0.0035) ** 2) - ((up + 0.006) / 0.005) ** 2)
    out = 0.0060 + helix + inner + bowl + tragus - 0.010 * smoothstep(0.93, 1.0, r)
    out = out + 0.55 * np.clip(back, -0.012, None) * 0.55  # the back stands away from the head
    x = side * (0.0640 + out * 0.85)
    z = -0.006 - back * 0.92
    y = 0.94 * up + 0.12 * back + LIFT[1] - 0.014
    shade = 1 - 0.45 * np.exp(-(((back + 0.002) / 0.0075) ** 2) - ((up + 0.005) / 0.0095) ** 2)
    shade = shade * (1 - 0.22 * np.exp(-(((r - 0.76) / 0.06) ** 2)))
    tint = skin * np.array([1.05, 0.88, 0.85]) * shade[..., None]
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    return Part(
        f"ear{side}",
        vertices,
        grid_faces(rings, count, flip=side < 0),
        FACE,
        tint=tint.reshape(-1, 3),
        sheen=(0.05, 12),
    )


# Neck and clothes

_LEVEL = np.array([-0.020, -0.050, -0.080, -0.100, -0.118, -0.133, -0.146, -0.160, -0.177, -0.202, -0.240, -0.320])
_WIDE = np.array([0.0400, 0.0425, 0.0435, 0.0450, 0.0510, 0.0660, 0.0880, 0.1230, 0.1560, 0.1790, 0.1930, 0.2020])
_DEEP = np.array([0.0300, 0.0420, 0.0500, 0.0540, 0.0560, 0.0590, 0.0640, 0.0720, 0.0800, 0.0890, 0.1000, 0.1150])
_AXIS = np.array(
    [0.0000, -0.0040, -0.0080, -0.0130, -0.0180, -0.0230, -0.0270, -0.0310, -0.0340, -0.0360, -0.0370, -0.0370]
)


def torso_surface(angle: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Skin of neck, shoulders and chest [..., 3] at an angle from the front and a height."""
    wide, deep, axis = (np.interp(y, _LEVEL[::-1], table[::-1]) for table in (_WIDE, _DEEP, _AXIS))
    square = 1 - 0.22 * smoothstep(-0.125, -0.195, y)  # shoulders are squarer than the neck
    s, c = np.sin(angle), np.cos(angle)
    x = wide * np.sign(s) * np.abs(s) ** square
    z = axis + deep * np.sign(c) * np.abs(c) ** square
    side = np.abs(x)
    # Neck muscles run from behind the ears to the pit of the throat; collar bones from there to the shoulders.
    muscle = np.exp(-(((side - (0.010 + 0.26 * (y + 0.123))) / 0.0085) ** 2)) * smoothstep(-0.131, -0.113, y)
    bone = (
        np.exp(-(((y + 0.1375 - 0.06 * side) / 0.0045) ** 2))
        * smoothstep(0.008, 0.02, side)
        * (1 - smoothstep(0.08, 0.12, side))
    )
    pit = np.exp(-((side / 0.010) ** 2) - ((y + 0.132) / 0.008) ** 2)
    front = np.clip(c, 0, 1) ** 0.5
    z = z + front * (0.0026 * muscle + 0.0035 * bone - 0.0045 * pit)
    z = z + 0.0030 * front * np.exp(-((side / 0.009) ** 2) - ((y + 0.100) / 0.012) ** 2)  # larynx
    return np.stack(np.broadcast_arrays(x, y, z), -1)


def neck(skin_texture: np.ndarray) -> Part:
    """The skin of neck and chest."""
    rows, columns = 32, 41
    angle, y = np.meshgrid(np.linspace(-1.75, 1.75, columns), np.linspace(-0.052, -0.235, rows))
    vertices = torso_surface(angle, y)
    uv = np.stack([(angle + 1.75) / 3.5, (y + 0.052) / -0.183], -1)
    return Part(
        "neck",
        vertices.reshape(-1, 3),
        grid_faces(rows, columns),
        NECK,
        "torso",
        None,
        uv.reshape(-1, 2),
        skin_texture,
        sheen=(0.035, 10),
    )


def neckline(angle: np.ndarray, depth: float, pointed: float) -> np.ndarray:
    """Height at which the clothes begin; `depth` metres of the opening in front, `pointed` 0 round .. 1 V."""
    a = np.abs(angle)
    around = -0.1185 - 0.012 * smoothstep(1.1, 0.3, a)
    vee = np.sqrt(np.clip(1 - a / 0.62, 0, 1) ** 2 + 0.012) - 0.1095
    bow = np.sqrt(np.clip(1 - (a / 0.75) ** 2, 0, 1))
    return around - depth * (pointed * vee + (1 - pointed) * bow)


def garment(depth: float, pointed: float, texture: np.ndarray, rng: np.random.Generator) -> list[Part]:
    """A knitted garment and the band of its neck."""
    rows, columns = 29, 73
    t, angle = np.meshgrid(np.linspace(0, 1, rows), np.linspace(-1.75, 1.75, columns), indexing="ij")
    top = neckline(angle, depth, pointed)
    y = top + (-0.320 - top) * t
    p = torso_surface(angle, y)
    out = np.stack([np.sin(angle), np.full_like(angle, 0.35), np.cos(angle)], -1)
    out /= np.linalg.norm(out, axis=-1, keepdims=True)
    folds = np.zeros_like(y)
    for _ in range(7):
        x0, y0, tilt = rng.uniform(-0.16, 0.16), rng.uniform(-0.26, -0.165), rng.uniform(-1.2, 1.2)
        across = (p[..., 0] - x0) * np.cos(tilt) + (y - y0) * np.sin(tilt)
        alongside = -(p[..., 0] - x0) * np.sin(tilt) + (y - y0) * np.cos(tilt)
        folds += rng.uniform(0.0008, 0.0022) * np.exp(-((across / 0.009) ** 2) - (alongside / 0.05) ** 2)
    p = p + out * (0.0050 + folds * smoothstep(0, 0.2, t))[..., None]
    p[0] -= out[0] * 0.0048
    uv = np.stack([(angle + 1.75) / 3.5, t], -1).reshape(-1, 2)
    cloth = Part("garment", p.reshape(-1, 3), grid_faces(rows, columns), TORSO, "torso", None, uv, texture)
    # The band: a tube along the neckline.
    k = 9
    turn = np.linspace(-0.9, np.pi + 0.5, k)
    a = np.linspace(-1.75, 1.75, columns)
    centre = torso_surface(a, neckline(a, depth, pointed)) + out[0] * 0.0030
    direction = np.gradient(centre, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    over = np.cross(out[0], direction)
    over /= np.linalg.norm(over, axis=1, keepdims=True)
    over *= np.sign(over[:, 1:2])
    ring = centre + 0.0062 * np.cos(turn)[:, None, None] * -over + 0.0034 * np.sin(turn)[:, None, None] * out[0]
    ribs = 0.80 + 0.20 * np.sin(np.arange(columns) * 1.4)[None, :, None] ** 2
    mean = (texture[..., :3].reshape(-1, 3) ** 2).mean(0)
    tint = np.broadcast_to(mean * 0.92 * ribs, (k, columns, 3)).reshape(-1, 3)
    band = Part("band", ring.reshape(-1, 3), grid_faces(k, columns, flip=True), TORSO, "torso", tint)
    return [cloth, band]
