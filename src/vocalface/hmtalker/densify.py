"""Adaptive density control: clone small, split large, prune faint Gaussians (3D Gaussian Splatting, section 5.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from vocalface.hmtalker.model import GaussianField

ROWS = ("means", "quats", "scales", "opacities", "sh0", "shn", "basis", "embedding")


def take_rows(field: GaussianField, optimiser: torch.optim.Optimizer, keep: Tensor, added: dict[str, Tensor]) -> None:
    """Keep the rows `keep` (indices) of every parameter and append `added`; Adam's moments follow (zero when new)."""
    groups = {g.get("name"): g for g in optimiser.param_groups}
    for name in ROWS:
        old = getattr(field, name)
        new = torch.nn.Parameter(torch.cat([old.data[keep], added[name]]))
        setattr(field, name, new)
        if name not in groups:
            continue
        groups[name]["params"][0] = new
        moments = optimiser.state.pop(old, None)
        if moments:
            for key in ("exp_avg", "exp_avg_sq"):
                moments[key] = torch.cat([moments[key][keep], torch.zeros_like(added[name])])
            optimiser.state[new] = moments


@torch.no_grad()
def densify_and_prune(
    field: GaussianField,
    optimiser: torch.optim.Optimizer,
    gradient: Tensor,  # [N] mean norm of the screen-space position gradient
    threshold: float,
    *,
    min_opacity: float,
    extent: float,
    percent_dense: float,
    generator: torch.Generator,
    limit: int,
) -> None:
    """One round. At most `limit` Gaussians remain; at least 16 always do, so that training never starves."""
    n = len(field)
    scales = torch.nn.functional.softplus(field.scales)
    busy = gradient > threshold
    room = max(limit - n, 0)
    if int(busy.sum()) > room:
        cut = gradient[busy].topk(room).values.min() if room else torch.inf
        busy &= gradient >= cut
    large = scales.amax(-1) > percent_dense * extent
    clone, split = busy & ~large, busy & large
    keep_mask = (field.opacities.sigmoid() > min_opacity) & (scales.amax(-1) < 0.1 * extent * 10) & ~split
    if int(keep_mask.sum()) < 16:
        keep_mask = torch.zeros_like(keep_mask)
        keep_mask[field.opacities.topk(min(16, n)).indices] = True
    raw = {name: getattr(field, name).data for name in ROWS}
    children = {name: raw[name][split].repeat(2, *[1] * (raw[name].dim() - 1)) for name in ROWS}
    spread = scales[split].repeat(2, 1)
    offset = torch.randn(spread.shape, generator=generator).to(spread.device) * spread
    children["means"] = children["means"] + rotate(children["quats"], offset)
    children["scales"] = torch.log(torch.expm1((spread / 1.6).clamp_min(1e-6)))
    added = {name: torch.cat([raw[name][clone], children[name]]) for name in ROWS}
    take_rows(field, optimiser, keep_mask.nonzero()[:, 0], added)


def rotate(quats: Tensor, v: Tensor) -> Tensor:
    """Rotate [N, 3] by quaternions [N, 4] wxyz (normalised here)."""
    q = torch.nn.functional.normalize(quats, dim=-1)
    w, u = q[:, :1], q[:, 1:]
    t = 2 * torch.linalg.cross(u, v)
    return v + w * t + torch.linalg.cross(u, t)
