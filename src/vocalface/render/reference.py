"""The specification of Gaussian rasterisation in PyTorch: readable, differentiable, any float type, any device; slow.

EWA splatting (Zwicker et al. 2001; 3D Gaussian Splatting, section 4): each Gaussian is projected to a 2-D Gaussian,
splats are sorted by depth and blended front to back.

Convention: camera in OpenCV axes; pixel (i, j) has its centre at +0.5; a splat counts exactly where alpha >= 1/255
and less than all but 1e-4 of the light is already taken.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vocalface.types import Camera, Gaussians

ALPHA_MIN, ALPHA_MAX, T_STOP, NEAR, BLUR = 1 / 255, 0.99, 1e-4, 0.01, 0.3
MARGIN = 0.15  # tangent
TILE = 16  # px; only for speed and memory, it changes no pixel
BATCH = 1 << 22  # pixel-splat pairs evaluated at once


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
    """2-D means [N, 2] px, 2-D covariances [N, 2, 2] px^2 (with the 0.3 px^2 blur), depths [N] metres > 0.

    Further than a tangent of 0.15 (8.5 degrees) outside the image the Jacobian is that of the nearest point within, so
    that a splat at the side of the camera does not grow without bound. The margin does not depend on the image's
    size: a part of an image, drawn alone, is the same as in the whole.
    """
    pose = torch.as_tensor(camera.world_to_camera, dtype=g.means.dtype, device=g.means.device)
    t = g.means @ pose[:3, :3].T + pose[:3, 3]
    x, y, z = t.unbind(-1)
    tx = (x / z).clamp(-camera.cx / camera.fx - MARGIN, (camera.width - camera.cx) / camera.fx + MARGIN)
    ty = (y / z).clamp(-camera.cy / camera.fy - MARGIN, (camera.height - camera.cy) / camera.fy + MARGIN)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [camera.fx / z, zero, -camera.fx * tx / z, zero, camera.fy / z, -camera.fy * ty / z], dim=-1
    ).view(-1, 2, 3)
    axes = jacobian @ pose[:3, :3] @ quat_to_matrix(g.quats) * g.scales[:, None]  # [N, 2, 3]
    blur = BLUR * torch.eye(2, dtype=t.dtype, device=t.device)
    mean = torch.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], dim=-1)
    return mean, axes @ axes.mT + blur, z


def rasterize(g: Gaussians, camera: Camera, screen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Premultiplied image [H, W, C] over black and alpha [H, W].

    Args:
        screen: optional [N, 2] zeros added to the 2-D means; its gradient is dL/d(mean2d).
    """
    order = _visible_front_to_back(g, camera)
    g = Gaussians(g.means[order], g.quats[order], g.scales[order], g.opacities[order], g.colors[order])
    mean, covariance, _ = project(g, camera)
    if screen is not None:
        mean = mean + screen[order]
    conic = torch.linalg.inv(covariance)
    columns, rows = -(-camera.width // TILE), -(-camera.height // TILE)
    channels = g.colors.shape[1]
    done, pixels = [], []
    inside = torch.arange(TILE, dtype=mean.dtype, device=mean.device) + 0.5
    inside = torch.stack(torch.meshgrid(inside, inside, indexing="xy"), dim=-1).view(-1, 2)  # [P, 2]
    for tiles, splats, real in _batches(mean.detach(), covariance.detach(), g.opacities.detach(), columns, rows):
        corner = torch.stack([tiles % columns, tiles // columns], dim=-1) * TILE
        d = (corner[:, None] + inside)[:, :, None] - mean[splats][:, None]  # [T, P, K, 2]
        power = -0.5 * torch.einsum("tpki,tkij,tpkj->tpk", d, conic[splats], d)
        alpha = (g.opacities[splats][:, None] * power.exp()).clamp(max=ALPHA_MAX)
        alpha = torch.where((alpha >= ALPHA_MIN) & real[:, None], alpha, torch.zeros_like(alpha))
        through = torch.cumprod(1 - alpha, dim=-1)
        before = torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], dim=-1)  # light left in front
        weight = torch.where(before >= T_STOP, alpha * before, torch.zeros_like(alpha))
        done.append(tiles)
        pixels.append(torch.cat([weight @ g.colors[splats], weight.sum(-1, keepdim=True)], dim=-1))
    out = mean.new_zeros(rows * columns, TILE * TILE, channels + 1)
    if done:
        out = out.index_copy(0, torch.cat(done), torch.cat(pixels))
    out = out.view(rows, columns, TILE, TILE, channels + 1).transpose(1, 2)
    out = out.reshape(rows * TILE, columns * TILE, channels + 1)[: camera.height, : camera.width]
    return out[..., :-1], out[..., -1]


@torch.no_grad()
def _visible_front_to_back(g: Gaussians, camera: Camera) -> Tensor:
    """Indices of what can be seen, by depth; what is not finite cannot be."""
    pose = torch.as_tensor(camera.world_to_camera, dtype=g.means.dtype, device=g.means.device)
    depth = g.means @ pose[2, :3] + pose[2, 3]
    parts = torch.cat([g.means, g.quats, g.scales, g.opacities[:, None]], dim=-1)
    seen = parts.isfinite().all(-1) & (depth > NEAR) & (g.opacities >= ALPHA_MIN)
    order = torch.argsort(depth, stable=True)
    return order[seen[order]]


@torch.no_grad()
def _batches(
    mean: Tensor, covariance: Tensor, opacity: Tensor, columns: int, rows: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Tiles [T], the splats that may reach them [T, K] front to back, and which of those are no padding [T, K]."""
    reach = torch.sqrt(2 * torch.log(255 * opacity).clamp(min=0)[:, None] * covariance.diagonal(dim1=1, dim2=2)) + 1e-3
    limit = torch.tensor([columns, rows]).to(mean.device)
    low = ((mean - reach) / TILE).floor().clamp(-1, 1 << 20).long().clamp(min=0)
    high = torch.minimum(((mean + reach) / TILE).floor().clamp(-1, 1 << 20).long() + 1, limit)  # exclusive
    size = (high - low).clamp(min=0)
    count = size.prod(-1)
    splat = torch.repeat_interleave(torch.arange(len(mean), device=mean.device), count)
    nth = torch.arange(len(splat), device=mean.device) - (count.cumsum(0) - count)[splat]
    wide = size[splat, 0]
    tile = (low[splat, 1] + nth // wide) * columns + low[splat, 0] + nth % wide
    tile, by_tile = torch.sort(tile, stable=True)  # splats stay front to back within a tile
    splat = splat[by_tile]
    filled = torch.bincount(tile, minlength=columns * rows)
    start = filled.cumsum(0) - filled
    tiles = torch.argsort(filled, descending=True)
    filled_list = filled[tiles].cpu().tolist()
    at = 0
    while at < len(tiles) and filled_list[at]:
        most = filled_list[at]
        taken = max(1, BATCH // (most * TILE * TILE))
        some = tiles[at : at + taken][: sum(1 for f in filled_list[at : at + taken] if f)]
        k = torch.arange(most, device=mean.device)
        real = k < filled[some][:, None]
        yield some, splat[(start[some][:, None] + k).clamp(max=len(splat) - 1)], real
        at += taken
