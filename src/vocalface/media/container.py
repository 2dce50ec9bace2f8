"""Opening media files and turning stored frames into upright RGB: what every reader of this room shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vocalface.errors import MediaError

FIX = "give a sound or video file that a player can play"

# swscale's flags. Its fast YUV-to-RGB path rounds down (1.2 levels too dark on average) and its RGB input path
# drops every other chroma column, hence the last three.
BILINEAR, BICUBIC, AREA = 0x2, 0x4, 0x20
FULL_CHROMA_OUT, FULL_CHROMA_IN, ACCURATE = 0x2000, 0x4000, 0x40000
EXACT = FULL_CHROMA_OUT | FULL_CHROMA_IN | ACCURATE

BT709, BT601, BT2020 = 1, 5, 9  # swscale's matrices
ATTACHED = 0x400  # the disposition of a cover picture
HD = 720  # lines from which players take untagged video for BT.709


def open_container(path: Path | str) -> av.container.InputContainer:
    """Open any media file. Raises MediaError for what is absent, empty, or not media."""
    path = Path(path)
    if path.is_dir():
        raise MediaError("a folder, not a media file", path, FIX)
    if not path.exists():
        raise MediaError("no such file", path, "check the path")
    try:
        if not path.stat().st_size:
            raise MediaError("the file is empty", path, FIX)
        return av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, PermissionError):
            raise MediaError("the file may not be read", path, f"chmod +r {path}") from error
        reason = error.strerror or type(error).__name__
        raise MediaError(f"not a media file, or cut off before its index ({reason})", path, FIX) from error


def picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first stream of moving pictures; the cover of a song is none."""
    for stream in container.streams.video:
        if not stream.disposition.value & ATTACHED:
            return stream
    return None


def decode(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator:
    """Frames of one stream; damaged packets are passed over, a file that breaks off ends there."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        yield from frames


def orientation(frame: av.VideoFrame) -> np.ndarray:
    """The display matrix's linear part [2, 2]: (x, y) of the stored frame @ matrix = (x, y) as shown, y down."""
    try:
        entries = list(frame.side_data)
    except ValueError:  # a kind of side data that PyAV has no name for; the rotation alone it still tells
        angle = np.radians(frame.rotation)
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for entry in entries:
        if getattr(entry.type, "name", "") == "DISPLAYMATRIX":
            return np.frombuffer(bytes(entry), np.int32).reshape(3, 3)[:2, :2] / 65536.0
    return np.eye(2)


def turned(matrix: np.ndarray) -> bool:
    """Whether the matrix exchanges width and height."""
    return abs(matrix[0, 1]) > abs(matrix[0, 0])


def degrees(matrix: np.ndarray) -> int:
    """The matrix as degrees counter-clockwise, to the nearest quarter turn."""
    angle = np.degrees(np.arctan2(-matrix[0, 1], matrix[0, 0]))
    return round(angle / 90) * 90 % 360


def upright(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turn and mirror an image [H, W, …] as a display matrix says (quarter turns)."""
    if turned(matrix):
        image = image.swapaxes(0, 1)
        across, down = matrix[1, 0], matrix[0, 1]
    else:
        across, down = matrix[0, 0], matrix[1, 1]
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def matrix_of(frame: av.VideoFrame) -> int:
    """swscale's YUV matrix for a frame: its tag, or what players assume where there is none."""
    tag = int(frame.colorspace)
    if tag in (9, 10):
        return BT2020
    if tag == 2:
        return BT709 if frame.height >= HD else BT601
    return BT709 if tag in (0, 1) else BT601


class Converter:
    """Stored frames to RGB [H, W, 3] uint8 of one size, upright. Keeps swscale's tables between frames."""

    def __init__(self, width: int, height: int, orient: np.ndarray | None = None, kind: str = "rgb24") -> None:
        self.width, self.height, self.kind = width, height, kind  # before turning
        self.orient = np.eye(2) if orient is None else orient
        self._scaler = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        same = (frame.width, frame.height) == (self.width, self.height)
        shrink = self.width * self.height < frame.width * frame.height
        how = BILINEAR if same else AREA if shrink else BICUBIC
        out = self._scaler.reformat(
            frame, width=self.width, height=self.height, format=self.kind, src_colorspace=matrix_of(frame),
            interpolation=how | EXACT,
        )  # fmt: skip
        return upright(out.to_ndarray(), self.orient)
