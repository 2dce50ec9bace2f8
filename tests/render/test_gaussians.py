"""One suite for every Gaussian backend: the contract's numbers, and values and gradients against the reference."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from vocalface.errors import ConfigError
from vocalface.render import backends, composite, rasterize, reference
from vocalface.types import Camera, Gaussians

POSE = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.7], [0, 0, 0, 1]])
FIELDS = ("means", "quats", "scales", "opacities", "colors")
BACKENDS = [b for b in backends() if b != "cuda"]
needs_cpu = pytest.mark.skipif("cpu" not in BACKENDS, reason="the CPU kernel is not built")


def scene(n=200, size=48, channels=3, seed=0, dtype=torch.float32, turn=True):
    g = torch.Generator().manual_seed(seed)

    def r(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    means = (r(n, 3) - 0.5) * torch.tensor([0.2, 0.25, 0.1], dtype=torch.float64)
    parts = (means, r(n, 4) - 0.5, 0.001 + 0.01 * r(n, 3), 0.02 + 0.97 * r(n), r(n, channels))
    pose = POSE.clone()
    if turn:
        a = 0.2
        pose[:3, :3] = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, -1, 0], [math.sin(a), 0, -math.cos(a)]])
    camera = Camera(2.2 * size, 2.1 * size, size * 0.52, size * 0.47, size, size + 7, pose)
    return Gaussians(*(p.to(dtype).requires_grad_() for p in parts)), camera


def one(mean=(0.0, 0.0, 0.0), scale=0.01, opacity=0.8, color=(1.0, 0.5, 0.25)):
    t = torch.tensor
    return Gaussians(t([mean]), t([[1.0, 0, 0, 0]]), t([[scale] * 3]), t([opacity]), t([color]))


CAMERA = Camera(100, 100, 32, 32, 64, 64, POSE)


@pytest.mark.parametrize("backend", BACKENDS)
class TestContract:
    def test_one_gaussian_peaks_at_its_opacity_and_spreads_as_projected(self, backend):
        out = rasterize(one(scale=0.03), Camera(100, 100, 32.5, 32.5, 65, 65, POSE), backend=backend)
        assert out.alpha[32, 32].item() == pytest.approx(0.8, abs=1e-5)
        variance = (100 * 0.03 / 0.7) ** 2 + 0.3
        expected = 0.8 * math.exp(-0.5 * 9 / variance)
        assert out.alpha[32, 35].item() == pytest.approx(expected, abs=1e-4)
        assert torch.allclose(out.image[..., 1], out.alpha * 0.5, atol=1e-6)

    def test_alpha_never_passes_099_and_under_1_255_counts_for_nothing(self, backend):
        out = rasterize(one(opacity=1.0, scale=0.02), CAMERA, backend=backend)
        assert out.alpha.max().item() <= 0.99 + 1e-6
        assert out.alpha[out.alpha > 0].min().item() >= 1 / 255 - 1e-6
        assert (rasterize(one(opacity=0.0039), CAMERA, backend=backend).alpha == 0).all()

    def test_centre_of_mass_is_the_projection(self, backend):
        out = rasterize(one(mean=(0.031, 0.017, 0.0), scale=0.02), CAMERA, backend=backend)
        at = torch.arange(64) + 0.5
        x = (out.alpha.sum(0) * at).sum() / out.alpha.sum()
        y = (out.alpha.sum(1) * at).sum() / out.alpha.sum()
        assert x.item() == pytest.approx(32 + 100 * 0.031 / 0.7, abs=0.01)
        assert y.item() == pytest.approx(32 - 100 * 0.017 / 0.7, abs=0.01)

    def test_two_in_one_place_are_the_analytic_over(self, backend):
        a, b = one(opacity=0.5, color=(1.0, 0, 0)), one(mean=(0, 0, -0.01), opacity=0.6, color=(0, 1.0, 0))
        both = Gaussians(*(torch.cat([getattr(b, f), getattr(a, f)]) for f in FIELDS))
        out = rasterize(both, Camera(100, 100, 32.5, 32.5, 65, 65, POSE), backend=backend)
        assert out.image[32, 32, 0].item() == pytest.approx(0.5, abs=1e-5)
        assert out.image[32, 32, 1].item() == pytest.approx(0.5 * 0.6, abs=1e-5)
        assert out.alpha[32, 32].item() == pytest.approx(0.8, abs=1e-5)

    def test_order_of_the_list_is_of_no_matter(self, backend):
        g, camera = scene()
        order = torch.randperm(len(g), generator=torch.Generator().manual_seed(1))
        shuffled = Gaussians(*(getattr(g, f)[order] for f in FIELDS))
        a, b = rasterize(g, camera, backend=backend), rasterize(shuffled, camera, backend=backend)
        assert torch.allclose(a.image, b.image, atol=1e-6)

    def test_nothing_and_what_lies_behind_the_camera_are_empty(self, backend):
        none = Gaussians(*(torch.zeros(0, *s) for s in ((3,), (4,), (3,), (), (3,))))
        assert (rasterize(none, CAMERA, backend=backend).alpha == 0).all()
        assert (rasterize(one(mean=(0, 0, 0.8)), CAMERA, backend=backend).alpha == 0).all()

    @pytest.mark.parametrize("channels", [1, 2, 3, 5, 8])
    def test_values_and_gradients_equal_the_reference(self, backend, channels):
        exact, camera = scene(channels=channels, dtype=torch.float64)
        image, alpha = reference.rasterize(exact, camera)
        g = torch.Generator().manual_seed(3)
        w, wa = (torch.rand(s, generator=g, dtype=torch.float64) - 0.3 for s in (image.shape, alpha.shape))
        ((image * w).sum() + (alpha * wa).sum()).backward()
        mine = Gaussians(*(getattr(exact, f).detach().float().requires_grad_() for f in FIELDS))
        screen = torch.zeros(len(mine), 2)
        out = rasterize(mine, camera, backend=backend, screen_gradient=screen)
        assert (out.image - image).abs().max() < 2e-5 and (out.alpha - alpha).abs().max() < 2e-5
        ((out.image * w).sum() + (out.alpha * wa).sum()).backward()
        for f in FIELDS:
            a, b = getattr(exact, f).grad, getattr(mine, f).grad
            assert (a - b).norm() <= 1e-4 * a.norm(), f
        probe = torch.zeros(len(exact), 2, dtype=torch.float64, requires_grad=True)
        image, alpha = reference.rasterize(exact, camera, probe)
        (true,) = torch.autograd.grad((image * w).sum() + (alpha * wa).sum(), probe)
        assert (screen - true).norm() <= 1e-4 * true.norm()


def test_reference_passes_gradcheck():
    g, camera = scene(n=6, size=10, dtype=torch.float64)

    def f(*parts):
        image, alpha = reference.rasterize(Gaussians(*parts), camera)
        return image.sum(-1) * 0.3 + alpha

    assert torch.autograd.gradcheck(f, tuple(getattr(g, k) for k in FIELDS), atol=1e-5)


def test_length_of_a_quaternion_is_of_no_matter():
    g, camera = scene(20)
    longer = Gaussians(g.means, g.quats * 3, g.scales, g.opacities, g.colors)
    assert torch.allclose(rasterize(g, camera).image, rasterize(longer, camera).image, atol=1e-5)


@needs_cpu
def test_pixels_and_gradients_are_the_same_bits_for_any_number_of_threads(monkeypatch):
    def run(threads):
        monkeypatch.setenv("VOCALFACE_THREADS", str(threads))
        g, camera = scene(12_000, 160)
        out = rasterize(g, camera, backend="cpu")
        (out.image.square().sum() + out.alpha.sum()).backward()
        return [out.image.detach(), out.alpha.detach(), *(getattr(g, f).grad for f in FIELDS)]

    first = run(1)
    for threads in (2, 3, 8):
        assert all(torch.equal(a, b) for a, b in zip(first, run(threads)))


@needs_cpu
def test_numpy_path_equals_the_tensors_and_needs_no_torch():
    g, camera = scene()
    arrays = Gaussians(*(getattr(g, f).detach().numpy() for f in FIELDS))
    a, b = rasterize(arrays, camera.posed(camera.world_to_camera.numpy())), rasterize(g, camera, backend="cpu")
    assert np.array_equal(a.image, b.image.detach().numpy())
    code = (
        "import sys, numpy as np; from vocalface.render import rasterize; from vocalface.types import *\n"
        "g = Gaussians(*(np.ones(s, np.float32) for s in ((1, 3), (1, 4), (1, 3), (1,), (1, 3))))\n"
        "rasterize(g, Camera(9, 9, 4, 4, 8, 8, np.eye(4)), backend='cpu'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_wrong_shapes_say_what_was_expected():
    g = one()
    with pytest.raises(ConfigError, match=r"scales has shape \(1, 2\), expected \(1, 3\)"):
        rasterize(Gaussians(g.means, g.quats, g.scales[:, :2], g.opacities, g.colors), CAMERA)
    with pytest.raises(ConfigError, match="no pose"):
        rasterize(g, CAMERA.posed(None))
    with pytest.raises(ConfigError, match="backend"):
        rasterize(g, CAMERA, backend="abacus")


def test_numpy_composite_follows_equation_10():
    rng = np.random.default_rng(0)
    f, m = rng.random((2, 8, 8, 3), np.float32) * 0.5
    fa, ma = rng.random((2, 8, 8), np.float32)
    b = rng.integers(0, 256, (8, 8, 3), np.uint8)
    exact = f + (1 - fa)[..., None] * (m + (1 - ma)[..., None] * (b / 255.0))
    assert np.abs(composite(f, fa, m, ma, b) - np.clip(exact * 255, 0, 255)).max() <= 0.51
