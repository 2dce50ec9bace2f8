"""One suite for every Gaussian backend: the contract's numbers, and values and gradients against the reference."""

import math
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from vocalface.errors import ConfigError, DeviceError
from vocalface.render import Raster, backends, composite, cpu, native, rasterize, reference
from vocalface.types import Camera, Gaussians

POSE = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.7], [0, 0, 0, 1]])
CAMERA = Camera(100, 100, 32, 32, 64, 64, POSE)
CENTRED = Camera(100, 100, 32.5, 32.5, 65, 65, POSE)  # the origin falls on the centre of pixel 32, 32
FIELDS = ("means", "quats", "scales", "opacities", "colors")
BACKENDS = backends()
every_backend = pytest.mark.parametrize("backend", BACKENDS)
needs_cpu = pytest.mark.skipif("cpu" not in BACKENDS, reason="the CPU kernel is not built")


def scene(n=200, size=48, channels=3, seed=0, dtype=torch.float32, spread=1.0):
    """A cloud before a turned camera; with a large spread much of it lies out of sight."""
    g = torch.Generator().manual_seed(seed)

    def r(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    means = (r(n, 3) - 0.5) * torch.tensor([0.2, 0.25, 0.1], dtype=torch.float64) * spread
    parts = (means, r(n, 4) - 0.5, 0.001 + 0.01 * r(n, 3), 0.02 + 0.97 * r(n), r(n, channels))
    turn = 0.2
    pose = POSE.clone()
    pose[:3, :3] = torch.tensor([[math.cos(turn), 0, math.sin(turn)], [0, -1, 0], [math.sin(turn), 0, -math.cos(turn)]])
    camera = Camera(2.2 * size, 2.1 * size, size * 0.52, size * 0.47, size, size + 7, pose)
    return Gaussians(*(p.to(dtype).requires_grad_() for p in parts)), camera


def one(mean=(0.0, 0.0, 0.0), scale=0.01, opacity=0.8, color=(1.0, 0.5, 0.25)):
    t = torch.tensor
    return Gaussians(t([mean]), t([[1.0, 0, 0, 0]]), t([[scale] * 3]), t([opacity]), t([color]))


def joined(*parts):
    return Gaussians(*(torch.cat([getattr(p, f) for p in parts]) for f in FIELDS))


def draw(g, camera, backend, screen=None):
    """Draws on the backend's device; the picture comes back, gradients go to `g`."""
    place = "cuda" if backend == "cuda" else "cpu"
    there = Gaussians(*(getattr(g, f).to(place) for f in FIELDS))
    out = rasterize(there, camera, backend=backend, screen_gradient=screen)
    return Raster(out.image.cpu(), out.alpha.cpu())


def weights(out):
    g = torch.Generator().manual_seed(3)
    return [torch.rand(s.shape, generator=g, dtype=torch.float64) - 0.3 for s in out]


def assert_conforms(exact, camera, backend):
    """Values and gradients of a float64 scene against the reference's."""
    probe = torch.zeros(len(exact), 2, dtype=torch.float64, requires_grad=True)
    image, alpha = reference.rasterize(exact, camera, probe)
    w, wa = weights((image, alpha))
    ((image * w).sum() + (alpha * wa).sum()).backward()
    mine = Gaussians(*(getattr(exact, f).detach().float().requires_grad_() for f in FIELDS))
    screen = torch.zeros(len(mine), 2, device="cuda" if backend == "cuda" else "cpu")
    out = draw(mine, camera, backend, screen)
    assert (out.image - image).abs().max() < 2e-5
    assert (out.alpha - alpha).abs().max() < 2e-5
    ((out.image * w).sum() + (out.alpha * wa).sum()).backward()
    for f in FIELDS:
        a, b = getattr(exact, f).grad, getattr(mine, f).grad
        assert (a - b).norm() <= 1e-4 * a.norm(), f
    assert (screen.cpu() - probe.grad).norm() <= 1e-4 * probe.grad.norm()


@every_backend
class TestContract:
    def test_one_gaussian_peaks_at_its_opacity_and_spreads_as_projected(self, backend):
        out = draw(one(scale=0.03), CENTRED, backend)
        assert out.alpha[32, 32].item() == pytest.approx(0.8, abs=1e-5)
        variance = (100 * 0.03 / 0.7) ** 2 + 0.3
        assert out.alpha[32, 35].item() == pytest.approx(0.8 * math.exp(-0.5 * 9 / variance), abs=1e-4)
        assert torch.allclose(out.image[..., 1], out.alpha * 0.5, atol=1e-6)

    def test_alpha_never_passes_099_and_under_1_255_counts_for_nothing(self, backend):
        out = draw(one(opacity=1.0, scale=0.02), CENTRED, backend)
        assert out.alpha.max().item() == pytest.approx(0.99, abs=1e-6)
        assert out.alpha[out.alpha > 0].min().item() >= 1 / 255 - 1e-6
        assert (draw(one(opacity=0.0039), CAMERA, backend).alpha == 0).all()
        assert draw(one(opacity=0.004), CENTRED, backend).alpha[32, 32] > 0

    def test_a_splat_counts_exactly_where_its_alpha_is_at_least_1_255(self, backend):
        sigma2 = (100 * 0.03 / 0.7) ** 2 + 0.3
        at = torch.arange(65) - 32.0
        expected = 0.99 * torch.exp(-0.5 * (at[:, None] ** 2 + at**2) / sigma2)
        drawn = draw(one(opacity=0.99, scale=0.03), CENTRED, backend).alpha
        sure = (expected - 1 / 255).abs() > 1e-5
        assert torch.equal((drawn > 0)[sure], (expected >= 1 / 255)[sure])

    def test_centre_of_mass_is_the_projection(self, backend):
        out = draw(one(mean=(0.031, 0.017, 0.0), scale=0.02), CAMERA, backend)
        at = torch.arange(64) + 0.5
        x = (out.alpha.sum(0) * at).sum() / out.alpha.sum()
        y = (out.alpha.sum(1) * at).sum() / out.alpha.sum()
        assert x.item() == pytest.approx(32 + 100 * 0.031 / 0.7, abs=0.01)
        assert y.item() == pytest.approx(32 - 100 * 0.017 / 0.7, abs=0.01)

    def test_two_in_one_place_are_the_analytic_over(self, backend):
        far, near = one(opacity=0.6, mean=(0, 0, -0.01), color=(0, 1.0, 0)), one(opacity=0.5, color=(1.0, 0, 0))
        out = draw(joined(far, near), CENTRED, backend)
        assert out.image[32, 32].tolist() == pytest.approx([0.5, 0.5 * 0.6, 0], abs=1e-5)
        assert out.alpha[32, 32].item() == pytest.approx(0.8, abs=1e-5)

    def test_equal_depths_keep_the_order_of_the_list(self, backend):
        a, b = one(opacity=0.5, color=(1.0, 0, 0)), one(opacity=0.6, color=(0, 1.0, 0))
        assert draw(joined(a, b), CENTRED, backend).image[32, 32].tolist() == pytest.approx([0.5, 0.3, 0], abs=1e-5)
        assert draw(joined(b, a), CENTRED, backend).image[32, 32].tolist() == pytest.approx([0.2, 0.6, 0], abs=1e-5)

    def test_light_stops_under_1e_4(self, backend):
        stack = joined(*(one(opacity=0.8, scale=0.05, mean=(0, 0, -0.001 * k)) for k in range(20)))
        out = draw(stack, CENTRED, backend)
        assert 1 - out.alpha[32, 32].item() == pytest.approx(0.2**6, rel=0.01)  # the seventh finds 0.2^6 = 6.4e-5

    def test_order_of_the_list_is_of_no_matter(self, backend):
        g, camera = scene()
        order = torch.randperm(len(g), generator=torch.Generator().manual_seed(1))
        shuffled = Gaussians(*(getattr(g, f)[order] for f in FIELDS))
        assert torch.allclose(draw(g, camera, backend).image, draw(shuffled, camera, backend).image, atol=1e-6)

    def test_alpha_is_a_share_and_bounds_the_colours(self, backend):
        g, camera = scene(600)
        out = draw(g, camera, backend)
        assert out.alpha.min() >= 0 and out.alpha.max() <= 1
        assert (out.image <= out.alpha[..., None] + 1e-6).all()

    def test_nothing_and_what_lies_behind_the_camera_are_empty(self, backend):
        none = Gaussians(*(torch.zeros(0, *s, requires_grad=True) for s in ((3,), (4,), (3,), (), (3,))))
        out = draw(none, CAMERA, backend)
        assert (out.alpha == 0).all() and (out.image == 0).all()
        if out.image.requires_grad:
            out.image.sum().backward()
        assert (draw(one(mean=(0, 0, 0.8)), CAMERA, backend).alpha == 0).all()
        assert (draw(one(mean=(0, 0, 0.691)), CAMERA, backend).alpha == 0).all()  # z = 9 mm

    def test_a_part_of_the_image_equals_the_whole_there(self, backend):
        g, camera = scene(400, size=64, spread=1.4)
        part = Camera(camera.fx, camera.fy, camera.cx - 37, camera.cy - 5, 21, 50, camera.world_to_camera)
        a, b = draw(g, camera, backend), draw(g, part, backend)
        assert torch.allclose(a.image[5:55, 37:58], b.image, atol=1e-5)

    @pytest.mark.parametrize("channels", range(1, 9))
    def test_values_and_gradients_equal_the_reference(self, backend, channels):
        assert_conforms(*scene(channels=channels, dtype=torch.float64), backend)

    def test_so_they_do_for_much_that_is_out_of_sight(self, backend):
        g, camera = scene(300, dtype=torch.float64, spread=6.0, seed=5)
        assert_conforms(g, camera, backend)

    def test_so_they_do_for_large_near_splats_that_hang_over_the_edge(self, backend):
        g, camera = scene(40, size=70, dtype=torch.float64, spread=2.0)
        large = Gaussians(g.means, g.quats, (g.scales * 8).detach().requires_grad_(), g.opacities, g.colors)
        assert_conforms(large, camera, backend)

    def test_what_is_not_finite_is_not_drawn_and_has_no_gradient(self, backend):
        g, camera = scene(60)
        kept = Gaussians(*(getattr(g, f).detach()[8:] for f in FIELDS))
        broken = [getattr(g, f).detach().clone() for f in FIELDS]
        for row, (field, value) in enumerate(
            [(0, math.nan), (0, math.inf), (1, math.nan), (2, math.inf), (2, math.nan), (3, math.nan), (3, 0.0)]
        ):
            broken[field][row] = value
        broken[0][7] = 1e30
        bad = Gaussians(*(t.requires_grad_() for t in broken))
        out = draw(bad, camera, backend)
        assert torch.allclose(out.image, draw(kept, camera, backend).image, atol=1e-6)
        out.image.sum().backward()
        for f in FIELDS:
            assert (getattr(bad, f).grad[:8] == 0).all() and getattr(bad, f).grad.isfinite().all()

    def test_screen_gradients_add_up_over_pictures(self, backend):
        g, camera = scene(50)
        screen = torch.zeros(50, 2, device="cuda" if backend == "cuda" else "cpu")
        draw(g, camera, backend, screen).image.sum().backward()
        once = screen.clone()
        draw(g, camera, backend, screen).image.sum().backward()
        assert once.abs().sum() > 0 and torch.allclose(screen, 2 * once)

    def test_length_of_a_quaternion_is_of_no_matter(self, backend):
        g, camera = scene(50)
        longer = Gaussians(g.means, g.quats * 3, g.scales, g.opacities, g.colors)
        assert torch.allclose(draw(g, camera, backend).image, draw(longer, camera, backend).image, atol=1e-5)
        draw(g, camera, backend).image.square().sum().backward()
        along = (g.quats.grad * g.quats).sum(-1)
        assert (along.abs() <= 1e-4 * g.quats.grad.norm(dim=-1) + 1e-6).all()


def test_reference_passes_gradcheck():
    g, camera = scene(n=6, size=10, dtype=torch.float64)

    def f(*parts):
        image, alpha = reference.rasterize(Gaussians(*parts), camera)
        return image.sum(-1) * 0.3 + alpha

    assert torch.autograd.gradcheck(f, tuple(getattr(g, k) for k in FIELDS), atol=1e-5)


def test_the_reference_draws_the_same_in_batches_of_any_size(monkeypatch):
    g, camera = scene(300, size=64)
    whole = reference.rasterize(g, camera)[0]
    monkeypatch.setattr(reference, "BATCH", 1)
    assert torch.allclose(reference.rasterize(g, camera)[0], whole, atol=1e-6)


@needs_cpu
class TestCpu:
    def test_pixels_and_gradients_are_the_same_bits_for_any_number_of_threads(self, monkeypatch):
        def run(threads):
            monkeypatch.setenv("VOCALFACE_THREADS", str(threads))
            g, camera = scene(12_000, 160)
            out = rasterize(g, camera, backend="cpu")
            (out.image.square().sum() + out.alpha.sum()).backward()
            return [out.image.detach(), out.alpha.detach(), *(getattr(g, f).grad for f in FIELDS)]

        first = run(1)
        for threads in (2, 3, 8):
            assert all(torch.equal(a, b) for a, b in zip(first, run(threads)))

    def test_callers_on_several_threads_do_not_disturb_each_other(self):
        g, camera = scene(2000, 100)
        arrays = Gaussians(*(getattr(g, f).detach().numpy() for f in FIELDS))
        camera = camera.posed(camera.world_to_camera.numpy())
        expected = rasterize(arrays, camera).image
        seen = []

        def work():
            seen.extend(np.array_equal(rasterize(arrays, camera).image, expected) for _ in range(10))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(seen) == 40 and all(seen)

    def test_backward_runs_again_over_a_graph_that_is_kept(self):
        g, camera = scene(100)
        loss = rasterize(g, camera, backend="cpu").image.square().sum()
        first = torch.autograd.grad(loss, g.means, retain_graph=True)[0]
        assert torch.equal(first, torch.autograd.grad(loss, g.means)[0])

    def test_changing_the_picture_in_place_is_noticed(self):
        g, camera = scene(20)
        out = rasterize(g, camera, backend="cpu").image
        out.mul_(0.5)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()

    def test_double_tensors_get_double_gradients(self):
        g, camera = scene(20, dtype=torch.float64)
        rasterize(g, camera, backend="cpu").image.sum().backward()
        assert g.means.grad.dtype == torch.float64 and g.means.grad.abs().sum() > 0

    def test_numpy_path_equals_the_tensors_and_needs_no_torch(self):
        g, camera = scene()
        arrays = Gaussians(*(getattr(g, f).detach().numpy() for f in FIELDS))
        a, b = rasterize(arrays, camera.posed(camera.world_to_camera.numpy())), rasterize(g, camera, backend="cpu")
        assert isinstance(a.image, np.ndarray) and np.array_equal(a.image, b.image.detach().numpy())
        assert np.array_equal(a.alpha, b.alpha.detach().numpy())
        code = (
            "import sys, numpy as np; from vocalface.render import rasterize, composite\n"
            "from vocalface.types import Camera, Gaussians\n"
            "g = Gaussians(*(np.ones(s, np.float32) for s in ((1, 3), (1, 4), (1, 3), (1,), (1, 3))))\n"
            "r = rasterize(g, Camera(9, 9, 4, 4, 8, 8, np.eye(4)))\n"
            "composite(r.image, r.alpha, None, None, np.zeros((8, 8, 3), np.uint8)); assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_a_forked_child_draws_too(self):
        code = (
            "import os, numpy as np; os.environ['VOCALFACE_THREADS'] = '3'\n"
            "from vocalface.render import rasterize; from vocalface.types import *\n"
            "g = Gaussians(*(np.ones(s, np.float32) for s in ((5000, 3), (5000, 4), (5000, 3), (5000,), (5000, 3))))\n"
            "c = Camera(99, 99, 48, 48, 96, 96, np.array([[1., 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]))\n"
            "here = rasterize(g, c).image; assert here.any(); child = os.fork()\n"
            "if not child: os._exit(0 if np.array_equal(rasterize(g, c).image, here) else 3)\n"
            "print('child', os.waitpid(child, 0)[1])"
        )
        command = [sys.executable, "-W", "ignore", "-c", code]
        made = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60)
        assert (made.returncode, made.stdout) == (0, "child 0\n")

    @pytest.mark.parametrize("variant", native.VARIANTS)
    def test_each_variant_conforms(self, variant, monkeypatch):
        monkeypatch.setenv("VOCALFACE_CPU", variant)
        for cached in (native.load, cpu.library):
            cached.cache_clear()
        try:
            native.load("gaussians")
        except (ConfigError, DeviceError) as error:
            pytest.skip(error.what)
        else:
            assert_conforms(*scene(300, dtype=torch.float64, spread=3.0), "cpu")
        finally:
            for cached in (native.load, cpu.library):
                cached.cache_clear()


def test_wrong_shapes_say_what_was_expected():
    g = one()
    with pytest.raises(ConfigError, match=r"scales has shape \(1, 2\), expected \(1, 3\)"):
        rasterize(Gaussians(g.means, g.quats, g.scales[:, :2], g.opacities, g.colors), CAMERA)
    with pytest.raises(ConfigError, match="9 colour channels"):
        rasterize(Gaussians(g.means, g.quats, g.scales, g.opacities, torch.ones(1, 9)), CAMERA)
    with pytest.raises(ConfigError, match="no pose"):
        rasterize(g, CAMERA.posed(None))
    with pytest.raises(ConfigError, match=r"pose has shape \(3, 4\)"):
        rasterize(g, CAMERA.posed(POSE[:3]))
    with pytest.raises(ConfigError, match="0 x 64"):
        rasterize(g, Camera(100, 100, 0, 32, 0, 64, POSE))
    with pytest.raises(ConfigError, match="screen_gradient"):
        rasterize(g, CAMERA, screen_gradient=torch.zeros(2, 1))
    with pytest.raises(ConfigError, match="backend"):
        rasterize(g, CAMERA, backend="abacus")


def test_tensors_on_another_device_are_refused():
    with pytest.raises(DeviceError, match="these are on cpu"):
        rasterize(one(), CAMERA, backend="cuda")


def test_a_variant_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("VOCALFACE_CPU", "abacus")
    with pytest.raises(ConfigError, match="abacus"):
        native.candidates()


class TestComposite:
    def layers(self):
        rng = np.random.default_rng(0)
        face, mouth = rng.random((2, 40, 56, 3), np.float32)
        a, b = rng.random((2, 40, 56), np.float32)
        return face * a[..., None], a, mouth * b[..., None], b, rng.integers(0, 256, (40, 56, 3), np.uint8)

    def test_it_is_equation_10(self):
        f, fa, m, ma, b = self.layers()
        exact = f + (1 - fa)[..., None].astype(float) * (m + (1 - ma)[..., None] * (b / 255))
        assert np.abs(composite(f, fa, m, ma, b) - exact * 255).max() <= 0.501
        exact = f + (1 - fa)[..., None].astype(float) * (b / 255)
        assert np.abs(composite(f, fa, None, None, b) - exact * 255).max() <= 0.501

    def test_an_opaque_face_hides_and_an_empty_one_shows_what_lies_behind(self):
        f, fa, m, ma, b = self.layers()
        assert np.array_equal(composite(f, np.ones_like(fa), m, ma, b), np.floor(f * np.float32(255) + 0.5))
        zero, none = np.zeros_like(f), np.zeros_like(fa)
        assert np.array_equal(composite(zero, none, zero, none, b), b)

    def test_what_leaves_the_range_is_clipped(self):
        f, fa, m, ma, b = self.layers()
        assert (composite(f + 9, fa, m, ma, b) == 255).all() and (composite(f - 9, fa, m, ma, b) == 0).all()

    def test_without_the_compiled_kernel_it_is_the_same(self, monkeypatch):
        drawn = composite(*self.layers())
        monkeypatch.setattr(native, "available", lambda name="gaussians": False)
        assert np.abs(composite(*self.layers()).astype(int) - drawn).max() <= 1

    def test_layers_of_another_size_are_refused(self):
        f, fa, m, ma, b = self.layers()
        with pytest.raises(ConfigError, match=r"mouth_alpha has shape"):
            composite(f, fa, m, ma[:9], b)
