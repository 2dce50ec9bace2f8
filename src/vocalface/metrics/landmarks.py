"""Numbers of face landmarks against landmarks: LMD and how the mouth opens, closes and trembles.

Landmarks are [T, 478, 2 or 3] in px, MediaPipe's order (or [T, 68, 2] where said); rows of frames without a face are
NaN and are left out. Numbers from MediaPipe's lips and from FAN's are not comparable: name the detector.
"""

from __future__ import annotations

import numpy as np

from vocalface.observe.indices import LANDMARKS_68, LIPS_OUTER, RIGID

MOUTH = slice(48, 68)  # of 68
# Upper and lower point of three places along the inner lips.
INNER_PAIRS = np.array([[82, 87], [13, 14], [312, 317]])
OUTER_EYES = np.array([33, 263])
CLOSED = 0.02
"""Lips count as closed where their gap is under this share of the outer-eye distance."""


def to_68(points: np.ndarray) -> np.ndarray:
    """[T, 478, D] -> [T, 68, 2] in the classical order; [T, 68, D] passes."""
    return points[:, LANDMARKS_68 if points.shape[1] != 68 else slice(None), :2]


def lmd(points: np.ndarray, truth: np.ndarray, region: str = "mouth") -> float:
    """Landmark distance, px: mean over frames of `lmd_frames`."""
    return _mean(lmd_frames(points, truth, region))


def lmd_frames(points: np.ndarray, truth: np.ndarray, region: str = "mouth") -> np.ndarray:
    """[T] px: mean distance of each frame's landmarks to the truth's, each set's own mean removed first.

    As TalkingGaussian and ER-NeRF measure it: points 48..67 of 68 ("mouth"), or all 68 ("face", F-LMD). Blind to
    translation; not to scale or rotation, and proportional to resolution.
    """
    part = {"mouth": MOUTH, "face": slice(None)}[region]
    a, b = (to_68(p)[:, part].astype(np.float64) for p in (points, truth))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return np.linalg.norm(a - b, axis=2).mean(1)


def lmd_iod(points: np.ndarray, truth: np.ndarray, region: str = "mouth") -> float:
    """LMD as a percentage of the truth's outer-eye distance: comparable across resolutions."""
    return _mean(100 * lmd_frames(points, truth, region) / eye_distance(truth))


def lmd_stabilized(points: np.ndarray, truth: np.ndarray) -> float:
    """Mouth LMD, px, after each frame is moved onto the truth by a similarity of the rigid upper face."""
    moved = align(points, truth)
    return _mean(np.linalg.norm(to_68(moved)[:, MOUTH] - to_68(truth)[:, MOUTH], axis=2).mean(1))


def eye_distance(points: np.ndarray) -> np.ndarray:
    """[T] px between the outer corners of the eyes."""
    corners = points[:, OUTER_EYES if points.shape[1] != 68 else [36, 45], :2]
    return np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1)


def mouth_opening(points: np.ndarray, normalized: bool = False) -> np.ndarray:
    """[T] gap of the inner lips, mean of three places, px, or in outer-eye distances when `normalized`."""
    xy = points[..., :2]
    upper, lower = xy[:, INNER_PAIRS[:, 0]], xy[:, INNER_PAIRS[:, 1]]
    gap = np.linalg.norm(lower - upper, axis=2).mean(1)
    return gap / eye_distance(points) if normalized else gap


def mouth_correlation(points: np.ndarray, truth: np.ndarray) -> float:
    """Pearson correlation of the two mouth openings."""
    return correlation(mouth_opening(points, True), mouth_opening(truth, True))


def amplitude_ratio(points: np.ndarray, truth: np.ndarray) -> float:
    """Spread of the mouth opening over that of the truth: < 1 mumbles, > 1 overacts."""
    a, b = mouth_opening(points, True), mouth_opening(truth, True)
    seen = np.isfinite(a) & np.isfinite(b)
    return float(a[seen].std() / max(b[seen].std(), 1e-9)) if seen.any() else float("nan")


def lip_jitter(points: np.ndarray) -> float:
    """Mean length of the lips' second difference over time, head held still, in 1/1000 of the outer-eye distance.

    Only a ratio to the true video's says something: speech itself accelerates.
    """
    lips = _still_lips(points)
    return _mean(1000 * np.linalg.norm(np.diff(lips, n=2, axis=0), axis=2))


def jitter_ratio(points: np.ndarray, truth: np.ndarray) -> float:
    """Lip jitter over that of the truth."""
    return lip_jitter(points) / max(lip_jitter(truth), 1e-9)


def excess_jitter(points: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square of the second difference of (lips - true lips), in 1/1000 of the outer-eye distance."""
    residual = _still_lips(points, truth) - _still_lips(truth, truth)
    return float(1000 * np.sqrt(_mean(np.square(np.diff(residual, n=2, axis=0)).sum(2))))


def closed_mouth_error(points: np.ndarray, truth: np.ndarray) -> float:
    """Mean excess of the mouth opening where the truth's lips are closed, % of the outer-eye distance.

    NaN when the truth never closes its lips.
    """
    a, b = mouth_opening(points, True), mouth_opening(truth, True)
    return _mean(100 * (a - b)[b < CLOSED])


def closure_recall(points: np.ndarray, truth: np.ndarray) -> float:
    """Share of the frames with closed true lips in which the lips close too, within one frame. NaN when none do."""
    a, b = mouth_opening(points, True) < CLOSED, mouth_opening(truth, True) < CLOSED
    near = np.convolve(a, [1, 1, 1], "same") > 0
    return float(near[b].mean()) if b.any() else float("nan")


def mouth_box(points: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Square around the lips' centre of one frame, side 0.9 outer-eye distances: x0, y0, x1, y1 px within the image.

    Args:
        points: [478, 2 or 3] px, of the *true* frame, for both videos.
    """
    side = 0.9 * eye_distance(points[None])[0]
    return _box(points[LIPS_OUTER, :2].mean(0), side, side, width, height)


def face_box(points: np.ndarray, width: int, height: int, scale: float = 1.3) -> tuple[int, int, int, int]:
    """The landmarks' box of one frame, enlarged: x0, y0, x1, y1 px within the image."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    return _box((low + high) / 2, *(scale * (high - low)), width, height)


def align(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Moves each frame by the similarity (turn, scale, shift) that best takes its rigid upper face to the target's.

    Args:
        points: [T, 478, 2 or 3]; target: [T, 478, 2 or 3], or [478, 2 or 3] for one target throughout.

    Returns:
        [T, 478, 2]
    """
    target = np.broadcast_to(target[..., :2], points[..., :2].shape)
    a, b = (np.ascontiguousarray(p[..., :2], np.float64).view(np.complex128)[..., 0] for p in (points, target))
    rigid_a, rigid_b = a[:, RIGID], b[:, RIGID]
    mean_a, mean_b = rigid_a.mean(1, keepdims=True), rigid_b.mean(1, keepdims=True)
    rigid_a, rigid_b = rigid_a - mean_a, rigid_b - mean_b
    with np.errstate(invalid="ignore"):  # rows of NaN stay NaN
        turn = (rigid_a.conj() * rigid_b).sum(1, keepdims=True) / (np.abs(rigid_a) ** 2).sum(1, keepdims=True)
    moved = turn * (a - mean_a) + mean_b
    return np.stack([moved.real, moved.imag], axis=2)


def align_3d(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Like `align` with turns in space, [T, 478, 3]: takes yaw and pitch away, and adds the noise of z.

    Args:
        points: [T, 478, 3], finite; target: [T, 478, 3] or [478, 3].
    """
    points = points.astype(np.float64)
    a, b = points[:, RIGID], np.broadcast_to(target, points.shape)[:, RIGID].astype(np.float64)
    mean_a, mean_b = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    a, b = a - mean_a, b - mean_b
    u, stretch, v = np.linalg.svd(np.einsum("tni,tnj->tij", a, b))
    side = np.sign(np.linalg.det(u @ v))  # a turn, never a mirror
    u[:, :, 2] *= side[:, None]
    stretch[:, 2] *= side
    scale = stretch.sum(1) / (a**2).sum((1, 2))
    return scale[:, None, None] * ((points - mean_a) @ (u @ v)) + mean_b


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r over the rows where both are finite; NaN when either is constant there."""
    seen = np.isfinite(a) & np.isfinite(b)
    a, b = np.asarray(a, np.float64)[seen], np.asarray(b, np.float64)[seen]
    if len(a) < 3:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    power = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / power) if power > 1e-12 else float("nan")


def _still_lips(points: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """[T, 20, 2] lips in outer-eye distances, the head brought to the reference's mean position."""
    reference = points if reference is None else reference
    seen = reference[np.isfinite(reference[:, 0, 0])]
    if not len(seen):
        return np.full((len(points), 20, 2), np.nan)
    mean = align(seen, seen[len(seen) // 2]).mean(0)
    return to_68(align(points, mean))[:, MOUTH] / eye_distance(mean[None])


def _box(centre: np.ndarray, w: float, h: float, width: int, height: int) -> tuple[int, int, int, int]:
    extent, limit = np.round([w, h]), np.array([width, height])
    corner = np.round(centre - extent / 2)
    low = np.clip(corner, 0, limit - 1).astype(int)
    high = np.clip(corner + extent, low + 1, limit).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _mean(values: np.ndarray) -> float:
    """Mean of the finite values, NaN when there are none."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")
