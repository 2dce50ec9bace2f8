"""The specification of Gaussian rasterisation in PyTorch: readable, differentiable, any float type, any device; slow.

EWA splatting (Zwicker et al. 2001; 3D Gaussian Splatting, section 4): each Gaussian is projected to a 2-D Gaussian,
splats are sorted by depth and blended front to back.

Convention: camera in OpenCV axes; pixel (i, j) has its centre at +0.5; a splat counts exactly where alpha >= 1/255.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vocalface.types import Camera, Gaussians

ALPHA_MIN, ALPHA_MAX, T_STOP, NEAR, BLUR = 1 / 255, 0.99, 1e-4, 0.01, 0.3


def quat_to_matrix(quats: Tensor) -> Tensor:
    """Quaternions [N, 4] wxyz of any length -> rotations [N, 3, 3]."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1, eps=1e-12).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).view(-1, 3, 3)


def project(g: Gaussians, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """2-D means [N, 2] px, 2-D covariances [N, 2, 2] px^2 (with the 0.3 px^2 blur), depths [N] metres."""
    pose = torch.as_tensor(camera.world_to_camera, dtype=g.means.dtype, device=g.means.device)
    t = g.means @ pose[:3, :3].T + pose[:3, 3]
    x, y, z = t.unbind(-1)
    z = torch.where(z > NEAR, z, torch.ones_like(z))  # culled later; keeps gradients finite
    limit_x, limit_y = 1.3 * 0.5 * camera.width / camera.fx, 1.3 * 0.5 * camera.height / camera.fy
    tx, ty = (x / z).clamp(-limit_x, limit_x), (y / z).clamp(-limit_y, limit_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [camera.fx / z, zero, -camera.fx * tx / z, zero, camera.fy / z, -camera.fy * ty / z], dim=-1
    ).view(-1, 2, 3)
    axes = jacobian @ pose[:3, :3] @ quat_to_matrix(g.quats) * g.scales[:, None]  # [N, 2, 3]
    blur = BLUR * torch.eye(2, dtype=t.dtype, device=t.device)
    mean = torch.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], dim=-1)
    return mean, axes @ axes.mT + blur, t[:, 2]


def rasterize(g: Gaussians, camera: Camera, screen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Premultiplied image [H, W, C] over black and alpha [H, W].

    Args:
        screen: optional [N, 2] zeros added to the 2-D means; its gradient is dL/d(mean2d).
    """
    mean, covariance, depth = project(g, camera)
    if screen is not None:
        mean = mean + screen
    seen = (depth > NEAR) & (g.opacities >= ALPHA_MIN)
    order = torch.argsort(depth.detach(), stable=True)
    order = order[seen[order]]
    mean, conic = mean[order], torch.linalg.inv(covariance[order])
    opacity, color = g.opacities[order], g.colors[order]
    kind = {"dtype": mean.dtype, "device": mean.device}
    xs = torch.arange(camera.width, **kind) + 0.5
    rows, alphas = [], []
    step = max(1, (1 << 22) // max(1, camera.width * max(len(order), 1)))
    for top in range(0, camera.height, step):
        ys = torch.arange(top, min(top + step, camera.height), **kind) + 0.5
        pixel = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1).reshape(-1, 1, 2)  # [P, 1, 2]
        d = pixel - mean  # [P, N, 2]
        power = -0.5 * torch.einsum("pni,nij,pnj->pn", d, conic, d)
        alpha = (opacity * power.exp()).clamp(max=ALPHA_MAX)
        alpha = torch.where(alpha >= ALPHA_MIN, alpha, torch.zeros_like(alpha))
        through = torch.cumprod(1 - alpha, dim=1)
        before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)  # transmittance in front
        weight = torch.where(before >= T_STOP, alpha * before, torch.zeros_like(alpha))
        rows.append((weight @ color).view(len(ys), camera.width, -1))
        alphas.append(weight.sum(1).view(len(ys), camera.width))
    return torch.cat(rows), torch.cat(alphas)
