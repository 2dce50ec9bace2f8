"""The C++ kernels through ctypes: NumPy forward without torch, a torch autograd function, and the composite."""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from vocalface.errors import DeviceError
from vocalface.render import native
from vocalface.types import Camera, Gaussians

_I = ctypes.c_int
_P = ctypes.c_void_p


@functools.cache
def library() -> ctypes.CDLL:
    lib = native.load("gaussians")
    lib.vf_forward.argtypes = [_I] * 4 + [_P] * 8 + [_I, _P]
    lib.vf_backward.argtypes = [_P] * 15
    lib.vf_free.argtypes = [_P]
    lib.vf_free.restype = None
    lib.vf_composite_u8.argtypes = [ctypes.c_int64] + [_P] * 6 + [_I]
    return lib


def _check(failed: int) -> None:
    if failed:
        raise DeviceError("out of memory, or no thread to be had", "the C++ rasteriser", "draw fewer Gaussians at once")


def _camera(camera: Camera) -> np.ndarray:
    """fx, fy, cx, cy and the pose by rows: [20] float32."""
    pose = camera.world_to_camera
    if not isinstance(pose, np.ndarray) and hasattr(pose, "detach"):
        pose = pose.detach().cpu().numpy()
    head = np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32)
    return np.concatenate([head, np.asarray(pose, np.float32).ravel()])


def _forward(
    n: int, channels: int, camera: Camera, inputs: list[int], image: int, alpha: int, keep: bool
) -> int | None:
    view, kept = _camera(camera), _P()
    _check(
        library().vf_forward(
            n, channels, camera.width, camera.height, view.ctypes.data, *inputs, image, alpha, native.threads(),
            ctypes.byref(kept) if keep else None,
        )
    )  # fmt: skip
    return kept.value


def rasterize(g: Gaussians, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """NumPy in, NumPy out; forward only. Image [H, W, C], alpha [H, W]."""
    arrays = [np.ascontiguousarray(a, np.float32) for a in (g.means, g.quats, g.scales, g.opacities, g.colors)]
    n, channels = arrays[-1].shape
    image = np.empty((camera.height, camera.width, channels), np.float32)
    alpha = np.empty((camera.height, camera.width), np.float32)
    _forward(n, channels, camera, [a.ctypes.data for a in arrays], image.ctypes.data, alpha.ctypes.data, False)
    return image, alpha


class _Kept:
    """Owns what the forward pass keeps for the backward pass."""

    def __init__(self, handle: int | None) -> None:
        self.handle, self.free = handle, library().vf_free

    def __del__(self) -> None:
        self.free(self.handle)


@functools.cache
def _function():
    """The autograd function, made on first use so that NumPy callers never import torch."""
    import torch
    from torch.autograd.function import once_differentiable

    class Rasterize(torch.autograd.Function):
        @staticmethod
        def forward(ctx, means, quats, scales, opacities, colors, camera, screen_gradient):
            given = (means, quats, scales, opacities, colors)
            inputs = [t.detach().float().contiguous() for t in given]
            n, channels = colors.shape
            image = torch.empty((camera.height, camera.width, channels), dtype=torch.float32)
            alpha = torch.empty((camera.height, camera.width), dtype=torch.float32)
            keep = any(ctx.needs_input_grad[:5])
            handle = _forward(
                n, channels, camera, [t.data_ptr() for t in inputs], image.data_ptr(), alpha.data_ptr(), keep
            )
            if keep:
                ctx.kept, ctx.screen_gradient, ctx.dtypes = _Kept(handle), screen_gradient, [t.dtype for t in given]
                ctx.save_for_backward(*inputs, image, alpha)
            return image, alpha

        @staticmethod
        @once_differentiable
        def backward(ctx, g_image, g_alpha):
            *inputs, image, alpha = ctx.saved_tensors
            grads = [torch.zeros_like(t) for t in inputs]
            screen = ctx.screen_gradient
            gi, ga = g_image.contiguous(), g_alpha.contiguous()
            _check(
                library().vf_backward(
                    ctx.kept.handle, *(t.data_ptr() for t in inputs[:4]), image.data_ptr(), alpha.data_ptr(),
                    gi.data_ptr(), ga.data_ptr(), *(g.data_ptr() for g in grads),
                    None if screen is None else screen.data_ptr(),
                )
            )  # fmt: skip
            return *(g.to(kind) for g, kind in zip(grads, ctx.dtypes)), None, None

    return Rasterize


def rasterize_torch(g: Gaussians, camera: Camera, screen_gradient=None):
    """CPU tensors in, float32 CPU tensors out, with gradients.

    Args:
        screen_gradient: contiguous float32 [N, 2] tensor, added to by the backward pass.
    """
    return _function().apply(g.means, g.quats, g.scales, g.opacities, g.colors, camera, screen_gradient)


def composite(face, face_alpha, mouth, mouth_alpha, behind) -> np.ndarray:
    """`render.composite`, threaded. Arrays as there."""
    face, face_alpha = (np.ascontiguousarray(a, np.float32) for a in (face, face_alpha))
    behind = np.ascontiguousarray(behind, np.uint8)
    out = np.empty_like(behind)
    inner = (None, None)
    if mouth is not None:
        mouth, mouth_alpha = (np.ascontiguousarray(a, np.float32) for a in (mouth, mouth_alpha))
        inner = (mouth.ctypes.data, mouth_alpha.ctypes.data)
    _check(
        library().vf_composite_u8(
            face_alpha.size, face.ctypes.data, face_alpha.ctypes.data, *inner, behind.ctypes.data, out.ctypes.data,
            native.threads(),
        )
    )  # fmt: skip
    return out
