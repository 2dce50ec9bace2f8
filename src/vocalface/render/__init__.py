"""Gaussians and meshes to pixels. The PyTorch reference is the specification; fast backends pass its suite."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from vocalface.errors import ConfigError, DeviceError
from vocalface.render import native
from vocalface.types import Camera, Gaussians

__all__ = ["BACKENDS", "Raster", "backends", "composite", "rasterize"]

BACKENDS = ("reference", "cpu", "cuda")
LARGEST = 16384  # px


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
        backend: auto, reference, cpu or cuda (the reference on the GPU). `auto` follows the tensors' device, and
            falls back on the reference where the C++ is not built.
        screen_gradient: float32 [N, 2] tensor into which the backward pass adds dL/d(2-D mean), px.

    Raises:
        ConfigError: shapes that do not fit, or an unknown backend. DeviceError: a backend that this machine lacks.
    """
    check(gaussians, camera)
    if backend not in ("auto", *BACKENDS):
        raise ConfigError(f"unknown backend {backend!r}", "rasterize", f"use auto, {', '.join(BACKENDS)}")
    if isinstance(gaussians.means, np.ndarray):
        return _rasterize_numpy(gaussians, camera, backend)
    device = gaussians.means.device.type
    if backend == "auto":
        backend = device if device == "cuda" else "cpu" if device == "cpu" and native.available() else "reference"
    if backend in ("cpu", "cuda") and device != backend:
        raise DeviceError(
            f"the {backend} backend draws tensors on {backend}, these are on {device}",
            "rasterize",
            f"move them, or use backend='{device if device in BACKENDS else 'reference'}'",
        )
    if screen_gradient is not None:
        _check_screen(screen_gradient, gaussians)
    if backend == "cpu":
        from vocalface.render import cpu

        return Raster(*cpu.rasterize_torch(gaussians, camera, screen_gradient))
    return Raster(*_reference(gaussians, camera, screen_gradient))


def _rasterize_numpy(g: Gaussians, camera: Camera, backend: str) -> Raster:
    if backend == "cpu" or (backend == "auto" and native.available()):
        from vocalface.render import cpu

        return Raster(*cpu.rasterize(g, camera))
    import torch

    if backend == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device", "rasterize", "use backend='cpu' (VOCALFACE_CPU picks its variant)")
    place = "cuda" if backend == "cuda" else "cpu"
    g = _map(g, lambda a: torch.from_numpy(np.ascontiguousarray(a, np.float32)).to(place))
    with torch.no_grad():
        image, alpha = _reference(g, camera, None)
    return Raster(image.cpu().numpy(), alpha.cpu().numpy())


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
    if not (1 <= camera.width <= LARGEST and 1 <= camera.height <= LARGEST):
        raise ConfigError(
            f"an image of {camera.width} x {camera.height}, expected 1 to {LARGEST} each way", "rasterize", "scale it"
        )
    if camera.world_to_camera is None:
        raise ConfigError("the camera has no pose", "rasterize", "use camera.posed(world_to_camera)")
    if tuple(camera.world_to_camera.shape) != (4, 4):
        raise ConfigError(
            f"the pose has shape {tuple(camera.world_to_camera.shape)}, expected (4, 4)",
            "rasterize",
            "see types.Camera",
        )


def _check_screen(screen, g: Gaussians) -> None:
    import torch

    if tuple(screen.shape) != (len(g), 2) or screen.dtype != torch.float32 or not screen.is_contiguous():
        raise ConfigError(
            f"screen_gradient is {screen.dtype} {tuple(screen.shape)}, expected contiguous float32 ({len(g)}, 2)",
            "rasterize", "torch.zeros(len(gaussians), 2)",
        )  # fmt: skip


def composite(
    face: np.ndarray,
    face_alpha: np.ndarray,
    mouth: np.ndarray | None,
    mouth_alpha: np.ndarray | None,
    behind: np.ndarray,
) -> np.ndarray:
    """HM-Talker's eq. 10 in NumPy: I = F + (1 - A_f)(M + (1 - A_m) B), clipped to [0, 1] and rounded to 8 bits.

    Args:
        face, mouth: [H, W, 3] float32, premultiplied; face_alpha, mouth_alpha: [H, W]; behind: [H, W, 3] uint8.
            Without a mouth (None, None) it is F + (1 - A_f) B.

    Returns:
        [H, W, 3] uint8.

    Raises:
        ConfigError: shapes that do not fit.
    """
    layers = [("face", face, 3), ("face_alpha", face_alpha, 0)]
    if mouth is not None:
        layers += [("mouth", mouth, 3), ("mouth_alpha", mouth_alpha, 0)]
    for name, layer, channels in layers:
        shape = behind.shape if channels else behind.shape[:2]
        if layer is None or layer.shape != shape:
            actual = None if layer is None else layer.shape
            raise ConfigError(
                f"{name} has shape {actual}, expected {shape}", "composite", "draw every layer at one size"
            )
    if native.available():
        from vocalface.render import cpu

        return cpu.composite(face, face_alpha, mouth, mouth_alpha, behind)
    out = behind.astype(np.float32)
    if mouth is not None:
        out *= (1 - mouth_alpha)[..., None]
        out += mouth * np.float32(255)
    out *= (1 - face_alpha)[..., None]
    out += face * np.float32(255)
    return np.clip(out + np.float32(0.5), 0, 255, out=out).astype(np.uint8)
