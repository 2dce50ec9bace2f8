import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vocalface.metrics import image


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:192, :200] / 40
    truth = 0.5 + 0.4 * np.stack([np.sin(x + y), np.cos(2 * x), np.sin(3 * y)], -1)
    return (255 * np.clip(truth + 0.05 * rng.standard_normal(truth.shape), 0, 1)).astype(np.uint8), (
        255 * truth
    ).astype(np.uint8)


def test_psnr_of_a_known_difference():
    truth = np.full((8, 9, 3), 0.3, np.float32)
    assert image.psnr(truth + 0.1, truth) == pytest.approx(20, abs=1e-4)
    assert image.psnr(truth, truth) == image.PSNR_CAP == 100


def test_psnr_equals_skimage(pair):
    assert image.psnr(*pair) == pytest.approx(peak_signal_noise_ratio(pair[1], pair[0]), abs=1e-4)


def test_psnr_regions():
    truth = np.zeros((10, 10, 3), np.float32)
    other = truth.copy()
    other[:5] = 0.1
    top = np.zeros((10, 10), bool)
    top[:5] = True
    assert image.psnr(other, truth, mask=top) == pytest.approx(20, abs=1e-4)
    assert image.psnr(other, truth, mask=~top) == 100
    assert image.psnr(other, truth, mask=np.full((10, 10), 0.5)) == pytest.approx(image.psnr(other, truth))
    assert image.psnr(other, truth, box=(0, 0, 10, 5)) == pytest.approx(20, abs=1e-4)
    assert image.psnr(other, truth, mask=top, box=(2, 5, 8, 9)) != image.psnr(other, truth)
    assert np.isnan(image.psnr(other, truth, mask=np.zeros((10, 10), bool)))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="shape"):
        image.psnr(np.zeros((4, 4, 3)), np.zeros((4, 5, 3)))


def test_ssim_equals_skimage(pair):
    theirs = structural_similarity(
        pair[0] / 255, pair[1] / 255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2,
        data_range=1.0,
    )  # fmt: skip
    assert image.ssim(*pair) == pytest.approx(theirs, abs=2e-5)
    assert image.ssim(pair[0], pair[0]) == pytest.approx(1, abs=1e-6)
    assert image.ssim(*(p[40:90, 30:80] for p in pair)) == pytest.approx(image.ssim(*pair, box=(30, 40, 80, 90)))


def test_relatives_of_ssim(pair):
    assert image.ms_ssim(pair[0], pair[0]) == pytest.approx(1, abs=1e-6)
    assert image.ssim(*pair) < image.ms_ssim(*pair) < 1
    assert image.ssim(*pair) < image.ssim_global(*pair) < 1
    assert np.isnan(image.ms_ssim(pair[0][:100], pair[1][:100])) and np.isnan(image.ssim(pair[0][:8], pair[1][:8]))
    grey = tuple(p[..., 0] for p in pair)
    assert 0 < image.ms_ssim(*grey) < 1 and 0 < image.ssim(*grey) < 1


def test_ms_ssim_by_hand(pair):
    """The five-scale product over full SSIM's parts, made of skimage's maps of luminance-free SSIM."""
    x, y = (p[..., 0] / 255 for p in pair)
    value = 1.0
    for i, weight in enumerate(image.MS_WEIGHTS):
        luminance, structure = image._ssim_parts(x, y)
        full = structural_similarity(
            x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )  # fmt: skip
        assert (luminance * structure).mean() == pytest.approx(full, abs=1e-6)
        value *= (structure.mean() if i < 4 else full) ** weight
        h, w = (n // 2 * 2 for n in x.shape)
        x, y = ((v[:h:2, :w:2] + v[1:h:2, :w:2] + v[:h:2, 1:w:2] + v[1:h:2, 1:w:2]) / 4 for v in (x, y))
    assert image.ms_ssim(*(p[..., 0] for p in pair)) == pytest.approx(value, abs=1e-5)


def test_sharpness_falls_with_blur(pair):
    from scipy.ndimage import gaussian_filter

    sharp = pair[0]
    ratios = [image.sharpness_ratio(gaussian_filter(sharp, (s, s, 0)), sharp) for s in (0, 0.5, 1, 2)]
    assert ratios[0] == pytest.approx(1) and ratios == sorted(ratios, reverse=True) and ratios[-1] < 0.5
    assert image.laplacian_variance(gaussian_filter(sharp, (1, 1, 0))) < 0.5 * image.laplacian_variance(sharp)
    assert image.tenengrad(np.full((9, 9, 3), 77, np.uint8)) == 0


def test_head_fit(pair):
    images, truths = (np.stack([p, pair[1]]) for p in pair)
    alpha = np.zeros(images.shape[:3], np.uint8)
    alpha[:, 50:150, 50:150] = 255
    fit = image.head_fit(images, truths, alpha, np.array([80, 100, 120, 140]))
    assert fit["psnr"][0] == image.psnr(images[0], truths[0])
    assert fit["psnr_head"][0] == image.psnr(images[0], truths[0], mask=alpha[0] > 127)
    assert fit["psnr_mouth"][0] == image.psnr(images[0], truths[0], box=(80, 100, 120, 140))
    assert all(v[1] == 100 for v in fit.values())
