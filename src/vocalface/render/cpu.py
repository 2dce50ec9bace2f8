"""The C++ rasteriser through ctypes: NumPy forward without torch, and a torch autograd function."""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from vocalface.render import native
from vocalface.types import Camera, Gaussians

_F = ctypes.c_float
_I = ctypes.c_int
_P = ctypes.c_void_p


@functools.cache
def library() -> ctypes.CDLL:
    lib = native.load("gaussians")
    lib.vf_forward.argtypes = [_I, _I, _I, _I, _F, _F, _F, _F, *[_P] * 8, _I, _I]
    lib.vf_forward.restype = _P
    lib.vf_backward.argtypes = [_P] * 14
    lib.vf_backward.restype = None
    lib.vf_free.argtypes = [_P]
    lib.vf_free.restype = None
    return lib


def _pointer(a: np.ndarray) -> int:
    return a.ctypes.data


def forward(
    arrays: tuple[np.ndarray, ...], camera: Camera, keep: bool = False
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """arrays = means, quats, scales, opacities, colors, all float32 and contiguous. Returns image, alpha, scene."""
    means, _, _, _, colors = arrays
    channels = colors.shape[1]
    image = np.empty((camera.height, camera.width, channels), np.float32)
    alpha = np.empty((camera.height, camera.width), np.float32)
    pose = np.ascontiguousarray(camera.world_to_camera, dtype=np.float32)
    scene = library().vf_forward(
        len(means), channels, camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy, _pointer(pose),
        *(_pointer(a) for a in arrays), _pointer(image), _pointer(alpha), native.threads(), int(keep),
    )  # fmt: skip
    return image, alpha, scene


def rasterize(g: Gaussians, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """NumPy in, NumPy out; forward only."""
    arrays = tuple(np.ascontiguousarray(a, np.float32) for a in (g.means, g.quats, g.scales, g.opacities, g.colors))
    image, alpha, _ = forward(arrays, camera)
    return image, alpha


@functools.cache
def _function():
    """The autograd function, made on first use so that NumPy callers never import torch."""
    import torch
    from torch.autograd.function import once_differentiable

    class Rasterize(torch.autograd.Function):
        @staticmethod
        def forward(ctx, means, quats, scales, opacities, colors, camera, screen_gradient):
            tensors = [t.detach().float().contiguous() for t in (means, quats, scales, opacities, colors)]
            keep = any(ctx.needs_input_grad[:5])
            image, alpha, scene = forward(tuple(t.numpy() for t in tensors), camera, keep)
            ctx.scene = Scene(scene) if keep else None
            ctx.arrays = (tensors, image, alpha)
            ctx.screen_gradient = screen_gradient
            return torch.from_numpy(image), torch.from_numpy(alpha)

        @staticmethod
        @once_differentiable
        def backward(ctx, g_image, g_alpha):
            tensors, image, alpha = ctx.arrays
            grads = [torch.zeros_like(t) for t in tensors]
            gi, ga = g_image.contiguous().float(), g_alpha.contiguous().float()
            screen = ctx.screen_gradient
            _, quats, scales, _, colors = (t.data_ptr() for t in tensors)
            library().vf_backward(
                ctx.scene.handle, quats, scales, colors, _pointer(image), _pointer(alpha), gi.data_ptr(), ga.data_ptr(),
                *(g.data_ptr() for g in grads), None if screen is None else screen.data_ptr(),
            )  # fmt: skip
            return *grads, None, None

    return Rasterize


class Scene:
    """Owns what the forward pass kept for the backward pass."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __del__(self) -> None:
        library().vf_free(self.handle)


def rasterize_torch(g: Gaussians, camera: Camera, screen_gradient=None):
    """CPU tensors in, CPU tensors out, with gradients."""
    return _function().apply(g.means, g.quats, g.scales, g.opacities, g.colors, camera, screen_gradient)
