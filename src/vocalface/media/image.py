"""Still pictures and the geometry of crops."""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation

from vocalface.errors import MediaError, OutputError
from vocalface.types import CropBox


def read_image(path: Path | str, alpha: bool = False) -> np.ndarray:
    """[H, W, 3] uint8 RGB (EXIF rotation honoured), or [H, W, 4] with `alpha`. Raises MediaError."""
    from vocalface.media.clip import open_container

    with open_container(path) as container:
        if not container.streams.video:
            raise MediaError("no picture in this file", path, "give a PNG or JPEG")
        try:
            frame = next(container.decode(video=0))
        except (StopIteration, av.FFmpegError) as error:
            raise MediaError("the picture cannot be read (damaged)", path, "save it as PNG") from error
        image = frame.reformat(format="rgba" if alpha else "rgb24").to_ndarray()
        turn = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, turn)) if turn else image


def encode_image(image: np.ndarray, suffix: str = ".png", quality: int = 2) -> bytes:
    """Gray [H, W], RGB [H, W, 3] or RGBA [H, W, 4] uint8 to PNG or JPEG bytes."""
    image = np.ascontiguousarray(image)
    kind = {2: "gray", 3: "rgb24"}.get(image.ndim if image.ndim == 2 else image.shape[2], "rgba")
    frame = av.VideoFrame.from_ndarray(image, format=kind)
    jpeg = suffix.lower() in (".jpg", ".jpeg")
    codec = av.CodecContext.create("mjpeg" if jpeg else "png", "w")
    codec.width, codec.height = image.shape[1], image.shape[0]
    codec.pix_fmt = "yuvj444p" if jpeg else kind
    codec.time_base = Fraction(1, 25)
    if jpeg:
        codec.qmin = codec.qmax = quality
        frame = frame.reformat(format="yuvj444p")
    packets = codec.encode(frame) + codec.encode(None)
    return b"".join(bytes(p) for p in packets)


def write_image(path: Path | str, image: np.ndarray) -> Path:
    """PNG or JPEG by the suffix, written whole or not at all."""
    path = Path(path)
    data = encode_image(image, path.suffix)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"cannot write the picture: {error.strerror}", path, "choose another folder") from error
    return path


# ---------------------------------------------------------------------------------------------------------------- crop
def crop(image: np.ndarray, box: CropBox, size: int) -> np.ndarray:
    """The square `box` of an image [H, W] or [H, W, C] uint8, resampled to [size, size(, C)]; edges repeat.

    Antialiased: area when shrinking, cubic when enlarging, at the box's exact (fractional) place.
    """
    gray = image.ndim == 2
    if gray:
        image = image[..., None]
    h, w, c = image.shape
    integral = all(float(v).is_integer() for v in (box.x, box.y, box.side))
    if integral and box.side == size and box.x >= 0 and box.y >= 0 and box.x + size <= w and box.y + size <= h:
        out = image[int(box.y) : int(box.y) + size, int(box.x) : int(box.x) + size].copy()
    elif integral and c in (1, 3):
        out = _swscale(_cut(image, int(box.x), int(box.y), int(box.side)), size, size)
    else:
        rows, columns = _weights(box.y, box.side, size, h), _weights(box.x, box.side, size, w)
        mid = (rows @ image.reshape(h, w * c).astype(np.float32)).reshape(size, w, c)
        out = (columns @ mid.transpose(1, 0, 2).reshape(w, size * c)).reshape(size, size, c).transpose(1, 0, 2)
        out = np.clip(np.rint(out), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(out[..., 0] if gray else out)


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """[H, W] or [H, W, 3] uint8 to another size, antialiased."""
    gray = image.ndim == 2
    out = _swscale(image[..., None] if gray else image, width, height)
    return out[..., 0] if gray else out


def _cut(image: np.ndarray, x: int, y: int, side: int) -> np.ndarray:
    h, w = image.shape[:2]
    rows, columns = np.clip(np.arange(y, y + side), 0, h - 1), np.clip(np.arange(x, x + side), 0, w - 1)
    if x >= 0 and y >= 0 and x + side <= w and y + side <= h:
        return np.ascontiguousarray(image[y : y + side, x : x + side])
    return np.ascontiguousarray(image[rows][:, columns])


def _swscale(image: np.ndarray, width: int, height: int) -> np.ndarray:
    gray = image.shape[2] == 1
    kind = "gray" if gray else "rgb24"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[..., 0] if gray else image), format=kind)
    shrink = width < image.shape[1]
    how = Interpolation.AREA if shrink else Interpolation.BICUBIC
    out = frame.reformat(width=width, height=height, format=kind, interpolation=how).to_ndarray()
    return out[..., None] if gray else out


@functools.lru_cache(maxsize=64)
def _weights(start: float, side: float, size: int, length: int):
    """Sparse [size, length] resampling matrix of one axis; rows sum to 1."""
    from scipy.sparse import csr_matrix

    scale = side / size
    centre = start + (np.arange(size) + 0.5) * scale  # source coordinate of each output centre
    radius = max(1.0, scale) * 2
    first = np.floor(centre - radius).astype(int)
    taps = int(np.ceil(2 * radius)) + 2
    index = first[:, None] + np.arange(taps)
    t = np.abs(index + 0.5 - centre[:, None]) / max(1.0, scale)
    cubic = np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))
    cubic /= cubic.sum(1, keepdims=True)
    rows = np.repeat(np.arange(size), taps)
    columns = np.clip(index, 0, length - 1).ravel()
    return csr_matrix((cubic.ravel().astype(np.float32), (rows, columns)), shape=(size, length))


def paste_back(frame: np.ndarray, image: np.ndarray, box: CropBox, mask: np.ndarray | float = 0.04) -> np.ndarray:
    """`image` [S, S, 3] (a crop of `box`) put into `frame` [H, W, 3]; returns a new frame.

    Args:
        mask: [S, S] float in [0, 1], or the width of a feathered rim as a share of the side.
    """
    x, y, side = round(box.x), round(box.y), round(box.side)
    patch = _swscale(image, side, side).astype(np.float32)
    if isinstance(mask, np.ndarray):
        weight = _swscale((mask * 255).astype(np.uint8)[..., None], side, side)[..., 0].astype(np.float32) / 255
    else:
        rim = np.clip((np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5) / max(mask * side, 1), 0, 1)
        rim = rim * rim * (3 - 2 * rim)
        weight = np.minimum.outer(rim, rim).astype(np.float32)
    h, w = frame.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + side, w), min(y + side, h)
    out = frame.copy()
    if x0 < x1 and y0 < y1:
        part = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
        a = weight[part][..., None]
        old = out[y0:y1, x0:x1].astype(np.float32)
        out[y0:y1, x0:x1] = np.rint(old + a * (patch[part] - old)).clip(0, 255).astype(np.uint8)
    return out
