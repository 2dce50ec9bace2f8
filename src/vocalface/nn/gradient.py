"""The multi-scale gradient term: what stands in for LPIPS where its weights are not at hand. It is not LPIPS."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gradient_l1(x: Tensor, y: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute difference of the image gradients of x and y, averaged over `scales` octaves.

    At each octave: forward differences along rows and along columns, L1 between the images; then both are halved by
    2x2 averaging. It asks for edges and texture where L1 and SSIM forgive blur. Differentiable in both.

    Args:
        x, y: [..., H, W, C] in [0, 1]; octaves smaller than 4 px are left out.

    Returns:
        Scalar, 0 for equal images and for images that differ by a constant.
    """
    error = x - y
    error = error.reshape(-1, *error.shape[-3:]).permute(0, 3, 1, 2)  # gradients are linear: one pyramid suffices
    total, count = error.new_zeros(()), 0
    for _ in range(scales):
        if min(error.shape[-2:]) < 4:
            break
        rows, columns = error.diff(dim=-1).abs().mean(), error.diff(dim=-2).abs().mean()
        total, count = total + rows + columns, count + 1
        error = F.avg_pool2d(error, 2)
    return total / max(count, 1)
