"""Gaussians and meshes to pixels. The PyTorch reference is the specification; fast backends pass its suite."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from vocalface.errors import ConfigError, DeviceError
from vocalface.render import native
from vocalface.types import Camera, Gaussians

BACKENDS = ("reference", "cpu", "cuda")


@dataclass(frozen=True)
class Raster:
    """A drawing."""

    image: Any  # [H, W, C] float32, premultiplied, over black
    alpha: Any  # [H, W] float32


def backends() -> list[str]:
    """What can draw here."""
    found = ["reference"]
    if native.available("gaussians"):
        found.append("cpu")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found.append("cuda")
    return found


def rasterize(gaussians: Gaussians, camera: Camera, *, backend: str = "auto", screen_gradient: Any = None) -> Raster:
    """Draw Gaussians.

    Args:
        gaussians: NumPy arrays (forward only, torch is not imported) or torch tensors (with gradients).
        camera: its pose must be set.
        backend: auto, reference, cpu or cuda. `auto` follows the tensors' device.
        screen_gradient: float32 [N, 2] tensor into which the backward pass adds dL/d(2-D mean), px.

    Raises:
        ConfigError: shapes that do not fit, or an unknown backend. DeviceError: a backend that this machine lacks.
    """
    check(gaussians, camera)
    if backend not in ("auto", *BACKENDS):
        raise ConfigError(f"unknown backend {backend!r}", "rasterize", f"use auto, {', '.join(BACKENDS)}")
    if isinstance(gaussians.means, np.ndarray):
        if backend in ("auto", "cpu") and (backend == "cpu" or native.available()):
            from vocalface.render import cpu

            return Raster(*cpu.rasterize(gaussians, camera))
        import torch

        made = rasterize(
            _map(gaussians, lambda a: torch.from_numpy(np.asarray(a, np.float32))), camera, backend="reference"
        )
        return Raster(made.image.numpy(), made.alpha.numpy())
    if backend == "auto":
        backend = "cuda" if gaussians.means.is_cuda else "cpu" if native.available() else "reference"
    if backend == "cpu":
        from vocalface.render import cpu

        return Raster(*cpu.rasterize_torch(gaussians, camera, screen_gradient))
    if backend == "cuda" and not gaussians.means.is_cuda:
        raise DeviceError(
            "the cuda backend draws tensors that lie on a GPU", "rasterize", "move them, or use backend='cpu'"
        )
    return Raster(*_reference(gaussians, camera, screen_gradient))


def _reference(g: Gaussians, camera: Camera, screen_gradient):
    from vocalface.render import reference

    screen = None
    if screen_gradient is not None:
        screen = screen_gradient.new_zeros(screen_gradient.shape).to(g.means.dtype).requires_grad_()
        screen.register_hook(lambda grad: screen_gradient.add_(grad.to(screen_gradient.dtype)))
    return reference.rasterize(g, camera, screen)


def _map(g: Gaussians, f) -> Gaussians:
    return Gaussians(f(g.means), f(g.quats), f(g.scales), f(g.opacities), f(g.colors))


def check(g: Gaussians, camera: Camera) -> None:
    """Raises ConfigError with expected and actual shapes."""
    n = len(g.means)
    channels = g.colors.shape[-1]
    expected = {"means": (n, 3), "quats": (n, 4), "scales": (n, 3), "opacities": (n,), "colors": (n, channels)}
    for name, shape in expected.items():
        actual = tuple(getattr(g, name).shape)
        if actual != shape:
            raise ConfigError(f"{name} has shape {actual}, expected {shape}", "rasterize", "see types.Gaussians")
    if not 1 <= channels <= 8:
        raise ConfigError(f"{channels} colour channels, expected 1 to 8", "rasterize", "draw them in two passes")
    if camera.world_to_camera is None:
        raise ConfigError("the camera has no pose", "rasterize", "use camera.posed(world_to_camera)")


def composite(face: np.ndarray, face_alpha: np.ndarray, mouth: np.ndarray, mouth_alpha: np.ndarray, behind: np.ndarray):
    """HM-Talker's eq. 10 in NumPy: I = F + (1 - A_f)(M + (1 - A_m) B).

    Args:
        face, mouth: [H, W, 3] float32, premultiplied; face_alpha, mouth_alpha: [H, W]; behind: [H, W, 3] uint8.

    Returns:
        [H, W, 3] uint8.
    """
    out = behind.astype(np.float32)
    out *= (1 - mouth_alpha)[..., None]
    out += mouth * np.float32(255)
    out *= (1 - face_alpha)[..., None]
    out += face * np.float32(255)
    return np.clip(np.rint(out, out=out), 0, 255, out=out).astype(np.uint8)
