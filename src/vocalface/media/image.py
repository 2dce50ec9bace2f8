"""Still pictures in and out."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vocalface.errors import ConfigError, MediaError, OutputError
from vocalface.media.container import BICUBIC, EXACT, Converter, decode, open_container, orientation

KINDS = {1: "gray", 3: "rgb24", 4: "rgba"}
ORIENTATIONS = {  # EXIF's numbers as (x, y) stored -> shown
    1: ((1, 0), (0, 1)), 2: ((-1, 0), (0, 1)), 3: ((-1, 0), (0, -1)), 4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)), 6: ((0, 1), (-1, 0)), 7: ((0, -1), (-1, 0)), 8: ((0, -1), (1, 0)),
}  # fmt: skip
SUFFIXES = (".png", ".jpg", ".jpeg")


LARGEST = 16384  # px, longer side: more is no picture to work on


def read_image(path: Path | str, alpha: bool = False, reduce_to: int | None = None) -> np.ndarray:
    """[H, W, 3] uint8 RGB (EXIF orientation honoured), or [H, W, 4] with `alpha`.

    Args:
        reduce_to: px; a picture with a longer side is reduced before it is converted, which keeps memory small.

    Raises:
        MediaError: not a picture, a damaged one, or one over 16,384 px.
    """
    with open_container(path) as container:
        if not container.streams.video:
            raise MediaError("no picture in this file", path, "give a PNG or JPEG")
        wide = max(container.streams.video[0].codec_context.width, container.streams.video[0].codec_context.height)
        if wide > LARGEST:
            raise MediaError(f"the picture has {wide} px on a side", path, f"make it at most {LARGEST} px")
        frame = next(decode(container, container.streams.video[0]), None)
        if frame is None:
            raise MediaError("the picture cannot be read (damaged)", path, "save it as PNG")
        turn = ORIENTATIONS.get(_exif_orientation(Path(path)))
        turn = orientation(frame) if turn is None else np.array(turn)
        share = min(1.0, (reduce_to or LARGEST) / max(frame.width, frame.height))
        if share < 1:
            side = (max(round(frame.width * share), 1), max(round(frame.height * share), 1))
            frame = frame.reformat(*side, interpolation="AREA")
        return Converter(frame.width, frame.height, turn, "rgba" if alpha else "rgb24")(frame)


def _exif_orientation(path: Path) -> int | None:
    """The orientation tag of a JPEG's EXIF block, 1 to 8 (TIFF 6.0, tag 274); None where there is none."""
    with path.open("rb") as file:
        data = file.read(1 << 17)
    at = 2
    while data[:2] == b"\xff\xd8" and at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return _tiff_orientation(data[at + 10 : at + 2 + size])
        at += 2 + size
    return None


def _tiff_orientation(tiff: bytes) -> int | None:
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        for k in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, first + 2 + 12 * k)
            if tag == 274:
                return value
    except struct.error:  # cut short: as if it were not there
        pass
    return None


def encode_image(image: np.ndarray, suffix: str = ".png", quality: int = 2) -> bytes:
    """Gray [H, W], RGB [H, W, 3] or RGBA [H, W, 4] uint8 to PNG or JPEG bytes (a JPEG has no alpha).

    Args:
        quality: of a JPEG, 1 (best) to 31.

    Raises:
        ConfigError: another file type, or no picture's shape.
    """
    if suffix.lower() not in SUFFIXES:
        raise ConfigError(f"pictures are not written as {suffix or 'this file type'}", suffix, "use .png or .jpg")
    kind = KINDS.get(1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 and image.shape[-1] > 1 else 0)
    if kind is None or image.dtype != np.uint8:
        shape = f"{image.dtype} {list(image.shape)}"
        raise ConfigError(f"{shape} is no picture", "encode_image", "give uint8 [H, W], [H, W, 3] or [H, W, 4]")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=kind)
    jpeg = suffix.lower() != ".png"
    codec = av.CodecContext.create("mjpeg" if jpeg else "png", "w")
    codec.width, codec.height = image.shape[1], image.shape[0]
    codec.pix_fmt = "yuvj444p" if jpeg else kind
    codec.time_base = Fraction(1, 25)
    if jpeg:
        codec.qmin = codec.qmax = quality
        frame = frame.reformat(format="yuvj444p", interpolation=BICUBIC | EXACT)
    return b"".join(bytes(p) for p in [*codec.encode(frame), *codec.encode(None)])


def decode_image(data: bytes) -> np.ndarray:
    """What `encode_image` made of an RGB picture, a JPEG or a PNG, back to [H, W, 3] uint8. Raises MediaError."""
    codec = av.CodecContext.create("png" if data[:4] == b"\x89PNG" else "mjpeg", "r")
    try:
        frames = [*codec.decode(av.Packet(data)), *codec.decode(None)]
    except av.FFmpegError as error:
        raise MediaError("not a picture", f"{len(data)} bytes", "make the file again") from error
    if not frames:
        raise MediaError("not a whole picture", f"{len(data)} bytes", "make the file again")
    return frames[0].reformat(format="rgb24", interpolation=BICUBIC | EXACT).to_ndarray()


def write_image(path: Path | str, image: np.ndarray) -> Path:
    """PNG or JPEG by the suffix, written whole or not at all. Raises OutputError, ConfigError."""
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
