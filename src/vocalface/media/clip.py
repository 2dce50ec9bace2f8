"""Opened sources: native frames with their timestamps, the 25 fps view, and the speech. Never wholly in memory."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

from vocalface.errors import MediaError
from vocalface.types import Sound

FIX = "give a video file that a player can play"


def open_container(path: Path | str) -> av.container.InputContainer:
    """Open any media file. Raises MediaError for what is absent, empty, or not media."""
    path = Path(path)
    if path.is_dir():
        raise MediaError("a folder, not a media file", path, FIX)
    if not path.exists():
        raise MediaError("no such file", path, "check the path")
    if not path.stat().st_size:
        raise MediaError("the file is empty", path, FIX)
    try:
        return av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"not a media file ({error.strerror or error})", path, FIX) from error


@dataclass(frozen=True)
class Frame:
    """One native frame."""

    time: float  # s, from the first frame
    raw: av.VideoFrame
    rotation: int  # degrees counter-clockwise to make it upright
    width: int  # square pixels, before rotation
    height: int

    @property
    def rgb(self) -> np.ndarray:
        """[H, W, 3] uint8, upright, square pixels."""
        return to_rgb(self.raw, self.width, self.height, self.rotation)

    def planes(self) -> list[np.ndarray]:
        """The stored planes (Y, U, V …) as [h, w] uint8 or uint16 arrays, neither scaled nor rotated."""
        out = []
        for plane in self.raw.planes:
            deep = self.raw.format.components[0].bits > 8
            data = np.frombuffer(plane, np.uint16 if deep else np.uint8)
            stride = plane.line_size // (2 if deep else 1)
            out.append(data.reshape(plane.height, stride)[:, : plane.width])
        return out


def to_rgb(frame: av.VideoFrame, width: int, height: int, rotation: int) -> np.ndarray:
    tagged = int(frame.colorspace)
    if tagged in (0, 1):  # GBR, BT.709
        space = Colorspace.ITU709
    elif tagged == 2:  # unspecified: what players assume
        space = Colorspace.ITU709 if height >= 720 else Colorspace.ITU601
    elif tagged in (9, 10) and hasattr(Colorspace, "BT2020"):
        space = Colorspace.BT2020
    else:
        space = Colorspace.ITU601
    out = frame.reformat(
        width=width, height=height, format="rgb24", src_colorspace=space, interpolation=Interpolation.BICUBIC
    )
    rgb = out.to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, rotation // 90)) if rotation else rgb


class Clip:
    """A video file.

    Attributes:
        width, height: upright, square pixels. rate: average frames a second. seconds: of the picture.
        has_sound; rotation: degrees counter-clockwise that the player turns the stored frame by.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with open_container(self.path) as container:
            if not container.streams.video:
                raise MediaError("no picture in this file", self.path, FIX)
            stream = container.streams.video[0]
            self.has_sound = bool(container.streams.audio)
            try:
                first = next(container.decode(stream))
            except (StopIteration, av.FFmpegError, MemoryError) as error:
                raise MediaError("no frame can be read (truncated or damaged)", self.path, FIX) from error
            self.rotation = int(round(first.rotation / 90) * 90) % 360
            aspect = stream.sample_aspect_ratio or 1
            self._width, self._height = first.width, first.height
            if aspect > 1:
                self._width = round(first.width * float(aspect))
            elif 0 < aspect < 1:
                self._height = round(first.height / float(aspect))
            self._start = float(first.pts * first.time_base) if first.pts is not None else 0.0
            self._guess = float(stream.average_rate or stream.guessed_rate or 25)
        turned = self.rotation % 180 == 90
        self.width, self.height = (self._height, self._width) if turned else (self._width, self._height)

    @functools.cached_property
    def times(self) -> np.ndarray:
        """Start of every frame, s from the first, sorted; read from the packets without decoding."""
        with open_container(self.path) as container:
            stream = container.streams.video[0]
            stamps = [p.pts for p in container.demux(stream) if p.pts is not None and p.size]
            times = np.sort(np.array(stamps, float)) * float(stream.time_base) - self._start
        times = times[times > -1e-6]
        return times if len(times) else np.zeros(1)

    @property
    def seconds(self) -> float:
        t = self.times
        last = float(np.median(np.diff(t))) if len(t) > 1 else 1 / self._guess
        return float(t[-1]) + last

    @property
    def rate(self) -> float:
        t = self.times
        return (len(t) - 1) / float(t[-1] - t[0]) if len(t) > 1 and t[-1] > t[0] else self._guess

    def frames(self, start: float = 0.0) -> Iterator[Frame]:
        """Native frames in order of time, from the key frame at or before `start` seconds."""
        with open_container(self.path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if start > 0:
                at = int((start + self._start) / stream.time_base)
                container.seek(max(at, 0), stream=stream, backward=True)
            last = -1.0
            try:
                for raw in container.decode(stream):
                    if raw.pts is None:
                        time = last + 1 / self._guess
                    else:
                        time = float(raw.pts * raw.time_base) - self._start
                    if time < -1e-6:
                        continue
                    last = time
                    yield Frame(time, raw, self.rotation, self._width, self._height)
            except av.FFmpegError:
                return  # a damaged tail: what came before stands

    def at(self, rate: float = 25) -> View:
        """The clip on a constant grid: frame i is the source frame shown at (i + 0.5) / rate s."""
        return View(self, rate)

    def speech(self, rate: int = 16_000) -> Sound:
        """Mono sound that starts with the first frame. Raises MediaError when there is no sound track."""
        from vocalface.media.sound import read_sound

        if not self.has_sound:
            raise MediaError("no sound track", self.path, "give a clip with sound")
        return read_sound(self.path, rate, start=self._start)


class View:
    """A clip on a constant frame rate."""

    def __init__(self, clip: Clip, rate: float) -> None:
        self.clip, self.rate = clip, rate

    def __len__(self) -> int:
        return max(1, int(np.ceil(self.clip.seconds * self.rate - 0.01)))

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.iterate()

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Frames [start, stop) as [H, W, 3] uint8 RGB."""
        stop = len(self) if stop is None else min(stop, len(self))
        i = start
        shown: Frame | None = None
        image: np.ndarray | None = None
        for frame in self.clip.frames((start + 0.5) / self.rate if start else 0.0):
            while i < stop and shown is not None and frame.time > (i + 0.5) / self.rate + 1e-6:
                image = shown.rgb if image is None else image
                yield image
                i += 1
            if i >= stop:
                return
            shown, image = frame, None
        while i < stop and shown is not None:  # the last frame stays on
            image = shown.rgb if image is None else image
            yield image
            i += 1


def open_clip(path: Path | str) -> Clip:
    """Open a video. Raises MediaError for what is no video, is empty, or holds no readable frame."""
    return Clip(path)
