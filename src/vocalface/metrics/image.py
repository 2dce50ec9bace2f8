"""Numbers of one image against another: PSNR, SSIM and its relatives, sharpness.

Images are [H, W] or [H, W, C], uint8 or float in [0, 1]. A video's number is the mean over its frames of each frame's
number, never the number of pooled errors.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import convolve1d, correlate1d

PSNR_CAP = 100.0
"""dB given to identical images, whose PSNR is infinite."""

C1, C2 = 0.01**2, 0.03**2
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 px, the end excluded."""


def psnr(image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None, box: Box | None = None) -> float:
    """Peak signal-to-noise ratio, dB, at most 100.

    Args:
        mask: [H, W] bool or weights in [0, 1]; only there.
        box: only within it. An empty region gives NaN.
    """
    _check(image, truth)
    error = np.square(_crop(_unit(image), box) - _crop(_unit(truth), box))
    if mask is not None:
        weight = np.asarray(_crop(mask, box), np.float64).reshape(error.shape[:2] + (1,) * (error.ndim - 2))
        weight = np.broadcast_to(weight, error.shape)
        total = weight.sum()
        mse = (error * weight).sum() / total if total > 0 else np.nan
    else:
        mse = error.mean(dtype=np.float64) if error.size else np.nan
    return float(min(-10 * np.log10(max(mse, 1e-30)), PSNR_CAP)) if np.isfinite(mse) else float("nan")


def ssim(image: np.ndarray, truth: np.ndarray, box: Box | None = None) -> float:
    """Structural similarity (Wang et al. 2004): 11x11 Gaussian of sigma 1.5, K1 .01, K2 .03, mean over channels.

    Averaged where the window lies inside the image, as the original does and scikit-image with Gaussian weights.
    """
    _check(image, truth)
    image, truth = _crop(_unit(image), box), _crop(_unit(truth), box)
    if min(image.shape[:2]) < 11:
        return float("nan")
    luminance, structure = _ssim_parts(image, truth)
    return float((luminance * structure).mean(dtype=np.float64))


def ssim_global(image: np.ndarray, truth: np.ndarray) -> float:
    """SSIM with the whole image as its one window, mean over channels. Much nearer 1 than the 11x11 one."""
    _check(image, truth)
    x, y = (_unit(v).reshape(image.shape[0] * image.shape[1], -1).astype(np.float64) for v in (image, truth))
    mx, my, vx, vy = x.mean(0), y.mean(0), x.var(0), y.var(0)
    covariance = ((x - mx) * (y - my)).mean(0)
    return float(((2 * mx * my + C1) * (2 * covariance + C2) / ((mx**2 + my**2 + C1) * (vx + vy + C2))).mean())


def ms_ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """Multi-scale SSIM (Wang et al. 2003), five scales by 2x2 averaging; NaN under 176 px on the short side."""
    return ssim_pair(image, truth)[1]


def ssim_pair(image: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """SSIM and multi-scale SSIM at little more than the cost of one: the second's first scale is the first."""
    _check(image, truth)
    x, y = (v[..., None] if v.ndim == 2 else v for v in (_unit(image), _unit(truth)))
    single, multi = float("nan"), np.ones(x.shape[2])
    for scale, weight in enumerate(MS_WEIGHTS):
        if min(x.shape[:2]) < 11:
            return single, float("nan")
        luminance, structure = _ssim_parts(x, y)
        if scale == 0:
            single = float((luminance * structure).mean(dtype=np.float64))
        last = scale == len(MS_WEIGHTS) - 1
        value = (luminance * structure if last else structure).mean((0, 1), dtype=np.float64)
        multi *= np.maximum(value, 0) ** weight
        x, y = _halve(x), _halve(y)
    return single, float(multi.mean())


def tenengrad(image: np.ndarray, box: Box | None = None) -> float:
    """Mean squared Sobel gradient of the grey image: contrast of edges."""
    grey = _grey(_crop(_unit(image), box))
    total = 0.0
    for axis in (0, 1):
        slope = convolve1d(grey, [1, 0, -1], axis=axis, mode="nearest")
        total = total + np.square(convolve1d(slope, [1, 2, 1], axis=1 - axis, mode="nearest"))
    return float(total.mean(dtype=np.float64))


def laplacian_variance(image: np.ndarray, box: Box | None = None) -> float:
    """Variance of the grey image's Laplacian: finest detail, noise included."""
    grey = _grey(_crop(_unit(image), box))
    laplacian = sum(convolve1d(grey, [1, -2, 1], axis=axis, mode="nearest") for axis in (0, 1))
    return float(laplacian.var(dtype=np.float64))


def sharpness_ratio(image: np.ndarray, truth: np.ndarray, box: Box | None = None) -> float:
    """Tenengrad of `image` over that of `truth`: < 1 blurred, > 1 noisy or over-sharpened."""
    return tenengrad(image, box) / max(tenengrad(truth, box), 1e-12)


def head_fit(
    images: np.ndarray, truths: np.ndarray, head_alpha: np.ndarray, mouth_boxes: np.ndarray
) -> dict[str, np.ndarray]:
    """PSNR of each frame on the three regions by which a head is judged.

    Args:
        images, truths: [T, H, W, 3].
        head_alpha: [T, H, W] uint8 matte or bool; the head is where it is more than half.
        mouth_boxes: [T, 4] or [4], x0 y0 x1 y1 px.

    Returns:
        {"psnr", "psnr_head", "psnr_mouth"}, each [T] dB.
    """
    heads = head_alpha if head_alpha.dtype == bool else head_alpha > 127
    boxes = np.broadcast_to(mouth_boxes, (len(images), 4))
    rows = [
        (psnr(a, b), psnr(a, b, mask=head), psnr(a, b, box=tuple(int(v) for v in box)))
        for a, b, head, box in zip(images, truths, heads, boxes)
    ]
    return dict(zip(("psnr", "psnr_head", "psnr_mouth"), np.array(rows).reshape(-1, 3).T))


def _ssim_parts(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luminance term and contrast-structure term of SSIM, where the window is inside."""
    offset = np.arange(-5, 6)
    window = np.exp(-(offset**2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(v: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(v, window, axis=0)[5:-5], window, axis=1)[:, 5:-5]

    mx, my = blur(x), blur(y)
    means, both = mx * my, mx * mx + my * my
    covariance, variances = blur(x * y) - means, blur(x * x + y * y) - both
    return (2 * means + C1) / (both + C1), (2 * covariance + C2) / (variances + C2)


def _halve(x: np.ndarray) -> np.ndarray:
    h, w = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    return x[:h, :w].reshape(h // 2, 2, w // 2, 2, -1).mean((1, 3))


def _unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image.astype(np.float32, copy=False)


def _grey(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else image @ np.array([0.299, 0.587, 0.114], np.float32)


def _crop(image: np.ndarray, box: Box | None) -> np.ndarray:
    return image if box is None else image[box[1] : box[3], box[0] : box[2]]


def _check(image: np.ndarray, truth: np.ndarray) -> None:
    if image.shape != truth.shape or image.ndim not in (2, 3):
        raise ValueError(f"expected two [H, W, C] images of one shape, got {image.shape} and {truth.shape}")
