"""The geometry of crops: cut a square, resample it, put it back.

Convention: pixel (i, j) spans [i, i + 1); a box at x = 2.5 begins in the middle of the third column.
"""

from __future__ import annotations

import functools
import threading

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vocalface.media.container import AREA, BICUBIC, EXACT
from vocalface.types import CropBox


def crop(image: np.ndarray, box: CropBox, size: int) -> np.ndarray:
    """The square `box` of an image [H, W] or [H, W, C] uint8, resampled to [size, size(, C)]; edges repeat.

    Area means when shrinking, cubic when enlarging; exact in place, also for a box between pixels.
    """
    whole = all(float(v).is_integer() for v in (box.x, box.y, box.side))
    if whole:
        return resize(_cut(image, int(box.x), int(box.y), int(box.side)), size, size)
    return _resample(image, (box.y, box.side, size), (box.x, box.side, size))


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """[H, W] or [H, W, C] uint8 to another size: area means when shrinking, cubic when enlarging."""
    h, w = image.shape[:2]
    if (w, h) == (width, height):
        return image.copy()
    kind = {2: "gray"}.get(image.ndim) or {3: "rgb24", 4: "rgba"}.get(image.shape[2])
    if kind is None:
        return _resample(image, (0, h, height), (0, w, width))
    how = AREA if width * height < w * h else BICUBIC
    out = _scaler((kind, w, h, width, height)).reformat(
        _wrap(image, kind), width=width, height=height, format=kind, interpolation=how | EXACT
    )
    return out.to_ndarray()


def _wrap(image: np.ndarray, kind: str) -> av.VideoFrame:
    """A frame over the array's own memory, also where it is a part of a larger picture; a copy where that fails."""
    try:
        return av.VideoFrame.from_numpy_buffer(image, format=kind)
    except ValueError:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=kind)


_scalers = threading.local()


def _scaler(key: tuple) -> VideoReformatter:
    """swscale's tables for one pair of sizes, kept by each thread for the next frame."""
    kept = _scalers.__dict__.setdefault("kept", {})
    if key not in kept and len(kept) >= 16:
        kept.pop(next(iter(kept)))
    return kept.setdefault(key, VideoReformatter())


def over(top: np.ndarray, below: np.ndarray | int, alpha: np.ndarray) -> np.ndarray:
    """`top` laid over `below` by its straight alpha, rounded to nearest.

    Args:
        top: [H, W, 3] uint8; below: the same, one colour [3] or a grey level; alpha: [H, W] uint8.
    """
    out = np.empty_like(top)
    out[...] = below
    seen = np.flatnonzero(alpha.any(tuple(range(1, alpha.ndim))))
    if len(seen):
        rows = slice(seen[0], seen[-1] + 1)
        a = np.repeat(alpha[rows], 3, axis=-1).reshape(out[rows].shape)  # broadcasting would take three times as long
        mixed = np.multiply(top[rows], a, dtype=np.uint16)  # 16 bits hold every product
        mixed += np.multiply(out[rows], 255 - a, dtype=np.uint16)
        mixed += 128
        mixed += mixed >> 8
        mixed >>= 8  # x / 255 to nearest, for every such x
        out[rows] = mixed
    return out


def paste_back(frame: np.ndarray, image: np.ndarray, box: CropBox, mask: np.ndarray | float = 0.04) -> np.ndarray:
    """`image` [S, S, 3] (a crop of `box`) put into `frame` [H, W, 3] uint8; returns a new frame.

    Args:
        mask: [S, S] weights, float in [0, 1] or uint8, or the width of a feathered rim as a share of the side.
    """
    h, w = frame.shape[:2]
    x0, y0 = max(int(np.ceil(box.x)), 0), max(int(np.ceil(box.y)), 0)
    x1, y1 = min(int(box.x + box.side), w), min(int(box.y + box.side), h)
    out = frame.copy()
    if x0 >= x1 or y0 >= y1:
        return out
    patch = _place(image, box, x0, y0, x1, y1)
    if isinstance(mask, np.ndarray):
        weights = mask if mask.dtype == np.uint8 else (np.clip(mask, 0, 1) * 255).round().astype(np.uint8)
        _blend_mask(out[y0:y1, x0:x1], patch, _place(weights, box, x0, y0, x1, y1))
        return out
    down, across = (_rim(a, b, low, box.side, mask) for a, b, low in ((y0, y1, box.y), (x0, x1, box.x)))
    # inside the rim the patch stands alone, so only four strips are blended
    top, bottom = _solid(down)
    left, right = _solid(across)
    spot = out[y0:y1, x0:x1]
    spot[top:bottom, left:right] = patch[top:bottom, left:right]
    for part in (np.s_[:top, :], np.s_[bottom:, :], np.s_[top:bottom, :left], np.s_[top:bottom, right:]):
        weights = np.minimum(down[part[0], None], across[None, part[1]])
        spot[part] = over(patch[part], spot[part], weights)
    return out


def _cut(image: np.ndarray, x: int, y: int, side: int) -> np.ndarray:
    h, w = image.shape[:2]
    if x >= 0 and y >= 0 and x + side <= w and y + side <= h:
        return image[y : y + side, x : x + side]
    x0, y0, x1, y1 = (int(np.clip(v, 0, n)) for v, n in ((x, w - 1), (y, h - 1), (x + side, w), (y + side, h)))
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    before, after = (y0 - y, x0 - x), (y + side - y1, x + side - x1)
    if min(*before, *after) < 0:  # the box lies wholly outside
        rows, columns = np.clip(np.arange(y, y + side), 0, h - 1), np.clip(np.arange(x, x + side), 0, w - 1)
        return image[rows][:, columns]
    pad = [(before[0], after[0]), (before[1], after[1])] + [(0, 0)] * (image.ndim - 2)
    return np.pad(image[y0:y1, x0:x1], pad, mode="edge")


def _place(image: np.ndarray, box: CropBox, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """The pixels [y0, y1) x [x0, x1) of the frame, taken from a crop of `box`."""
    if all(float(v).is_integer() for v in (box.x, box.y, box.side)):
        whole = resize(image, int(box.side), int(box.side))
        x, y = int(box.x), int(box.y)
        return whole[y0 - y : y1 - y, x0 - x : x1 - x]
    k = image.shape[0] / box.side
    return _resample(
        image, ((y0 - box.y) * k, (y1 - y0) * k, y1 - y0), ((x0 - box.x) * k, (x1 - x0) * k, x1 - x0)
    )  # fmt: skip


def _rim(first: int, last: int, low: float, side: float, share: float) -> np.ndarray:
    """[last - first] uint8 weights along one side: smooth from the box's edge to 255 at `share` of it."""
    at = np.arange(first, last) + 0.5 - low
    t = np.clip(np.minimum(at, side - at) / max(share * side, 1.0), 0, 1)
    return (t * t * (3 - 2 * t) * 255).round().astype(np.uint8)


def _solid(weights: np.ndarray) -> tuple[int, int]:
    full = np.flatnonzero(weights == 255)
    return (int(full[0]), int(full[-1]) + 1) if len(full) else (len(weights), len(weights))


def _blend_mask(old: np.ndarray, new: np.ndarray, mask: np.ndarray) -> None:
    """`new` over `old` in place where most of the mask is 0 or 255: only its soft edge is computed."""
    np.copyto(old, new, where=(mask == 255)[..., None])
    soft = np.nonzero((mask > 0) & (mask < 255))
    old[soft] = over(new[soft], old[soft], mask[soft])


# ------------------------------------------------------------------------------------------------------ between pixels
def _resample(image: np.ndarray, down: tuple[float, float, int], across: tuple[float, float, int]) -> np.ndarray:
    """Rows and columns given as (start, span, count) in the image's px; edges repeat."""
    flat = image[..., None] if image.ndim == 2 else image
    (rows, y0, y1), (columns, x0, x1) = _weights(*down, flat.shape[0]), _weights(*across, flat.shape[1])
    part = flat[y0:y1, x0:x1].astype(np.float32)
    h, w, c = part.shape
    mid = (rows @ part.reshape(h, w * c)).reshape(-1, w, c).transpose(1, 0, 2)
    out = (columns @ np.ascontiguousarray(mid).reshape(w, -1)).reshape(across[2], down[2], c).transpose(1, 0, 2)
    out = np.ascontiguousarray(np.clip(np.rint(out), 0, 255).astype(np.uint8))
    return out[..., 0] if image.ndim == 2 else out


@functools.lru_cache(maxsize=64)
def _weights(start: float, span: float, count: int, length: int):
    """Sparse resampling matrix [count, last - first] of one axis, rows sum to 1; and first, last."""
    from scipy.sparse import csr_matrix

    scale = span / count
    centre = start + (np.arange(count) + 0.5) * scale  # source coordinate of each output pixel's centre
    reach = scale / 2 + 0.5 if scale > 1 else 2.0
    index = np.floor(centre - reach + 0.5).astype(int)[:, None] + np.arange(int(np.ceil(2 * reach)) + 1)
    t = np.abs(index + 0.5 - centre[:, None])
    if scale > 1:
        weights = np.clip(reach - t, 0, 1)  # how much of the pixel lies within the output pixel
    else:
        near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2  # Keys' cubic
        weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    weights /= weights.sum(1, keepdims=True)
    row, tap = np.nonzero(weights)
    index = np.clip(index, 0, length - 1)
    first, last = int(index.min()), int(index.max()) + 1
    places = (row, index[row, tap] - first)
    return csr_matrix((weights[row, tap].astype(np.float32), places), (count, last - first)), first, last
