"""Opened sources: native frames with their timestamps, the 25 fps view, and the speech. Never wholly in memory."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from vocalface.errors import MediaError
from vocalface.media.container import FIX, Converter, decode, degrees, open_container, orientation, picture_stream
from vocalface.media.container import turned as exchanges
from vocalface.types import Sound

NEAR = 1e-6  # s; stamps closer than this are the same moment


@dataclass(frozen=True)
class Frame:
    """One native frame."""

    time: float  # s, from the first frame
    raw: av.VideoFrame
    convert: Converter = field(repr=False)

    @property
    def rgb(self) -> np.ndarray:
        """[H, W, 3] uint8, upright, square pixels."""
        return self.convert(self.raw)

    def planes(self) -> list[np.ndarray]:
        """The stored planes (Y, U, V …) as [h, w] uint8 or uint16 arrays, neither scaled nor turned.

        Formats that interleave channels (NV12's chroma, packed RGB) give [h, w, channels].
        """
        kind = np.uint16 if self.raw.format.components[0].bits > 8 else np.uint8
        out = []
        for index, plane in enumerate(self.raw.planes):
            channels = sum(c.plane == index for c in self.raw.format.components)
            rows = np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width * channels]
            out.append(rows if channels == 1 else rows.reshape(plane.height, plane.width, channels))
        return out


class Clip:
    """A video file.

    Attributes:
        width, height: upright, square pixels. rate: average frames a second. seconds: of the picture.
        has_sound: whether there is a sound track. rotation: degrees counter-clockwise by which the stored frame is
            turned to stand upright.

    Raises:
        MediaError: no such file, not media, no moving picture, no readable frame.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with open_container(self.path) as container:
            stream = picture_stream(container)
            if stream is None:
                raise MediaError("no picture in this file", self.path, FIX)
            self.has_sound = bool(container.streams.audio)
            first = next(decode(container, stream), None)
            if first is None:
                raise MediaError("no frame can be read (cut off or damaged)", self.path, FIX)
            # AVI and raw streams have no display times; there the decoding times, which count frames, stand in.
            self._by_count = container.format.name == "avi" or first.pts is None
            self._start = self._stamp(first, 0.0)
            self._guess = float(stream.average_rate or stream.guessed_rate or 25)
            self._orient = orientation(first)
            self._stored = _square(first.width, first.height, float(stream.sample_aspect_ratio or 1))
        self.rotation = degrees(self._orient)
        self.width, self.height = self._stored[::-1] if exchanges(self._orient) else self._stored

    def _stamp(self, frame: av.VideoFrame, otherwise: float) -> float:
        ticks = frame.dts if self._by_count else frame.pts
        return otherwise if ticks is None else float(ticks * frame.time_base)

    @property
    def start(self) -> float:
        """When the first frame is shown, s on the container's clock, which the sound shares."""
        return 0.0 if self._by_count else self._start

    @functools.cached_property
    def _timing(self) -> tuple[np.ndarray, float]:
        """Start of every frame and the end of the last, s from the first frame; packets are read, not decoded."""
        stamps, lengths = [], []
        with open_container(self.path) as container:
            stream = picture_stream(container)
            tick = float(stream.time_base)
            try:
                for packet in container.demux(stream):
                    if packet.size and not getattr(packet, "is_discard", False):
                        stamps.append(packet.dts if self._by_count else packet.pts)
                        lengths.append(packet.duration or 0)
            except av.FFmpegError:
                pass  # the file breaks off here
        if not stamps or None in stamps:
            times = np.arange(max(1, len(stamps))) / self._guess
            return times, float(times[-1]) + 1 / self._guess
        order = np.argsort(stamps, kind="stable")
        times = np.array(stamps, float)[order] * tick
        times -= times[0] if self._by_count else self._start
        usual = float(np.median(np.diff(times))) if len(times) > 1 else 1 / self._guess
        said = lengths[order[-1]] * tick
        end = float(times[-1]) + (said if said > usual / 2 else usual)
        times = times[times > -NEAR]
        return (times if len(times) else np.zeros(1)), end

    @property
    def times(self) -> np.ndarray:
        """[N] start of every native frame, s from the first, sorted."""
        return self._timing[0]

    @property
    def seconds(self) -> float:
        return self._timing[1]

    @property
    def rate(self) -> float:
        return len(self.times) / self.seconds

    def frames(self, start: float = 0.0) -> Iterator[Frame]:
        """Native frames in order of time, from the key frame at or before `start` seconds."""
        if start > 0 and not self._by_count:
            frames = self._decode(start)
            first = next(frames, None)
            if first is not None and first.time <= start + NEAR:
                yield first
                yield from frames
                return
        yield from self._decode(0.0)  # also where an index is missing and the search went too far

    def _decode(self, start: float) -> Iterator[Frame]:
        convert = Converter(*self._stored, self._orient)
        with open_container(self.path) as container:
            stream = picture_stream(container)
            stream.thread_type = "AUTO"
            if start > 0:
                # Old x264 writes its build into the first packet only, and 4:4:4 is decoded by it.
                next(decode(container, stream), None)
                try:
                    container.seek(int((start + self._start) / stream.time_base), stream=stream, backward=True)
                except av.FFmpegError:
                    return
            last = -1 / self._guess
            for raw in decode(container, stream):
                time = self._stamp(raw, self._start + last + 1 / self._guess) - self._start
                if time >= -NEAR:
                    last = max(time, last)
                    yield Frame(last, raw, convert)

    def at(self, rate: float = 25) -> View:
        """The clip on a constant grid: frame i is the source frame shown at (i + 0.5) / rate s."""
        return View(self, rate)

    def speech(self, rate: int = 16_000) -> Sound:
        """Mono sound whose sample 0 belongs to the first frame. Raises MediaError when there is no sound track."""
        from vocalface.media.sound import read_sound

        if not self.has_sound:
            raise MediaError("no sound track", self.path, "give a clip with sound")
        return read_sound(self.path, rate, start=self.start)


def _square(width: int, height: int, aspect: float) -> tuple[int, int]:
    """Size in square pixels: the side that is too short grows, so that nothing is lost."""
    if aspect > 1:
        return round(width * aspect), height
    return (width, round(height / aspect)) if 0 < aspect < 1 else (width, height)


class View:
    """A clip on a constant frame rate; the frames cover the picture's duration."""

    def __init__(self, clip: Clip, rate: float) -> None:
        self.clip, self.rate = clip, rate

    def __len__(self) -> int:
        return max(1, int(np.ceil(self.clip.seconds * self.rate - 0.01)))  # 0.01: stamps are rounded

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.iterate()

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Frames [start, stop) as [H, W, 3] uint8 RGB, decoded forwards; the last frame stays on."""
        stop = len(self) if stop is None else min(stop, len(self))
        i = start
        shown: Frame | None = None
        image: np.ndarray | None = None
        for frame in self.clip.frames((start + 0.5) / self.rate if start else 0.0):
            while i < stop and shown is not None and frame.time > (i + 0.5) / self.rate + NEAR:
                image = shown.rgb if image is None else image
                yield image
                i += 1
            if i >= stop:
                return
            shown, image = frame, None
        while i < stop and shown is not None:
            image = shown.rgb if image is None else image
            yield image
            i += 1


def open_clip(path: Path | str) -> Clip:
    """Open a video. Raises MediaError for what is no video, is empty, or holds no readable frame."""
    return Clip(path)
