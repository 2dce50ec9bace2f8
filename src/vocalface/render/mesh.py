"""Textured triangle meshes to pixels: a z-buffer with supersampling, perspective-correct throughout.

Convention: camera coordinates in OpenCV axes (x right, y down, z forward), metres; pixel (i, j) spans [i, i+1), its
centre is at +0.5. A sample belongs to a triangle when all three weights are >= -1e-5; the nearest triangle wins, the
earlier one on a tie. A triangle with a vertex at z <= 0.01 m is dropped. Both sides of a triangle are drawn.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vocalface.errors import ConfigError
from vocalface.render import native
from vocalface.types import Camera

LABELS = 32
"""Labels are below this."""


@dataclass(frozen=True)
class MeshRaster:
    """A drawn mesh."""

    color: np.ndarray  # [H, W, 3] float32, premultiplied by alpha, of the kept labels
    alpha: np.ndarray  # [H, W] float32, share of the samples whose label is kept
    labels: np.ndarray  # [H, W] uint8, the label of most samples; 0 where most see nothing
    depth: np.ndarray  # [H, W] float32, metres to the nearest sample; 0 where nothing is


def render_mesh(
    vertices: np.ndarray, faces: np.ndarray, camera: Camera, *,
    light: np.ndarray | None = None, gloss: np.ndarray | None = None,
    uv: np.ndarray | None = None, texture: np.ndarray | None = None,
    cutout: np.ndarray | None = None, face_labels: np.ndarray | None = None, keep: Iterable[int] | None = None,
    samples: int = 2, encode: bool = True, backend: str = "auto", threads: int | None = None,
) -> MeshRaster:  # fmt: skip
    """Draw a mesh.

    A sample's linear colour is texture(uv)^2 * light + gloss; with `encode` its square root, clipped to [0, 1], is
    averaged over the pixel (gamma 2 stands in for sRGB: it is exact in every backend).

    Args:
        vertices: [V, 3] world coordinates, or camera coordinates when `camera` has no pose.
        faces: [F, 3] vertex indices.
        light: [V, 3] factor on the texture, linear; ones by default. Without a texture it is the colour.
        gloss: [V, 3] added, linear.
        uv: [V, 2] texture coordinates, texels: (0, 0) is the corner of texel (0, 0).
        texture: [h, w, 4] uint8, gamma 2; bilinear, edges repeat.
        cutout: [F] bool, faces whose samples are left out where the nearest texel's alpha is below 128; default all.
        face_labels: [F] < 32; 1 by default.
        keep: labels that count in colour and alpha; all by default.
        samples: per axis of a pixel.
        backend: auto, cpu (C++) or reference (NumPy).

    Raises:
        ConfigError: arrays that do not fit. DeviceError: backend "cpu" without its library.
    """
    vertices = np.ascontiguousarray(vertices, np.float32)
    faces = np.ascontiguousarray(faces, np.int32)
    if camera.world_to_camera is not None:
        pose = np.asarray(camera.world_to_camera, np.float32)
        vertices = vertices @ pose[:3, :3].T + pose[:3, 3]
    light = _array("light", np.ones_like(vertices) if light is None else light, np.float32, (len(vertices), 3))
    gloss = None if gloss is None else _array("gloss", gloss, np.float32, (len(vertices), 3))
    if face_labels is None:
        face_labels = np.ones(len(faces), np.uint8)
    face_labels = _array("face_labels", face_labels, np.uint8, (len(faces),))
    cutout = np.ones(len(faces)) if cutout is None else cutout
    cutout = _array("cutout", cutout, np.uint8, (len(faces),))
    if (uv is None) != (texture is None):
        raise ConfigError("uv and texture go together", "render_mesh", "give both or neither")
    if texture is not None:
        uv = _array("uv", uv, np.float32, (len(vertices), 2))
        texture = np.ascontiguousarray(texture, np.uint8)
        if texture.ndim != 3 or texture.shape[2] != 4:
            raise ConfigError(f"texture has shape {texture.shape}, expected (h, w, 4)", "render_mesh", "add an alpha")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ConfigError(f"a face names a vertex outside [0, {len(vertices)})", "render_mesh", "check the faces")
    mask = 0xFFFFFFFF if keep is None else sum(1 << int(label) for label in keep)
    if backend == "auto":
        backend = "cpu" if native.available("mesh") else "reference"
    scene = (vertices, faces, face_labels, light, gloss, uv, cutout, texture)
    if backend == "cpu":
        return _cpu(*scene, camera, samples, mask, encode, threads or native.threads())
    if backend == "reference":
        from vocalface.render import mesh_reference

        return MeshRaster(*mesh_reference.render(*scene, camera, samples, mask, encode))
    raise ConfigError(f"unknown backend {backend!r}", "render_mesh", "use auto, cpu or reference")


def warp(
    vertices: np.ndarray, faces: np.ndarray, camera: Camera, *, uv: np.ndarray, texture: np.ndarray,
    under: np.ndarray, backend: str = "auto", threads: int | None = None,
) -> np.ndarray:  # fmt: skip
    """A picture drawn on a moving mesh, over another picture: no light, one sample a pixel, several times as fast as
    `render_mesh`.

    Args:
        vertices: [V, 3] camera coordinates; faces: [F, 3]; uv: [V, 2] texels, as of `render_mesh`.
        texture: [H, W, 4] uint8, the camera's size; bilinear. Its alpha lays it over `under`, which is seen
            alone where no triangle is.
        under: [H, W, 3] uint8.
        backend: auto, cpu (C++) or reference (NumPy).

    Returns:
        [H, W, 3] uint8.

    Raises:
        ConfigError: arrays that do not fit. DeviceError: backend "cpu" without its library.
    """
    size = (camera.height, camera.width)
    if min(size) < 2:
        raise ConfigError(f"a picture of {size[1]}x{size[0]} px", "warp", "give one of 2 px or more")
    vertices = np.ascontiguousarray(vertices, np.float32)
    faces = np.ascontiguousarray(faces, np.int32)
    uv = _array("uv", uv, np.float32, (len(vertices), 2))
    texture = _array("texture", texture, np.uint8, (*size, 4))
    under = _array("under", under, np.uint8, (*size, 3))
    if backend == "auto":
        backend = "cpu" if native.available("mesh") else "reference"
    if backend == "reference":
        from vocalface.render import mesh_reference

        return mesh_reference.warp(vertices, faces, uv, texture, under, camera)
    if backend != "cpu":
        raise ConfigError(f"unknown backend {backend!r}", "warp", "use auto, cpu or reference")
    out = np.empty((*size, 3), np.uint8)
    floats = [ctypes.c_float(f) for f in (camera.fx, camera.fy, camera.cx, camera.cy)]
    wrong = native.load("mesh").vf_mesh_warp(
        _pointer(vertices), len(vertices), _pointer(faces), len(faces), _pointer(uv), _pointer(texture),
        _pointer(under), *floats, camera.width, camera.height, threads or native.threads(), _pointer(out),
    )  # fmt: skip
    if wrong:
        raise ConfigError(f"a face names a vertex outside [0, {len(vertices)})", "warp", "check the faces")
    return out


def _array(name: str, values: np.ndarray, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    values = np.ascontiguousarray(values, dtype)
    if values.shape != shape:
        raise ConfigError(f"{name} has shape {values.shape}, expected {shape}", "render_mesh", "see its docstring")
    return values


def _pointer(values: np.ndarray | None):
    return None if values is None else values.ctypes.data_as(ctypes.c_void_p)


def _cpu(
    vertices, faces, labels, light, gloss, uv, cutout, texture, camera, samples, mask, encode, threads
) -> MeshRaster:
    height, width = camera.height, camera.width
    out = MeshRaster(
        np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32),
        np.empty((height, width), np.uint8), np.empty((height, width), np.float32),
    )  # fmt: skip
    rows, columns = (0, 0) if texture is None else texture.shape[:2]
    draw = native.load("mesh").vf_mesh_render
    floats = [ctypes.c_float(f) for f in (camera.fx, camera.fy, camera.cx, camera.cy)]
    draw(
        _pointer(vertices), len(vertices), _pointer(faces), _pointer(labels), len(faces),
        _pointer(light), _pointer(gloss), _pointer(uv), _pointer(cutout), _pointer(texture), rows, columns,
        *floats, width, height, samples, ctypes.c_uint32(mask), int(encode), threads,
        _pointer(out.color), _pointer(out.alpha), _pointer(out.labels), _pointer(out.depth),
    )  # fmt: skip
    return out
