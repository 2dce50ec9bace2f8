"""Hair: locks that flow over the skull, each a narrow ribbon of strands, over a dark under-layer that leaves no holes.

Metres, head frame.
"""

from __future__ import annotations

import numpy as np

from vocalface.presenter.body import Part, grid_faces, vertex_normals
from vocalface.presenter.face import LIFT, smoothstep
from vocalface.types import HAIR

SKULL = np.array([0.0, 0.028, -0.010]) + LIFT
RADII = np.array([0.0765, 0.0890, 0.1010])
STEPS = 18  # points along a lock


def _direction(points: np.ndarray) -> np.ndarray:
    d = (points - SKULL) / RADII
    return d / np.linalg.norm(d, axis=-1, keepdims=True)


def _on_skull(direction: np.ndarray, lift: np.ndarray) -> np.ndarray:
    """Points over the skull in a direction [..., 3] of the unit sphere, `lift` metres above it."""
    n = direction / RADII
    n /= np.linalg.norm(n, axis=-1, keepdims=True)
    return SKULL + direction * RADII + n * lift[..., None]


def _arc(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Great-circle way from a to b [N, 3] at t [N, K]: [N, K, 3]."""
    angle = np.arccos(np.clip((a * b).sum(-1), -1, 1))[:, None]
    way = np.sin((1 - t) * angle)[..., None] * a[:, None] + np.sin(t * angle)[..., None] * b[:, None]
    return way / np.linalg.norm(way, axis=-1, keepdims=True)


def bob(a: np.ndarray, side: np.ndarray, lift: np.ndarray, length: float, part: float, rng) -> np.ndarray:
    """Locks [N, STEPS, 3] from a parting down beside the face.

    Args:
        a: [N] 0 frames the face, 1 is at the back. side: [N] +-1. lift: [N] metres over the skull.
        length: y at which the hair ends. part: x of the parting.
    """
    n = len(a)
    root = np.stack([np.full(n, part), 0.094 + 0.016 * smoothstep(0, 0.4, a), 0.071 - 0.115 * a**1.2], 1)
    root[:, 1] += LIFT[1] - 0.016
    turn = np.radians(50 + 130 * a**0.9)
    wide = np.stack([side * np.sin(turn), np.full(n, -0.16) + 0.10 * a, np.cos(turn)], 1)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    k = 11
    t = np.linspace(0, 1, k)[None].repeat(n, 0)
    way = _arc(_direction(root), wide, t)
    puff = 0.009 * np.sin(np.pi / 2 * t)
    upper = _on_skull(way, lift[:, None] + 0.004 + puff + 0.003 * t)
    start, before = upper[:, -1], upper[:, -2]
    slope = (start - before) / np.linalg.norm(start - before, axis=1, keepdims=True)
    end_y = length + rng.normal(0, 0.004, n) + 0.014 * (1 - a) * 0
    s = np.linspace(0, 1, STEPS - k + 1)[None, 1:, None]
    drop = (start[:, 1] - end_y)[:, None, None]
    hanging = np.array([0.0, -1.0, 0.0])
    bend = s - s * s / 2  # the way it leaves the skull fades into hanging
    lower = start[:, None] + drop * (0.35 * slope[:, None] * bend * 0.6 + hanging * s)
    inward = np.stack([-side * 0.012, np.zeros(n), -0.004 + 0 * a], 1)[:, None]
    outward = np.stack([side * 0.006, np.zeros(n), 0.004 * (1 - a)], 1)[:, None]
    lower = lower + outward * np.sin(np.pi * s) + inward * s**3
    line = np.concatenate([upper, lower], axis=1)
    for _ in range(4):  # no kink where it leaves the skull
        line[:, 1:-1] = 0.5 * line[:, 1:-1] + 0.25 * (line[:, :-2] + line[:, 2:])
    return line


def short(
    root: np.ndarray, flow: np.ndarray, length: np.ndarray, lift: np.ndarray, rise: np.ndarray, steps: int
) -> np.ndarray:
    """Locks [N, steps, 3] that lie on the skull from `root` [N, 3] (unit directions) along `flow` [N, 3]."""
    flow = flow - (flow * root).sum(1, keepdims=True) * root
    flow /= np.linalg.norm(flow, axis=1, keepdims=True)
    t = np.linspace(0, 1, steps)[None]
    angle = (length / 0.085)[:, None] * t
    way = np.cos(angle)[..., None] * root[:, None] + np.sin(angle)[..., None] * flow[:, None]
    up = lift[:, None] + rise[:, None] * np.sin(np.pi * np.minimum(t * 0.72, 1)) ** 0.8
    return _on_skull(way, up)


def _ribbons(name: str, lines: np.ndarray, half: np.ndarray, tone: np.ndarray, color: np.ndarray, texture, rng) -> Part:
    """Ribbons along lines [N, K, 3], `half` [N] metres half as wide, tinted by `tone` [N]."""
    n, k, _ = lines.shape
    tangent = np.gradient(lines, axis=1)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=2, keepdims=True), 1e-9)
    outward = lines - SKULL
    outward[..., 1] *= smoothstep(-0.06, 0.12, lines[..., 1])  # below the skull: away from its axis
    outward -= (outward * tangent).sum(-1, keepdims=True) * tangent
    outward /= np.maximum(np.linalg.norm(outward, axis=2, keepdims=True), 1e-9)
    across = np.cross(tangent, outward)
    t = np.linspace(0, 1, k)
    width = half[:, None] * (0.75 + 0.4 * np.sin(np.pi * np.clip(t * 1.05, 0, 1))) * (1 - 0.25 * smoothstep(0.75, 1, t))
    vertices, normals = [], []
    for w in (-1, 1):  # flat, but lit as if rounded
        vertices.append(lines + across * (w * width)[..., None])
        normals.append(outward + 0.55 * w * across)
    vertices, normals = np.stack(vertices, 2), np.stack(normals, 2)  # [N, K, 2, 3]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    faces = (grid_faces(k, 2)[None] + (np.arange(n) * k * 2)[:, None, None]).reshape(-1, 3)
    sun = 1 + 0.20 * smoothstep(0.3, 1, t)[None, :, None, None] - 0.18 * smoothstep(0.12, 0, t)[None, :, None, None]
    tint = color**2 * tone[:, None, None, None] * sun * np.ones((n, k, 2, 1))
    flip = rng.random(n) < 0.5
    u = np.stack([np.where(flip, 0.98, 0.02), np.where(flip, 0.02, 0.98)], 1)  # [N, 2]
    uv = np.stack(np.broadcast_arrays(u[:, None], t[None, :, None] * 0.985 + 0.005), -1)
    return Part(
        name, vertices.reshape(-1, 3), faces, HAIR, "head", tint.reshape(-1, 3), uv.reshape(-1, 2), texture,
        hair=np.repeat(tangent[:, :, None], 2, axis=2).reshape(-1, 3), cutout=texture is not None,
        normals=normals.reshape(-1, 3),
    )  # fmt: skip


def _wavy(lines: np.ndarray, amount: float, rng) -> np.ndarray:
    """Adds a little wander that grows towards the tips."""
    n, k, _ = lines.shape
    t = np.linspace(0, 1, k)[None, :, None]
    phase, speed = rng.uniform(0, 6.3, (n, 1, 3)), rng.uniform(1.5, 4.0, (n, 1, 3))
    return lines + amount * t * np.sin(2 * np.pi * speed * t / 2 + phase)


def long_hair(color: np.ndarray, textures, rng: np.random.Generator, *, length: float, part: float) -> list[Part]:
    """A bob that frames the face."""
    a, side = np.meshgrid(np.linspace(0, 1, 40), [-1.0, 1.0], indexing="ij")
    a, side = a.T.ravel(), side.T.ravel()
    under = bob(a, side, np.full(len(a), -0.003), length + 0.006, part, np.random.default_rng(0))
    shells = []
    for s in (-1.0, 1.0):
        sheet = under[side == s]
        faces = grid_faces(len(sheet), STEPS)
        flat = sheet.reshape(-1, 3)
        normals = vertex_normals(flat, faces)
        normals *= np.sign((normals * (flat - SKULL)).sum(1, keepdims=True))
        tint = np.broadcast_to(color**2 * 0.34, flat.shape)
        shells.append(Part(f"hair_under{int(s)}", flat, faces, HAIR, tint=tint, normals=normals))
    # Outer locks first: what they hide need not be looked up. The back is never seen.
    parts = []
    for layer, (count, low, high, half) in ((1, (40, 0.003, 0.008, 0.0068)), (0, (20, 0.000, 0.003, 0.0095))):
        for s in (-1.0, 1.0):
            a = np.clip(np.linspace(-0.01, 0.58, count) + rng.normal(0, 0.007, count), 0, 0.6)
            lift = rng.uniform(low, high, count)
            order = np.argsort(-lift)
            a, lift = a[order], lift[order]
            lines = bob(a, np.full(count, s), lift, length - 0.004 * layer, part + s * 0.001, rng)
            lines = _wavy(lines, 0.0028, rng)
            tone = np.exp(rng.normal(0, 0.16, count)) * (0.72 + 0.22 * layer)
            widths = half * rng.uniform(0.7, 1.2, count)
            parts.append(_ribbons(f"hair{layer}{int(s)}", lines, widths, tone, color, textures[layer], rng))
    # Single hairs that stray.
    count = 60
    a, s = rng.uniform(0, 1, count), rng.choice([-1.0, 1.0], count)
    lines = _wavy(bob(a, s, rng.uniform(0.008, 0.013, count), length - 0.004, part, rng), 0.006, rng)
    parts.append(_ribbons("hair_stray", lines, np.full(count, 0.00045), np.full(count, 1.15), color, None, rng))
    return parts + shells


def short_hair(color: np.ndarray, textures, rng: np.random.Generator, *, part: float, volume: float) -> list[Part]:
    """Short at the sides, longer and combed across on top."""
    parts = []
    # The scalp that carries it: from hairline to nape.
    turn, rise = np.meshgrid(np.linspace(-np.pi, np.pi, 90), np.linspace(0, 1, 26), indexing="ij")
    low = _hairline(turn)
    height = low + (1 - low) * rise
    ring = np.sqrt(np.clip(1 - height**2, 0, 1))
    way = np.stack([np.sin(turn) * ring, height, np.cos(turn) * ring], -1)
    cap = _on_skull(way, -0.004 + 0.0055 * smoothstep(0, 0.2, rise)).reshape(-1, 3)
    faces = grid_faces(90, 26)
    normals = vertex_normals(cap, faces)
    normals *= np.sign((normals * (cap - SKULL)).sum(1, keepdims=True))
    parts.append(
        Part("hair_under", cap, faces, HAIR, tint=np.broadcast_to(color**2 * 0.40, cap.shape), normals=normals)
    )

    def roots(count, lowest, highest):
        turn = rng.uniform(-np.pi, np.pi, count)
        low = _hairline(turn)
        t = rng.uniform(0, 1, count)
        height = np.maximum(low, lowest) + (np.maximum(highest, low + 0.02) - np.maximum(low, lowest)) * t
        ring = np.sqrt(np.clip(1 - height**2, 0, 1))
        return np.stack([np.sin(turn) * ring, height, np.cos(turn) * ring], 1), turn

    # Sides and back: short, downwards.
    root, turn = roots(620, -0.55, 0.62)
    root, turn = root[np.abs(turn) > 0.80], turn[np.abs(turn) > 0.80]
    flow = np.stack([0.05 * np.sin(turn), np.full(len(turn), -1.0), -0.35 * np.abs(np.sin(turn)) + 0 * turn], 1)
    flow += rng.normal(0, 0.16, flow.shape)
    fade = smoothstep(-0.5, 0.4, root[:, 1])
    lines = short(root, flow, 0.010 + 0.016 * fade, np.full(len(turn), -0.002) + 0.002 * fade, 0.002 + 0.004 * fade, 6)
    tone = np.exp(rng.normal(0, 0.13, len(turn))) * 0.80
    parts.append(_ribbons("hair_sides", lines, np.full(len(turn), 0.0052), tone, color, textures[0], rng))
    # Top: from the parting across, from the front up and back.
    for layer in (0, 1):
        root, turn = roots(230, 0.50, 1.0)
        sidewards = np.where(root[:, 0] > part / RADII[0], 1.0, -1.0) * -1
        front = smoothstep(0.2, 0.75, root[:, 2])
        flow = np.stack(
            [0.85 * np.sign(-part) * (1 - 0.2 * front) + 0.25 * sidewards * 0, 0.25 * front, -0.55 + 0.1 * front], 1
        )
        flow += rng.normal(0, 0.10, flow.shape)
        lift = np.full(len(root), 0.001 + 0.004 * layer)
        rising = volume * (0.6 + 0.6 * front) * rng.uniform(0.8, 1.15, len(root))
        lines = _wavy(short(root, flow, rng.uniform(0.035, 0.060, len(root)), lift, rising, 12), 0.0016, rng)
        tone = np.exp(rng.normal(0, 0.15, len(root))) * (0.78 + 0.2 * layer)
        parts.append(
            _ribbons(f"hair_top{layer}", lines, rng.uniform(0.004, 0.0075, len(root)), tone, color, textures[1], rng)
        )
    return parts


def _hairline(turn: np.ndarray) -> np.ndarray:
    """Height, on the unit sphere, above which hair grows, by the angle from the front."""
    a = np.abs(turn)
    front = 0.575 + 0.05 * np.cos(3 * a) * (a < 1.0)
    temple = 0.30
    low = front + (temple - front) * smoothstep(0.55, 0.95, a)
    low = low + (-0.16 - temple) * smoothstep(1.12, 1.25, a)  # the sideburn
    low = low + (0.10 + 0.16) * smoothstep(1.38, 1.46, a) * (1 - smoothstep(1.75, 1.95, a))  # over the ear
    return low + (-0.62 + 0.16) * smoothstep(1.75, 2.1, a)
