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
    """Gaussian window over [..., H, W, C], zeros beyond the border."""
    *_, height, width, channels = image.shape
    planes = image.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
    return _blur_planes(planes.reshape(-1, height, width)).view(-1, channels, height, width).permute(
        0, 2, 3, 1
    ).reshape(image.shape)  # fmt: skip


def _blur_planes(planes: Tensor) -> Tensor:
    """Gaussian window over [N, H, W]: N as channels of one image, because depthwise convolution is the fast path."""
    n, window = len(planes), gaussian_window(planes.dtype, planes.device)
    half = WINDOW // 2
    down = F.conv2d(planes[None], window.view(1, 1, -1, 1).expand(n, 1, -1, 1), padding=(half, 0), groups=n)
    return F.conv2d(down, window.view(1, 1, 1, -1).expand(n, 1, 1, -1), padding=(0, half), groups=n)[0]


class _Fast(torch.autograd.Function):
    """a * mean |x - y| + b * mean SSIM(x, y), gradient to x. The gradient is made with the value and kept."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor, weight: Tensor | None, a: float, b: float) -> Tensor:
        shape, (height, width, channels) = x.shape, x.shape[-3:]

        def planes(image: Tensor) -> Tensor:  # [..., H, W, C] -> [N, H, W]
            return image.reshape(-1, height, width, channels).permute(0, 3, 1, 2).reshape(-1, height, width)

        x, y = planes(x.detach()), planes(y.detach())
        if weight is not None:
            weight = planes(weight.detach().expand(shape).to(x.dtype))
        share = 1 / x.numel() if weight is None else weight / weight.sum().clamp_min(1e-12)
        n = len(x)
        moments = torch.empty((4 * n, height, width), dtype=x.dtype, device=x.device)
        moments[:n], moments[n : 2 * n] = x, y
        torch.mul(x, x, out=moments[2 * n : 3 * n]).addcmul_(y, y)
        torch.mul(x, y, out=moments[3 * n :])
        mean_x, mean_y, squares, product = _blur_planes(moments).split(n)

        means, both = mean_x * mean_y, (mean_x * mean_x).addcmul_(mean_y, mean_y)
        a1, a2 = 2 * means + C1, 2 * (product - means) + C2
        b1, b2 = both + C1, squares - both + C2
        inverse = 1 / (b1 * b2)
        similarity = a1 * a2 * inverse
        error = x - y
        value = a * _mean(error.abs(), share) + b * _mean(similarity, share)

        if ctx.needs_input_grad[0]:
            # d similarity / d (mean of x, mean of x x, mean of x y); the window is symmetric: its adjoint is itself
            slopes = torch.empty((3 * n, height, width), dtype=x.dtype, device=x.device)
            d_mean, d_square, d_product = slopes.split(n)
            torch.mul(a1, inverse, out=d_product).mul_(2)
            torch.div(similarity, b2, out=d_square).neg_()
            torch.sub(a2, a1, out=d_mean).mul_(mean_y).mul_(inverse)
            d_mean.addcmul_(mean_x, d_square + similarity / b1, value=-1).mul_(2)
            if isinstance(share, Tensor):
                slopes.view(3, n, height, width).mul_(share)
            from_mean, from_square, from_product = _blur_planes(slopes).split(n)
            gradient = from_square.mul_(x).mul_(2).add_(from_mean).addcmul_(y, from_product)
            gradient.mul_(b if isinstance(share, Tensor) else b * share)
            if a:
                sign = error.sign_()
                gradient.add_(sign * share, alpha=a) if isinstance(share, Tensor) else gradient.add_(
                    sign, alpha=a * share
                )
            ctx.save_for_backward(gradient.view(-1, channels, height, width).permute(0, 2, 3, 1).reshape(shape))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None, None, None


def _mean(values: Tensor, share: Tensor | float) -> Tensor:
    return (values * share).sum() if isinstance(share, Tensor) else values.mean()
