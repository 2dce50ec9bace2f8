"""SSIM as a training loss: a readable definition, and the same with its gradient written out, several times faster.

Wang et al. 2004 with an 11x11 Gaussian window of sigma 1.5, K1 = .01, K2 = .03, range 1; zeros beyond the border and
the mean over all pixels, as 3D Gaussian Splatting trains with. (`metrics.image.ssim` measures inside the border.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def gaussian_window(dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """The window in one dimension, [11], sums to 1."""
    x = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-(x**2) / (2 * SIGMA**2))
    return (window / window.sum()).to(dtype=dtype, device=device)


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """The definition: SSIM at every pixel, differentiable in both images.

    Args:
        x, y: [..., H, W, C] in [0, 1].

    Returns:
        [..., H, W, C] in [-1, 1].
    """
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    return ((2 * mean_x * mean_y + C1) * (2 * covariance + C2)) / (
        (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    )


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Mean SSIM of x and y, [..., H, W, C] in [0, 1], as a scalar. Gradients flow to x alone; y is the target."""
    return _Fast.apply(x, y, None, 0.0, 1.0)


def l1_dssim(x: Tensor, y: Tensor, dssim: float = 0.2, weight: Tensor | None = None) -> Tensor:
    """mean |x - y| + dssim (1 - SSIM(x, y)) in one pass (HM-Talker, eq. 4, its first two terms).

    Args:
        x: [..., H, W, C] in [0, 1], the rendered image; gradients flow to it alone.
        y: the same shape, the target.
        dssim: weight of 1 - SSIM.
        weight: broadcastable to x, >= 0; both means are weighted by it.
    """
    return _Fast.apply(x, y, weight, 1.0, -dssim) + dssim


def _blur(image: Tensor) -> Tensor:
    """Gaussian window over [..., H, W, C], zeros beyond the border.

    Two depthwise convolutions in channels-last order, which is the order images have here: down the columns with
    W * C channels, then along the rows with C. On a CPU this is several times faster than planes are.
    """
    *_, height, width, channels = image.shape
    window, half = gaussian_window(image.dtype, image.device), WINDOW // 2
    columns = image.reshape(-1, height, 1, width * channels).permute(0, 3, 1, 2)
    kernel = window.view(1, 1, -1, 1).expand(width * channels, 1, -1, 1)
    down = F.conv2d(columns, kernel, padding=(half, 0), groups=width * channels)
    rows = down.permute(0, 2, 3, 1).reshape(-1, height, width, channels).permute(0, 3, 1, 2)
    kernel = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    across = F.conv2d(rows, kernel, padding=(0, half), groups=channels)
    return across.permute(0, 2, 3, 1).reshape(image.shape)


class _Fast(torch.autograd.Function):
    """a * mean |x - y| + b * mean SSIM(x, y), gradient to x. The gradient is made with the value and kept."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor, weight: Tensor | None, a: float, b: float) -> Tensor:
        x, y = x.detach(), y.detach()
        if weight is None:
            share = torch.tensor(1 / x.numel(), dtype=x.dtype, device=x.device)
        else:
            weight = weight.detach().to(x.dtype).expand(x.shape)
            share = weight / weight.sum().clamp_min(1e-12)

        moments = torch.empty((4, *x.shape), dtype=x.dtype, device=x.device)
        moments[0], moments[1] = x, y
        torch.mul(x, x, out=moments[2]).addcmul_(y, y)  # only the sum of the two variances is needed
        torch.mul(x, y, out=moments[3])
        mean_x, mean_y, squares, product = _blur(moments)
        means, both = mean_x * mean_y, (mean_x * mean_x).addcmul_(mean_y, mean_y)
        a1, a2 = 2 * means + C1, product.sub_(means).mul_(2).add_(C2)
        b1, b2 = both + C1, squares.sub_(both).add_(C2)
        inverse = (b1 * b2).reciprocal_()
        similarity = (a1 * a2).mul_(inverse)
        error = x - y
        value = a * (error.abs() * share).sum() + b * (similarity * share).sum()

        if ctx.needs_input_grad[0]:
            # Slopes of the similarity in the means of x, x x and x y. The window is symmetric, its own adjoint.
            slopes = torch.empty((3, *x.shape), dtype=x.dtype, device=x.device)
            d_mean, d_square, d_product = slopes
            torch.mul(a1, inverse, out=d_product).mul_(2)
            torch.div(similarity, b2, out=d_square).neg_()
            torch.sub(a2, a1, out=d_mean).mul_(mean_y).mul_(inverse)
            d_mean.addcmul_(mean_x, similarity.div_(b1).add_(d_square), value=-1).mul_(2)
            if weight is not None:
                slopes.mul_(share)
            from_mean, from_square, from_product = _blur(slopes)
            gradient = from_square.mul_(x).mul_(2).add_(from_mean).addcmul_(y, from_product)
            gradient.mul_(b if weight is not None else b / x.numel())
            if a:
                gradient.addcmul_(error.sign_(), share, value=a)
            ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None, None, None
