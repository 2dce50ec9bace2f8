"""The solid a face is cut from: soft unions of ellipsoids and capsules, found by rays.

Convention: metres, head frame (types.py), but y counted from the line of the eyes; `face.py` lifts it into place.
"""

from __future__ import annotations

import numpy as np

EYE_X, EYE_Z = 0.0318, 0.0680  # the eyeballs' centres lie at (+-EYE_X, 0, EYE_Z)
EYE_RADIUS = 0.0132
EYE_WIDE = 1.12  # the eyeball is an ellipsoid, a little wider than high
LID = 0.0011  # thickness of a lid over the eyeball
CENTRE = np.array([0.0, -0.025, 0.0])
"""Rays that find the skin start here."""


def ellipsoid(p: np.ndarray, centre, radii) -> np.ndarray:
    """Distance to an ellipsoid, exact on it and nearly so beside it (p [..., 3])."""
    q = (p - centre) / radii
    first = np.sqrt((q * q).sum(-1))
    q /= radii
    return first * (first - 1) / np.maximum(np.sqrt((q * q).sum(-1)), 1e-6)


def capsule(p: np.ndarray, a, b, ra: float, rb: float) -> np.ndarray:
    """Distance to a stick from a to b whose radius goes from ra to rb."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    t = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    return np.linalg.norm(p - a - t[..., None] * (b - a), axis=-1) - (ra + t * (rb - ra))


def join(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Union whose seam is rounded over k metres."""
    h = np.maximum(k - np.abs(a - b), 0) / k
    return np.minimum(a, b) - h * h * h * k / 6


def carve(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """a without b, rounded."""
    return -join(-a, b, k)


def head(p: np.ndarray, *, lids: bool = True) -> np.ndarray:
    """Signed distance [...] of points [..., 3] to the skin: no lips, ears, hair; eyes shut when `lids`."""
    p = np.concatenate([np.abs(p[..., :1]), p[..., 1:]], axis=-1)  # the two sides are alike
    d = ellipsoid(p, (0, 0.030, -0.012), (0.0725, 0.084, 0.096))  # cranium
    d = join(d, ellipsoid(p, (0, 0.034, 0.028), (0.0550, 0.058, 0.064)), 0.03)  # forehead
    d = join(d, ellipsoid(p, (0, -0.030, 0.022), (0.0560, 0.070, 0.066)), 0.03)  # middle of the face
    d = join(d, capsule(p, (0.045, -0.015, 0.046), (0.056, -0.010, 0.006), 0.0125, 0.009), 0.030)  # cheekbone
    d = join(d, ellipsoid(p, (0.031, -0.040, 0.053), (0.024, 0.027, 0.025)), 0.03)  # cheek
    d = join(d, capsule(p, (0.0400, -0.064, 0.002), (0.014, -0.094, 0.064), 0.0115, 0.0145), 0.035)  # jaw
    d = join(d, ellipsoid(p, (0, -0.0970, 0.0745), (0.0165, 0.0145, 0.0165)), 0.024)  # chin
    d = join(d, ellipsoid(p, (0, -0.066, 0.066), (0.030, 0.028, 0.0275)), 0.024)  # teeth under the lips
    d = carve(d, ellipsoid(p, (0, -0.0865, 0.1010), (0.018, 0.0042, 0.0072)), 0.014)  # under the lower lip
    d = join(d, capsule(p, (0.011, 0.0185, 0.0805), (0.044, 0.0205, 0.0600), 0.0085, 0.0070), 0.018)  # brow ridge
    d = carve(d, ellipsoid(p, (0.0305, 0.000, 0.0985), (0.0170, 0.0130, 0.0125)), 0.016)  # eye socket
    d = carve(d, ellipsoid(p, (0.0140, 0.0010, 0.1000), (0.0060, 0.012, 0.0135)), 0.010)  # beside the nose's root
    d = join(d, capsule(p, (0, 0.005, 0.0790), (0, -0.033, 0.1000), 0.0062, 0.0082), 0.018)  # bridge
    d = join(d, ellipsoid(p, (0, -0.0365, 0.1040), (0.0100, 0.0086, 0.0105)), 0.010)  # tip
    d = join(d, ellipsoid(p, (0.0112, -0.0412, 0.0930), (0.0062, 0.0066, 0.0105)), 0.012)  # wing
    d = join(d, capsule(p, (0, -0.0430, 0.1020), (0, -0.0490, 0.0910), 0.0036, 0.0040), 0.008)  # between the nostrils
    d = carve(d, ellipsoid(p, (0.0068, -0.0485, 0.0985), (0.0030, 0.0040, 0.0055)), 0.004)  # nostril
    d = carve(d, capsule(p, (0, -0.0520, 0.0990), (0, -0.0600, 0.1005), 0.0018, 0.0028), 0.006)  # philtrum
    if lids:
        radii = np.array([EYE_WIDE, 1, 1]) * (EYE_RADIUS + LID)
        d = join(d, ellipsoid(p, (EYE_X, 0, EYE_Z), radii), 0.008)
    return d


def along(start: np.ndarray, direction: np.ndarray, near: float, far: float, steps: int = 26) -> np.ndarray:
    """Where rays leave the head: points [..., 3] on start + t direction, by bisection of t in [near, far]."""
    start, direction = np.broadcast_arrays(np.asarray(start, float), np.asarray(direction, float))
    low = np.full(start.shape[:-1], near)
    high = np.full(start.shape[:-1], far)
    for _ in range(steps):
        middle = (low + high) / 2
        inside = head(start + middle[..., None] * direction) < 0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return start + ((low + high) / 2)[..., None] * direction


def radial(angles: np.ndarray) -> np.ndarray:
    """Skin [..., 3] in the directions (azimuth, elevation) [..., 2] rad from CENTRE."""
    azimuth, elevation = angles[..., 0], angles[..., 1]
    direction = np.stack(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)], axis=-1
    )
    return along(CENTRE, direction, 0.03, 0.2)


def frontal(xy: np.ndarray, start: np.ndarray | float = 0.14) -> np.ndarray:
    """Skin [..., 3] that a viewer far in front sees at (x, y) [..., 2]; the search begins at depth `start`."""
    xy = np.asarray(xy, float)
    z = np.broadcast_to(np.asarray(start, float), xy.shape[:-1])
    p = np.concatenate([xy, z[..., None]], axis=-1).reshape(-1, 3)
    # March from outside, for the nose may hide what lies behind; the distance is nearly true, so take 0.8 of it. Within
    # a millimetre divide by how fast it falls: along a slanting surface it falls slowly.
    moving, slope = np.arange(len(p)), np.ones(len(p))
    distance = head(p)
    for _ in range(80):
        near = (np.abs(distance) < 0.001) & (slope > 0)
        step = np.where(near, distance / np.clip(slope, 0.2, 1.2), 0.8 * np.clip(distance, -0.004, 0.03))
        p[moving, 2] -= step
        going = np.abs(step) > 2e-7
        moving, step = moving[going], step[going]
        if not len(moving):
            break
        before, distance = distance[going], head(p[moving])
        slope = (before - distance) / step
    return p.reshape(*xy.shape[:-1], 3)


def angles(points: np.ndarray) -> np.ndarray:
    """(azimuth, elevation) [..., 2] rad of points [..., 3] seen from CENTRE."""
    p = points - CENTRE
    return np.stack([np.arctan2(p[..., 0], p[..., 2]), np.arctan2(p[..., 1], np.hypot(p[..., 0], p[..., 2]))], axis=-1)
