"""A face of points whose mouth opens as told."""

import numpy as np

from vocalface.observe.indices import LIPS_INNER, LIPS_OUTER


def face(opening, size=512.0, seed=0):
    """[T, 478, 3] px landmarks; `opening` [T] is the gap of the inner lips in px."""
    opening = np.asarray(opening, np.float64)
    base = np.random.default_rng(seed).uniform(0.3, 0.6, (478, 3)) * size
    base[[33, 263], :2] = [[180, 200], [330, 200]]
    base[152, :2] = [256, 420]
    for ring, rx, ry in ((LIPS_OUTER, 45, 16), (LIPS_INNER, 32, 0)):
        angle = np.pi + 2 * np.pi * np.arange(len(ring)) / len(ring)  # from the left corner, over the top
        base[ring, :2] = np.stack([256 + rx * np.cos(angle), 330 + ry * np.sin(angle)], axis=1)
    points = np.repeat(base[None], len(opening), 0)
    lower = [17, 84, 181, 314, 405, 14, 87, 317]
    points[:, lower, 1] += opening[:, None]
    points[:, 152, 1] += opening
    return points


def moved(points, angle=0.1, scale=1.1, shift=(10.0, -20.0)):
    """The same face after one similarity of the image."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    out = points.copy()
    out[..., :2] = points[..., :2] @ np.array([[c, s], [-s, c]]) + np.array(shift)
    return out
