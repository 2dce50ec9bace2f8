"""The mesh renderer in NumPy, one triangle after another: readable and slow, what `mesh.cpp` is held against."""

from __future__ import annotations

import numpy as np

from vocalface.types import Camera

NEAR = np.float32(0.01)  # metres
SLACK = np.float32(-1e-5)  # neighbours overlap by this, lest rounding leave a gap between them


def render(vertices, faces, face_labels, light, gloss, uv, cutout, texture, camera: Camera, samples: int, mask, encode):
    """See `mesh.render_mesh`; vertices in camera space. Returns color, alpha, labels, depth."""
    width, height = camera.width * samples, camera.height * samples
    z = vertices[:, 2]
    inverse_z = np.where(z > NEAR, 1 / np.where(z > NEAR, z, 1), 0).astype(np.float32)
    focal = np.array([camera.fx, camera.fy], np.float32)
    centre = np.array([camera.cx, camera.cy], np.float32)
    points = focal * vertices[:, :2] * inverse_z[:, None] + centre

    nearest = np.zeros((height, width), np.float32)  # inverse depth: larger is nearer
    hit = np.full((height, width), -1)
    weights = np.zeros((height, width, 2), np.float32)
    for index, face in enumerate(faces):
        if np.any(inverse_z[face] == 0):
            continue
        p, iz = points[face], inverse_z[face]
        area = _cross(p[1] - p[0], p[2] - p[0])
        if area == 0:
            continue
        low = np.maximum(np.ceil(p.min(0) * samples - 0.5), 0).astype(int)
        high = np.minimum(np.floor(p.max(0) * samples - 0.5), (width - 1, height - 1)).astype(int)
        if np.any(high < low):
            continue
        x = (np.arange(low[0], high[0] + 1, dtype=np.float32) + np.float32(0.5)) / np.float32(samples)
        y = (np.arange(low[1], high[1] + 1, dtype=np.float32) + np.float32(0.5)) / np.float32(samples)
        sample = np.stack(np.meshgrid(x, y), axis=-1)
        w1 = _cross(sample - p[0], p[2] - p[0]) / area
        w2 = _cross(p[1] - p[0], sample - p[0]) / area
        w0 = 1 - w1 - w2
        depth = w0 * iz[0] + w1 * iz[1] + w2 * iz[2]
        box = np.s_[low[1] : high[1] + 1, low[0] : high[0] + 1]
        wins = (w0 >= SLACK) & (w1 >= SLACK) & (w2 >= SLACK) & (depth > nearest[box])
        with np.errstate(divide="ignore", invalid="ignore"):
            perspective = np.stack([w1 * iz[1] / depth, w2 * iz[2] / depth], axis=-1)
        if texture is not None and cutout[index]:
            wins &= _solid(texture, _mix(uv[face], perspective))
        nearest[box][wins], hit[box][wins], weights[box][wins] = depth[wins], index, perspective[wins]

    seen = hit >= 0
    labels = np.where(seen, face_labels[hit].astype(int), 0) if len(faces) else np.zeros_like(hit)
    kept = seen & ((int(mask) >> labels & 1) == 1)
    color = np.zeros((height, width, 3), np.float32)
    corners = faces[hit[kept]]
    value = _mix(light[corners], weights[kept])
    if texture is not None:
        value = _texel(texture, _mix(uv[corners], weights[kept]))[..., :3] ** 2 * value
    if gloss is not None:
        value = value + _mix(gloss[corners], weights[kept])
    color[kept] = np.sqrt(np.clip(value, 0, 1)) if encode else value
    depth = _blocks(nearest, samples).max(-1)
    counts = np.stack([_blocks(labels == l, samples).sum(-1) for l in range(labels.max() + 1)])
    return (
        np.stack([_blocks(color[..., c], samples).mean(-1) for c in range(3)], axis=-1).astype(np.float32),
        _blocks(kept, samples).mean(-1).astype(np.float32),
        counts.argmax(0).astype(np.uint8),
        np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), 0).astype(np.float32),
    )


def _cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _mix(corners, weights):
    """Corner values [..., 3, C] or [3, C] and weights [..., 2] of the second and third corner to [..., C]."""
    first = corners[..., 0, :]
    second, third = corners[..., 1, :] - first, corners[..., 2, :] - first
    return first + weights[..., :1] * second + weights[..., 1:] * third


def _solid(texture, uv):
    """Whether the nearest texel is there [...]."""
    x, y = (np.clip(np.nan_to_num(uv[..., k]), 0, texture.shape[1 - k] - 1).astype(int) for k in (0, 1))
    return texture[y, x, 3] >= 128


def _texel(texture, uv):
    """Bilinear, edges repeat: [..., 4] in [0, 1]."""
    rows, columns = texture.shape[:2]
    u = np.clip(np.nan_to_num(uv[..., 0]) - 0.5, 0, columns - 1)
    v = np.clip(np.nan_to_num(uv[..., 1]) - 0.5, 0, rows - 1)
    x, y = u.astype(int), v.astype(int)
    right, below = np.minimum(x + 1, columns - 1), np.minimum(y + 1, rows - 1)
    fu, fv = (u - x)[..., None], (v - y)[..., None]
    top = (1 - fu) * texture[y, x] + fu * texture[y, right]
    bottom = (1 - fu) * texture[below, x] + fu * texture[below, right]
    return ((1 - fv) * top + fv * bottom) / 255


def _blocks(values, samples: int):
    """[H s, W s] to [H, W, s s]."""
    height, width = values.shape[0] // samples, values.shape[1] // samples
    blocks = values.reshape(height, samples, width, samples)
    return blocks.transpose(0, 2, 1, 3).reshape(height, width, samples * samples)


def warp(vertices, faces, uv, texture, under, camera: Camera) -> np.ndarray:
    """See `mesh.warp`."""
    ones, labels, solid = np.ones_like(vertices), np.ones(len(faces), np.uint8), np.zeros(len(faces), np.uint8)

    def drawn(picture):
        return render(vertices, faces, labels, ones, None, uv, solid, picture, camera, 1, 1 << 1, True)[:2]

    color, seen = drawn(texture)
    alpha = drawn(np.repeat(texture[..., 3:], 4, axis=2))[0][..., :1]
    ground = under / np.float32(255)
    return ((ground + seen[..., None] * alpha * (color - ground)) * 255 + 0.5).astype(np.uint8)
