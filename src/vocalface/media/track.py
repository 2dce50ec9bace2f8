"""The sound track of a video file that is being written, encoded or copied in step with the picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vocalface.errors import MediaError
from vocalface.media.container import open_container
from vocalface.media.sound import picture_start, read_pieces
from vocalface.types import Sound

AAC_RATES = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
COPIED = {  # what a container holds as it is
    "mp4": ("aac", "mp3"),
    "mov": ("aac", "mp3", "pcm_s16le"),
    "matroska": ("aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le"),
    "webm": ("opus", "vorbis"),
}


def open_track(container: av.container.OutputContainer, sound: Sound | Path | str, codec: str, *, copy: bool):
    """An EncodedTrack, or a CopiedTrack where `copy` is asked for and possible. Raises MediaError."""
    if isinstance(sound, Sound):
        return EncodedTrack(container, codec, _of_sound, sound, sound.rate, 1)
    with open_container(sound) as source:
        if not source.streams.audio:
            raise MediaError("no sound track", sound, "give a file with sound")
        stream = source.streams.audio[0]
        name, rate, channels = stream.codec_context.name, stream.rate, stream.codec_context.layout.nb_channels
    if copy and name.removesuffix("float") in COPIED.get(container.format.name, ()):
        return CopiedTrack(container, sound)
    return EncodedTrack(container, codec, _of_file, sound, rate, 1 if channels == 1 else 2)


class EncodedTrack:
    """AAC or Opus; exactly as long as the picture."""

    def __init__(self, container, codec: str, read, source, rate: int, channels: int) -> None:
        self.container, self.channels = container, channels
        self.rate = rate if codec == "aac" and rate in AAC_RATES else 48_000
        self.layout = "mono" if channels == 1 else "stereo"
        self.stream = container.add_stream(codec, rate=self.rate)
        self.stream.layout = self.layout
        self.stream.bit_rate = channels * (96_000 if self.rate > 24_000 else 64_000)
        kind = "flt" if codec == "libopus" else "fltp"
        self._fit = av.AudioResampler(kind, self.layout, self.rate)
        silence = itertools.repeat(np.zeros((self.rate, channels), np.float32))
        self._pieces = itertools.chain(read(source, self.rate, channels), silence)
        self._ready = np.zeros((0, channels), np.float32)
        self._sent = 0

    def feed(self, seconds: Fraction) -> None:
        """Encode up to this time."""
        until = round(seconds * self.rate)
        while self._sent + len(self._ready) < until:
            self._ready = np.concatenate([self._ready, next(self._pieces)])
        block, self._ready = np.split(self._ready, [until - self._sent])
        if not len(block):
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.reshape(1, -1), np.float32), "flt", self.layout)
        frame.rate, frame.pts, frame.time_base = self.rate, self._sent, Fraction(1, self.rate)
        self._sent = until
        for fitted in self._fit.resample(frame):
            self.container.mux(self.stream.encode(fitted))

    def finish(self) -> None:
        for fitted in self._fit.resample(None):
            self.container.mux(self.stream.encode(fitted))
        self.container.mux(self.stream.encode(None))


class CopiedTrack:
    """The packets of a file's first sound stream, moved so that its picture begins at 0."""

    def __init__(self, container, source: Path | str) -> None:
        self.container = container
        self._source = open_container(source)
        stream = self._source.streams.audio[0]
        self.stream = container.add_stream_from_template(stream)
        self._tick = stream.time_base
        start = picture_start(source)
        if start is None:
            start = float((stream.start_time or 0) * self._tick)
        self._shift = round(start / self._tick)
        self._packets = (p for p in self._source.demux(stream) if p.dts is not None and p.pts is not None)
        self._next = next(self._packets, None)

    def feed(self, seconds: Fraction) -> None:
        while self._next is not None and (self._next.pts - self._shift) * self._tick < seconds:
            packet = self._next
            self._next = next(self._packets, None)
            packet.pts, packet.dts = packet.pts - self._shift, packet.dts - self._shift
            if packet.pts + (packet.duration or 0) > 0 or not self._shift:  # a codec's lead-in stays
                packet.stream = self.stream
                self.container.mux(packet)

    def finish(self) -> None:
        self._source.close()


def _of_file(source: Path | str, rate: int, channels: int) -> Iterator[np.ndarray]:
    return read_pieces(source, rate, channels, picture_start(source))


def _of_sound(sound: Sound, rate: int, channels: int) -> Iterator[np.ndarray]:
    """A Sound at another rate, [n, 1] float32, a second at a time."""
    mixer = av.AudioResampler("flt", "mono", rate)
    for at in range(0, len(sound.samples), sound.rate):
        block = np.ascontiguousarray(sound.samples[None, at : at + sound.rate], np.float32)
        if rate == sound.rate:
            yield block.T
            continue
        frame = av.AudioFrame.from_ndarray(block, "flt", "mono")
        frame.rate = sound.rate
        for out in mixer.resample(frame):
            yield out.to_ndarray().reshape(-1, 1)
    if rate != sound.rate:
        for out in mixer.resample(None):
            yield out.to_ndarray().reshape(-1, 1)
