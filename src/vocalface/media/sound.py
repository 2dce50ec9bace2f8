"""Sound in and out: any container, codec, rate and channels to mono float32."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from vocalface.errors import MediaError, OutputError
from vocalface.types import Sound


def decode(path: Path | str, rate: int, layout: str = "mono") -> Iterator[tuple[float, np.ndarray]]:
    """Pieces of (start s, samples [n] or [n, 2] float32) of the first sound stream. Raises MediaError."""
    from vocalface.media.clip import open_container

    with open_container(path) as container:
        if not container.streams.audio:
            raise MediaError("no sound track", path, "give a file with sound")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="flt", layout=layout, rate=rate)
        channels = 1 if layout == "mono" else 2
        clock: float | None = None
        # codecs pad their last block; the container knows where the sound ends
        left = round(float(stream.duration * stream.time_base) * rate) if stream.duration else None
        try:
            for frame in itertools.chain(container.decode(stream), [None]):
                if clock is None:
                    clock = float(frame.time or 0.0) if frame is not None else 0.0
                for out in resampler.resample(frame):
                    data = out.to_ndarray().reshape(-1, channels)[:left]
                    left = None if left is None else left - len(data)
                    if len(data):
                        yield clock, data[:, 0] if channels == 1 else data
                    clock += len(data) / rate
        except av.FFmpegError as error:
            if clock is None:
                raise MediaError("the sound cannot be read (damaged)", path, "convert it to WAV") from error


def read_sound(path: Path | str, rate: int = 16_000, *, start: float | None = None) -> Sound:
    """Mono sound at `rate`.

    Args:
        start: time that sample 0 stands for, s on the container's clock (a video's first frame); what lies before is
            cut, a late sound is padded. None: the sound's own beginning.

    Raises:
        MediaError: no such file, not media, no sound track.
    """
    pieces, first = [], None
    for time, samples in decode(path, rate):
        first = time if first is None else first
        pieces.append(samples)
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if start is not None and first is not None:
        offset = round((first - start) * rate)
        samples = np.concatenate([np.zeros(offset, np.float32), samples]) if offset > 0 else samples[-offset:]
    return Sound(np.nan_to_num(samples.astype(np.float32)), rate)


def write_sound(path: Path | str, sound: Sound) -> Path:
    """16-bit WAV."""
    import wave

    path = Path(path)
    try:
        with wave.open(str(path), "wb") as f:
            f.setnchannels(1)
            f.setsampwidth(2)
            f.setframerate(sound.rate)
            f.writeframes((np.clip(sound.samples, -1, 1) * 32767).round().astype("<i2").tobytes())
    except OSError as error:
        raise OutputError(f"cannot write the sound: {error.strerror}", path, "choose another folder") from error
    return path
