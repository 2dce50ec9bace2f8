"""From observations to canonical Gaussians, and from Gaussians to pixels under a refined pose."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from vocalface.hmtalker.config import Config
from vocalface.hmtalker.data import Material, head_pixels
from vocalface.hmtalker.model import GaussianField, outputs
from vocalface.observe import indices
from vocalface.observe.action_units import lift
from vocalface.render import rasterize
from vocalface.types import MOUTH, Camera, Gaussians


# --------------------------------------------------------------------------------------------------------------- pose
class Poses(nn.Module):
    """The tracked head poses and a 6-DoF correction of each: rotation about the head's origin, then shift."""

    def __init__(self, poses: np.ndarray, camera: Camera) -> None:
        super().__init__()
        self.camera = camera
        self.register_buffer("base", torch.as_tensor(poses, dtype=torch.float32))  # [T, 4, 4]
        self.register_buffer("delta", torch.zeros(len(poses), 6))  # rotation vector rad, shift m

    def at(self, i: int, delta: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rotation [3, 3] and translation [3], world to camera, of frame i; under `delta` [6] in place of its own."""
        delta = self.delta[i] if delta is None else delta
        w, shift = delta[:3], delta[3:]
        return rotation(w) @ self.base[i, :3, :3], self.base[i, :3, 3] + shift

    @torch.no_grad()
    def matrices(self) -> np.ndarray:
        """All refined poses, [T, 4, 4] float32."""
        out = self.base.clone()
        for i in range(len(out)):
            out[i, :3, :3], out[i, :3, 3] = self.at(i)
        return out.cpu().numpy()


def rotation(w: Tensor) -> Tensor:
    """Rodrigues: rotation vector [3] -> [3, 3]; smooth at zero."""
    zero = w.new_zeros(())
    k = torch.stack([zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]).view(3, 3)
    theta2 = (w * w).sum()
    theta = (theta2 + 1e-20).sqrt()
    one = torch.eye(3, dtype=w.dtype, device=w.device)
    return one + theta.sin() / theta * k + (1 - theta.cos()) / (theta2 + 1e-20) * (k @ k)


def matrix_to_quat(r: Tensor) -> Tensor:
    """Rotation matrix [3, 3] -> unit quaternion wxyz [4], by the largest of the four candidates."""
    m = r.tolist()
    trace = m[0][0] + m[1][1] + m[2][2]
    if trace > 0:
        s = 2 * math.sqrt(1 + trace)
        q = [s / 4, (m[2][1] - m[1][2]) / s, (m[0][2] - m[2][0]) / s, (m[1][0] - m[0][1]) / s]
    else:
        i = max(range(3), key=lambda a: m[a][a])
        j, k = (i + 1) % 3, (i + 2) % 3
        s = 2 * math.sqrt(max(1 + m[i][i] - m[j][j] - m[k][k], 1e-12))
        q = [0.0] * 4
        q[0] = (m[k][j] - m[j][k]) / s
        q[1 + i], q[1 + j], q[1 + k] = s / 4, (m[j][i] + m[i][j]) / s, (m[k][i] + m[i][k]) / s
    return r.new_tensor(q)


def quat_product(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of one quaternion [4] with many [N, 4], wxyz."""
    w, x, y, z = a.tolist()
    left = torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return b @ left.to(b).T


def draw(
    gaussians: Gaussians,
    pose: tuple[Tensor, Tensor],
    camera: Camera,
    box: tuple[int, int, int, int],
    *,
    screen_gradient: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Rasterise the box of the camera's image: premultiplied colour [h, w, C] over black, and alpha [h, w].

    The Gaussians are moved into the camera's frame first, so that the gradient of their positions is the pose's too.
    """
    r, t = pose
    x0, y0, x1, y1 = box
    seen = Gaussians(
        gaussians.means @ r.T + t, quat_product(matrix_to_quat(r.detach().cpu()), gaussians.quats),
        gaussians.scales, gaussians.opacities, gaussians.colors,
    )  # fmt: skip
    view = Camera(
        camera.fx, camera.fy, camera.cx - x0, camera.cy - y0, x1 - x0, y1 - y0, torch.eye(4, dtype=torch.float32)
    )
    out = rasterize(seen, view, backend=backend, screen_gradient=screen_gradient)
    return out.image, out.alpha


# --------------------------------------------------------------------------------------------------------------- start
def initial_fields(material: Material, config: Config, rng: np.random.Generator) -> tuple[GaussianField, GaussianField]:
    """The canonical Gaussians of face and mouth before any step."""
    if config.init == "random":
        face = _cloud(rng.uniform(-0.1, 0.1, (config.face_gaussians, 3)), rng, config)
        mouth = _cloud(rng.uniform(-0.1, 0.1, (config.mouth_gaussians, 3)), rng, config)
    else:
        face, mouth = _face_from_surface(material, config, rng), _mouth_box(material, config, rng)
    if config.deformation == "linear":
        face.basis = nn.Parameter(torch.zeros(len(face), outputs(config), config.linear_rank))
    else:
        face.embedding = nn.Parameter(torch.zeros(len(face), config.embedding))
    return face, mouth


def _cloud(points: np.ndarray, rng: np.random.Generator, config: Config) -> GaussianField:
    colors = 0.5 + rng.uniform(0, 1, points.shape) / 255
    means = torch.as_tensor(points, dtype=torch.float32)
    return GaussianField(means, torch.as_tensor(colors, dtype=torch.float32), spacing(means), config.sh_degree)


def spacing(means: Tensor, neighbours: int = 3) -> Tensor:
    """Root mean square distance to the nearest neighbours, [N] metres."""
    from scipy.spatial import cKDTree

    points = means.detach().cpu().numpy()
    distance, _ = cKDTree(points).query(points, k=neighbours + 1)
    return torch.as_tensor(np.sqrt(np.mean(distance[:, 1:] ** 2, axis=1) + 1e-10), dtype=torch.float32)


def median_face(material: Material, rows: np.ndarray) -> np.ndarray:
    """Landmarks [478, 3] in the head's frame, metres: the median over frames `rows`."""
    return np.median(lift(material.landmarks[rows], material.poses[rows], material.camera), axis=0)


def _face_from_surface(material: Material, config: Config, rng: np.random.Generator) -> GaussianField:
    """Head pixels of a few frames lifted onto the tracked face, and behind its edge onto an ellipsoid."""
    from scipy.interpolate import RBFInterpolator

    rows = np.flatnonzero(material.valid[: material.train])
    mean = median_face(material, rows)[:468]
    surface = RBFInterpolator(mean[:, :2], mean[:, 2], neighbors=24, smoothing=1e-6, kernel="linear")
    oval = mean[indices.FACE_OVAL]
    edge = oval[:, 2].mean()  # the face's outline lies about here in depth
    centre, reach = oval[:, :2].mean(0), np.ptp(oval[:, :2], axis=0) / 2
    chosen = rows[np.linspace(0, len(rows) - 1, 12).astype(int)]
    each = -(-config.face_gaussians // len(chosen))
    points, colors = [], []
    x0, y0 = material.box[:2]
    camera = material.camera
    for i in chosen:
        frame = material.read(i)
        mask = head_pixels(frame.labels) & (frame.labels != MOUTH) & (frame.alpha > 200)
        ys, xs = np.nonzero(mask)
        if not len(xs):
            continue
        pick = rng.choice(len(xs), each, replace=len(xs) < each)
        u = xs[pick] + rng.uniform(0, 1, each) + x0
        v = ys[pick] + rng.uniform(0, 1, each) + y0
        ray = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(each)], axis=1)
        r, t = material.poses[i, :3, :3], material.poses[i, :3, 3]
        origin, direction = -r.T @ t, ray @ r  # world
        depth = np.full(each, t[2])
        for _ in range(4):  # the surface is a height field z(x, y) in the head's frame: fixed point on the ray
            p = origin + depth[:, None] * direction
            outside = np.sqrt((((p[:, :2] - centre) / reach) ** 2).sum(1))
            inner = surface(p[:, :2])
            rim = edge - 0.06 * np.clip(outside - 1, 0, 1.5)
            blend = np.clip((outside - 0.85) / 0.2, 0, 1)
            z = (1 - blend) * inner + blend * rim
            depth = depth + (z - p[:, 2]) / direction[:, 2]
        points.append(origin + depth[:, None] * direction)
        colors.append(frame.image[ys[pick], xs[pick]] / 255)
    means = torch.as_tensor(np.concatenate(points)[: config.face_gaussians], dtype=torch.float32)
    rgb = torch.as_tensor(np.concatenate(colors)[: config.face_gaussians], dtype=torch.float32)
    return GaussianField(means, rgb, spacing(means).clamp(5e-4, 6e-3), config.sh_degree, opacity=0.5)


def _mouth_box(material: Material, config: Config, rng: np.random.Generator) -> GaussianField:
    """A slab behind the lips, coloured like the mouth's interior where it was seen."""
    rows = np.flatnonzero(material.valid[: material.train])
    lips = median_face(material, rows)[indices.LIPS_OUTER]
    low, high = lips.min(0), lips.max(0)
    n = config.mouth_gaussians
    points = np.stack(
        [
            rng.uniform(low[0], high[0], n),
            rng.uniform(low[1] - 0.012, high[1] + 0.002, n),
            rng.uniform(lips[:, 2].mean() - 0.018, lips[:, 2].mean() - 0.004, n),
        ],
        axis=1,
    )
    seen = [np.array([[70.0, 35.0, 35.0]])]
    for i in rows[np.argsort(material.gap[rows])[-20:]]:
        frame = material.read(i)
        seen.append(frame.image[frame.labels == MOUTH].reshape(-1, 3).astype(float))
    palette = np.concatenate(seen)
    rgb = palette[rng.integers(0, len(palette), n)] / 255
    means = torch.as_tensor(points, dtype=torch.float32)
    return GaussianField(
        means,
        torch.as_tensor(rgb, dtype=torch.float32),
        spacing(means).clamp(5e-4, 4e-3),
        config.sh_degree,
        opacity=0.3,
    )
