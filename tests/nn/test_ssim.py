import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from vocalface.nn.ssim import gaussian_window, l1_dssim, ssim, ssim_map


def pair(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, noise = (torch.rand(shape, generator=generator, dtype=dtype) for _ in range(2))
    return x, (0.7 * x + 0.3 * noise)


def test_window():
    window = gaussian_window(torch.float64)
    assert window.shape == (11,) and window.sum() == pytest.approx(1)
    assert window[5] / window[8] == pytest.approx(np.exp(9 / 4.5))


def test_map_equals_skimage_inside_the_border():
    x, y = pair(40, 33, 3)
    _, theirs = structural_similarity(
        x.numpy(), y.numpy(), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2,
        data_range=1.0, full=True,
    )  # fmt: skip
    np.testing.assert_allclose(ssim_map(x, y)[5:-5, 5:-5], theirs[5:-5, 5:-5], atol=1e-7)


@pytest.mark.parametrize("shape", [(20, 24, 3), (2, 13, 12, 1), (5, 7, 2)])
def test_fast_value_and_gradient_equal_the_definition(shape):
    x, y = pair(*shape)
    x.requires_grad_()
    naive = (x - y).abs().mean() + 0.2 * (1 - ssim_map(x, y).mean())
    fast = l1_dssim(x, y, 0.2)
    assert fast.item() == pytest.approx(naive.item(), abs=1e-12)
    ours, theirs = (torch.autograd.grad(3 * loss, x)[0] for loss in (fast, naive))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)
    ours, theirs = (torch.autograd.grad(loss, x)[0] for loss in (ssim(x, y), ssim_map(x, y).mean()))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


def test_weights():
    x, y = pair(16, 18, 3)
    weight = torch.rand(16, 18, 1, dtype=torch.float64)
    x.requires_grad_()
    share = weight.expand(x.shape) / weight.expand(x.shape).sum()
    naive = ((x - y).abs() * share).sum() + 0.3 * (1 - (ssim_map(x, y) * share).sum())
    fast = l1_dssim(x, y, 0.3, weight)
    assert fast.item() == pytest.approx(naive.item(), abs=1e-12)
    ours, theirs = (torch.autograd.grad(loss, x)[0] for loss in (fast, naive))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)
    assert l1_dssim(x, y, 0.3, torch.zeros(16, 18, 1)).item() == pytest.approx(0.3)


def test_gradcheck():
    x, y = pair(7, 6, 2)
    torch.autograd.gradcheck(lambda x: l1_dssim(x, y), x.requires_grad_())


def test_identical_images():
    x, _ = pair(20, 20, 3, dtype=torch.float32)
    assert ssim(x, x).item() == pytest.approx(1, abs=1e-5)
    assert l1_dssim(x, x).item() == pytest.approx(0, abs=1e-6)


def test_float32_is_close_to_float64():
    x, y = pair(64, 64, 3)
    x32 = x.float().requires_grad_()
    ours = torch.autograd.grad(l1_dssim(x32, y.float()), x32)[0]
    x.requires_grad_()
    exact = torch.autograd.grad(l1_dssim(x, y), x)[0]
    assert (ours - exact).abs().max() < 1e-3 * exact.abs().max()
