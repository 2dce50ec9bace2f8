"""Head pose and focal length: bundle adjustment of the person's own rigid face, then light smoothing.

Convention: head frame in metres, +x to the image's right when the face looks at the camera, +y up, +z out of the
face; poses are world-to-camera in OpenCV axes. Scale: the outer corners of the eyes are 90 mm apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vocalface.observe.indices import EARS, RIGID
from vocalface.types import Camera

EYES = 0.090  # m between landmarks 33 and 263
HUBER = 1.5  # px at 512
PRIOR = 0.0035  # m, how far the shape may leave its first guess
FOCALS = np.array([0.9, 1.2, 1.6, 2.0, 2.4, 2.9])  # of the image's side
LIKELY_FOCAL, FOCAL_PRIOR = 1.6, 0.03  # the error may tell little of it: share added per squared log-distance
BATCH = 2000  # frames whose Jacobians are held at once


@dataclass(frozen=True)
class Tracking:
    """Result of the bundle adjustment."""

    poses: np.ndarray  # [T, 4, 4]
    camera: Camera
    shape: np.ndarray  # [K, 3] rigid points, head frame
    rmse: float  # px, rigid landmarks
    rmse_raw: float  # before smoothing


def generic_shape(landmarks: np.ndarray) -> np.ndarray:
    """Mean 3-D face [478, 3] in the head frame, metres, from MediaPipe's own relative depth (weak perspective)."""
    points = landmarks * np.array([1, -1, -1], np.float32)  # y up, z towards the camera
    reference = points[len(points) // 2]
    mean = reference - reference.mean(0)
    for _ in range(4):
        aligned = [similarity(p, mean) for p in points]
        mean = np.mean(aligned, axis=0)
    x = mean[263] - mean[33]
    up = mean[10] - mean[152]
    x = x / np.linalg.norm(x)
    z = np.cross(x, up)
    z /= np.linalg.norm(z)
    axes = np.stack([x, np.cross(z, x), z])  # rows
    origin = mean[EARS].mean(0)
    shape = (mean - origin) @ axes.T
    return (shape * (EYES / np.linalg.norm(shape[263] - shape[33]))).astype(np.float64)


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a` [K, 3] moved onto `b` by the best similarity (Umeyama 1991)."""
    scale, r, t = similarity_transform(a, b)
    return scale * a @ r.T + t


def similarity_transform(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation [3, 3] and shift [3] that lay `a` [K, 3] on `b` with the least squares (Umeyama 1991)."""
    ca, cb = a.mean(0), b.mean(0)
    u, s, vt = np.linalg.svd((b - cb).T @ (a - ca))
    d = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    r = u * d @ vt
    scale = (s * d).sum() / ((a - ca) ** 2).sum()
    return scale, r, cb - scale * r @ ca


def track_pose(
    landmarks: np.ndarray, valid: np.ndarray, size: int, principal: tuple[float, float], jumps: list[int] | None = None
) -> Tracking:
    """Poses of all frames.

    Args:
        landmarks: [T, 478, 3] px of the crop; valid: [T] bool.
        jumps: frames that do not follow their predecessor in time; nothing is smoothed across.
        principal: the source's principal point in px of the crop (its centre when the source is uncropped).
    """
    rows = np.flatnonzero(valid)
    keys = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 200)).astype(int))]
    start = generic_shape(landmarks[keys].astype(np.float64))[RIGID]
    seen = landmarks[:, RIGID, :2].astype(np.float64)
    huber = HUBER * size / 512
    best: tuple[float, float, np.ndarray] | None = None
    for focal in FOCALS * size:
        camera = (focal, *principal)
        poses = initial_poses(seen[keys], start, camera)
        shape = start.copy()
        for _ in range(3):
            poses = solve_poses(seen[keys], shape, poses, camera, huber, 4)
            shape = solve_shape(seen[keys], start, shape, poses, camera, huber)
        error = float(np.sqrt((robust(residual(seen[keys], shape, poses, camera), huber) ** 2).mean()))
        error *= 1 + FOCAL_PRIOR * np.log(focal / (LIKELY_FOCAL * size)) ** 2
        if best is None or error < best[0]:
            best = (error, focal, shape)
    _, focal, shape = best
    focal = float(focal)
    camera = (focal, *principal)
    poses = initial_poses(seen[keys], shape, camera)
    for _ in range(6):
        poses = solve_poses(seen[keys], shape, poses, camera, huber, 3)
        shape = solve_shape(seen[keys], start, shape, poses, camera, huber)
    poses = solve_poses(seen, shape, initial_poses(seen, shape, camera), camera, huber, 12)
    raw = rmse(seen[rows], shape, poses[rows], camera)
    poses = smooth(seen, shape, poses, camera, huber, valid, jumps)
    return Tracking(
        to_matrices(poses).astype(np.float32), Camera(focal, focal, *principal, size, size), shape,
        rmse(seen[rows], shape, poses[rows], camera), raw,
    )  # fmt: skip


# A pose is (R [3, 3], t [3]) packed as [3, 4]; increments are (rotation vector, shift), applied on the left.
def initial_poses(seen: np.ndarray, shape: np.ndarray, camera: tuple) -> np.ndarray:
    """Scaled orthography: [T, K, 2] px -> poses [T, 3, 4]."""
    f, cx, cy = camera
    centre = shape.mean(0)
    q = seen - seen.mean(1, keepdims=True)
    affine = np.einsum("tki,kj->tij", q, np.linalg.pinv(shape - centre).T)  # [T, 2, 3]
    a, b = affine[:, 0], affine[:, 1]
    scale = (np.linalg.norm(a, axis=1) + np.linalg.norm(b, axis=1)) / 2
    rows = np.stack([a, b, np.cross(a, b)], axis=1)
    rows[:, 2] /= scale[:, None]
    u, _, vt = np.linalg.svd(rows / scale[:, None, None])
    r = u @ vt
    z = f / scale
    middle = np.stack([(seen[..., 0].mean(1) - cx) / f * z, (seen[..., 1].mean(1) - cy) / f * z, z], axis=1)
    t = middle - r @ centre
    return np.concatenate([r, t[..., None]], axis=2)


def project(shape: np.ndarray, poses: np.ndarray, camera: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [T, K, 2] and camera-frame points [T, K, 3]."""
    f, cx, cy = camera
    p = np.einsum("tij,kj->tki", poses[:, :, :3], shape) + poses[:, None, :, 3]
    return np.stack([f * p[..., 0] / p[..., 2] + cx, f * p[..., 1] / p[..., 2] + cy], axis=-1), p


def residual(seen, shape, poses, camera) -> np.ndarray:
    """Reprojection error length [T, K] px."""
    return np.linalg.norm(project(shape, poses, camera)[0] - seen, axis=-1)


def rmse(seen, shape, poses, camera) -> float:
    """Root mean square over frames and points of the error's two components together, px."""
    return float(np.sqrt((residual(seen, shape, poses, camera) ** 2).mean()))


def robust(error: np.ndarray, huber: float) -> np.ndarray:
    return np.minimum(error, np.sqrt(2 * huber * np.maximum(error, huber) - huber**2))


def jacobian(p: np.ndarray, camera: tuple) -> np.ndarray:
    """d pixel / d point in the camera's frame: [T, K, 2, 3]."""
    f = camera[0]
    x, y, z = np.moveaxis(p, -1, 0)
    zero = np.zeros_like(z)
    return np.stack([np.stack([f / z, zero, -f * x / z**2], -1), np.stack([zero, f / z, -f * y / z**2], -1)], -2)


def normal_equations(seen, shape, poses, camera, huber) -> tuple[np.ndarray, np.ndarray]:
    """Per frame J^T W J [T, 6, 6] and J^T W r [T, 6] for the increment (rotation about the head's origin, shift)."""
    if len(poses) > BATCH:
        parts = [slice(k, k + BATCH) for k in range(0, len(poses), BATCH)]
        a, b = zip(*(normal_equations(seen[s], shape, poses[s], camera, huber) for s in parts))
        return np.concatenate(a), np.concatenate(b)
    pixel, p = project(shape, poses, camera)
    r = seen - pixel
    error = np.linalg.norm(r, axis=-1)
    weight = np.minimum(1, huber / np.maximum(error, 1e-9))
    jp = jacobian(p, camera)
    arm = p - poses[:, None, :, 3]
    zero = np.zeros(arm.shape[:-1])
    x, y, z = np.moveaxis(arm, -1, 0)
    cross = np.stack(  # d(w x arm)/dw
        [np.stack([zero, z, -y], -1), np.stack([-z, zero, x], -1), np.stack([y, -x, zero], -1)], -2
    )
    j = np.concatenate([jp @ cross, jp], axis=-1)  # [T, K, 2, 6]
    jw = j * weight[..., None, None]
    t, k = weight.shape
    jw, j = jw.reshape(t, k * 2, 6), j.reshape(t, k * 2, 6)
    return jw.transpose(0, 2, 1) @ j, (jw.transpose(0, 2, 1) @ r.reshape(t, k * 2, 1))[..., 0]


def increment(poses: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Apply (rotation vector, shift) [T, 6] on the left."""
    out = poses.copy()
    out[:, :, :3] = rotations(step[:, :3]) @ poses[:, :, :3]
    out[:, :, 3] += step[:, 3:]
    return out


def rotations(w: np.ndarray) -> np.ndarray:
    """Rotation vectors [3] or [T, 3] -> matrices [3, 3] or [T, 3, 3]."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(w).as_matrix()


def solve_poses(seen, shape, poses, camera, huber, steps: int) -> np.ndarray:
    """Levenberg-Marquardt on every frame at once."""
    damping = np.full(len(poses), 1e-3)
    cost = (robust(residual(seen, shape, poses, camera), huber) ** 2).sum(1)
    for _ in range(steps):
        a, b = normal_equations(seen, shape, poses, camera, huber)
        diagonal = np.einsum("tii->ti", a)
        a = a + np.einsum("t,ti,ij->tij", damping, diagonal + 1e-9, np.eye(6))
        step = np.linalg.solve(a, b[..., None])[..., 0]
        step[:, :3] = np.clip(step[:, :3], -0.3, 0.3)
        trial = increment(poses, step)
        new = (robust(residual(seen, shape, trial, camera), huber) ** 2).sum(1)
        better = (new < cost) & (trial[:, 2, 3] > 0.05)
        poses = np.where(better[:, None, None], trial, poses)
        cost = np.where(better, new, cost)
        damping = np.where(better, damping / 4, damping * 8)
    return poses


def solve_shape(seen, start, shape, poses, camera, huber) -> np.ndarray:
    """Each rigid point by weighted least squares, held near its first guess."""
    pixel, p = project(shape, poses, camera)
    r = seen - pixel
    weight = np.minimum(1, huber / np.maximum(np.linalg.norm(r, axis=-1), 1e-9))
    j = jacobian(p, camera) @ poses[:, None, :, :3]
    jw = j * weight[..., None, None]
    a = np.einsum("tkai,tkaj->kij", jw, j)
    b = np.einsum("tkai,tka->ki", jw, r)
    hold = len(seen) * 0.7**2 / PRIOR**2  # 0.7 px of landmark noise against the prior's spread, in every frame
    hold = hold * 0.02
    new = shape + np.linalg.solve(a + hold * np.eye(3), (b - hold * (shape - start))[..., None])[..., 0]
    new += start.mean(0) - new.mean(0)  # the gauge: place and size stay those of the first guess
    spread = np.sqrt((start - start.mean(0)) ** 2).sum() / np.sqrt((new - new.mean(0)) ** 2).sum()
    return (new - new.mean(0)) * spread + new.mean(0)


def smooth(
    seen, shape, poses, camera, huber, valid, jumps=None, rotation: float = 1e5, shift: float = 1e6
) -> np.ndarray:
    """Least squares of (distance to the landmarks' optimum, second differences of the pose): zero-phase, light.

    Args:
        rotation, shift: weights of squared second differences, per rad^2 and per m^2, against px^2.
    """
    from scipy.sparse import block_diag, diags, identity, kron
    from scipy.sparse.linalg import splu

    t = len(poses)
    if t < 5:
        return poses
    a, _ = normal_equations(seen, shape, poses, camera, huber)
    a = np.where(valid[:, None, None], a, a * 1e-6) + 1e-9 * np.eye(6)
    base = poses
    d2 = diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(t - 2, t))
    follows = np.ones(t - 2)
    for j in jumps or []:
        follows[max(j - 2, 0) : j] = 0
    d2 = diags(follows) @ d2
    scale = (seen[0].max() - seen[0].min()) ** 2 / 200.0**2  # weights are stated for a face of 200 px
    stiff = kron(d2.T @ d2, diags([rotation * scale] * 3 + [shift * scale] * 3))
    # unknown: increments e with pose = exp(e) base; penalise second differences of base + e in a chart around frame 0
    chart = chart_of(base)
    data = block_diag(list(a), format="csc")
    rhs = -(stiff @ chart.ravel())
    e = splu((data + stiff + 1e-9 * identity(6 * t)).tocsc()).solve(rhs).reshape(t, 6)
    e[:, :3] = np.clip(e[:, :3], -0.05, 0.05)
    e[:, 3:] = np.clip(e[:, 3:], -0.02, 0.02)
    return increment(base, e)


def chart_of(poses: np.ndarray) -> np.ndarray:
    """Rotation vectors relative to the mean rotation, and shifts: [T, 6]."""
    from scipy.spatial.transform import Rotation

    r = Rotation.from_matrix(poses[:, :, :3])
    mean = r.mean()
    return np.concatenate([(r * mean.inv()).as_rotvec(), poses[:, :, 3]], axis=1)


def to_matrices(poses: np.ndarray) -> np.ndarray:
    """[T, 3, 4] -> [T, 4, 4]."""
    out = np.zeros((len(poses), 4, 4))
    out[:, :3] = poses
    out[:, 3, 3] = 1
    return out
