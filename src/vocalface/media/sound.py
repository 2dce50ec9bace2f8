"""Sound in and out: any container, codec, rate and channels to float32."""

from __future__ import annotations

import itertools
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from vocalface.errors import MediaError, OutputError
from vocalface.media.container import decode, open_container, picture_stream
from vocalface.types import Sound

JUMP = 0.03  # s; stamps that stray less are rounding, not gaps
LOST = 600.0  # s; a longer gap is a broken clock, not silence
PADDED = ("mov", "mp4")  # containers that say to the sample where the sound ends; codecs fill their last block


def read_sound(path: Path | str, rate: int = 16_000, *, start: float | None = None) -> Sound:
    """Mono sound at `rate`: the mean of two channels, a normalised mix of more.

    Args:
        start: time that sample 0 stands for, s on the container's clock (a video's first frame); what lies before is
            cut, a late sound is padded. None: the sound's own beginning.

    Raises:
        MediaError: no such file, not media, no sound track, nothing in it.
    """
    pieces = list(read_pieces(path, rate, 1, start))
    if not pieces:
        raise MediaError("the sound track is empty or damaged", path, "convert it to WAV")
    return Sound(np.concatenate(pieces)[:, 0], rate)


def read_pieces(path: Path | str, rate: int, channels: int, start: float | None = None) -> Iterator[np.ndarray]:
    """The sound of `read_sound` bit by bit, [n, channels] float32; gaps in the stamps are silence."""
    with open_container(path) as container:
        if not container.streams.audio:
            raise MediaError("no sound track", path, "give a file with sound")
        stream = container.streams.audio[0]
        left = None
        if stream.duration and container.format.name.startswith(PADDED):
            left = round(float(stream.duration * stream.time_base) * rate)
        frames = (frame for frame in decode(container, stream) if frame.samples)
        first = next(frames, None)
        if first is None:
            return
        offset = 0 if start is None else round(((first.time or 0.0) - start) * rate)
        if offset > 0:
            yield np.zeros((offset, channels), np.float32)
        skip = max(-offset, 0)
        for piece in _mixed(_joined(itertools.chain([first], frames)), rate, channels):
            piece = piece[:left]
            left = None if left is None else left - len(piece)
            kept = piece[skip:]
            skip -= len(piece) - len(kept)
            if len(kept):
                yield kept


def sound_seconds(path: Path | str) -> float | None:
    """How long the sound says it lasts, s, without decoding it; None when the container does not know."""
    with open_container(path) as container:
        stream = next(iter(container.streams.audio), None)
        if stream is not None and stream.duration:
            return float(stream.duration * stream.time_base)
        return container.duration / 1e6 if container.duration else None


def picture_start(path: Path | str) -> float | None:
    """When the first frame of a video is shown on the clock of its sound, s; None for sound alone."""
    from vocalface.media.clip import Clip

    with open_container(path) as container:
        if picture_stream(container) is None:
            return None
    return Clip(path).start


def _joined(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame | float]:
    """Frames without overlaps, and seconds of silence where the stamps leave a gap."""
    clock: float | None = None
    for frame in frames:
        time = frame.time if frame.time is not None else clock or 0.0
        stray = 0.0 if clock is None else time - clock
        if JUMP < stray < LOST:
            yield stray
        elif -LOST < stray < -JUMP:
            overlap = round(-stray * frame.sample_rate)
            if overlap >= frame.samples:
                continue
            frame = _tail(frame, overlap)
            time = clock
        elif clock is not None and abs(stray) <= JUMP:
            time = clock
        clock = time + frame.samples / frame.sample_rate
        yield frame


def _tail(frame: av.AudioFrame, count: int) -> av.AudioFrame:
    """`frame` without its first `count` samples."""
    data = frame.to_ndarray()
    width = 1 if frame.format.is_planar else frame.layout.nb_channels
    data = np.ascontiguousarray(data[:, count * width :])
    tail = av.AudioFrame.from_ndarray(data, frame.format.name, frame.layout.name)
    tail.sample_rate = frame.sample_rate
    return tail


def _mixed(items: Iterator[av.AudioFrame | float], rate: int, channels: int) -> Iterator[np.ndarray]:
    """Frames of any format, and silences, as [n, channels] float32 at `rate`."""
    mixer, kind = None, None
    for item in items:
        silence = isinstance(item, float)
        this = None if silence else (item.format.name, item.layout.name, item.sample_rate)
        if this != kind and mixer is not None:
            yield from _mix(mixer, None, channels)
            mixer = None
        kind = this
        if silence:
            yield np.zeros((round(item * rate), channels), np.float32)
            continue
        # s32: towards integers swresample scales a mix so that it cannot clip
        mixer = mixer or av.AudioResampler("s32", "mono" if channels == 1 else "stereo", rate)
        item.pts = None
        yield from _mix(mixer, item, channels)
    if mixer is not None:
        yield from _mix(mixer, None, channels)


def _mix(mixer: av.AudioResampler, frame: av.AudioFrame | None, channels: int) -> Iterator[np.ndarray]:
    for out in mixer.resample(frame):
        yield out.to_ndarray().reshape(-1, channels).astype(np.float32) * np.float32(2**-31)


def write_sound(path: Path | str, sound: Sound) -> Path:
    """16-bit WAV, written whole or not at all. Raises OutputError."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    samples = np.clip(np.nan_to_num(sound.samples), -1, 1)
    try:
        with wave.open(str(part), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(sound.rate)
            file.writeframes((samples * 32767).round().astype("<i2").tobytes())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"cannot write the sound: {error.strerror}", path, "choose another folder") from error
    return path
