"""What every speech feature is: a name, a width, a look-ahead, and one stream that serves files and live sound."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from vocalface.errors import ConfigError
from vocalface.types import FPS, SPEECH_RATE, Sound, frames_for

FRAME_SAMPLES = SPEECH_RATE // FPS
_BLOCK = 20 * SPEECH_RATE  # samples a whole sound is cut into: memory stays constant


class FeatureStream(ABC):
    """Features of sound that arrives in parts.

    Whatever the parts, what `push` and `flush` give, put together, is the feature of the whole sound.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.received = 0  # samples
        self.emitted = 0  # frames
        self._finished = False

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Features [k, dim] float32 of the frames that `samples` [n] float32 at 16 kHz complete; k may be 0."""
        if self._finished:
            raise ConfigError("This stream has been flushed", "speech feature", "open a new one with .stream()")
        self.received += len(samples)
        rows = self._push(np.asarray(samples, np.float32))
        self.emitted += len(rows)
        return rows

    def flush(self) -> np.ndarray:
        """The frames still owed, [k, dim] float32; the stream is then spent."""
        frames = frames_for(self.received)
        if frames == 0:
            self._finished = True
            return np.zeros((0, self.dim), np.float32)
        missing = frames * FRAME_SAMPLES - self.received
        padded = self.push(np.zeros(missing, np.float32))
        self._finished = True
        rows = np.concatenate([padded, self._finish(frames)])
        self.emitted = frames
        return rows

    @abstractmethod
    def _push(self, samples: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _finish(self, frames: int) -> np.ndarray:
        """What is still owed of `frames` frames in all, the sound having been padded to whole frames."""


class SpeechFeature(ABC):
    """One feature of speech, a row for each video frame.

    Attributes:
        name: what a head remembers it by.
        dim: width of a row.
        lookahead: frames of sound after frame i, whole ones, that row i needs.
    """

    name: str
    dim: int
    lookahead: int

    @abstractmethod
    def stream(self) -> FeatureStream:
        """A fresh stream; raises ConfigError where the feature cannot be streamed."""

    def __call__(self, sound: Sound) -> np.ndarray:
        """Features [ceil(25 N / 16000), dim] float32 of a whole sound at 16 kHz; equals the streamed ones."""
        samples = speech_samples(sound)
        stream = self.stream()
        parts = [stream.push(samples[start : start + _BLOCK]) for start in range(0, len(samples), _BLOCK)]
        return np.concatenate([*parts, stream.flush()])


def speech_samples(sound: Sound) -> np.ndarray:
    """The samples [N] float32; ConfigError unless they are mono at 16 kHz."""
    if sound.rate != SPEECH_RATE or np.ndim(sound.samples) != 1:
        raise ConfigError(
            f"Speech features need mono sound at {SPEECH_RATE} Hz, got {np.shape(sound.samples)} at {sound.rate} Hz",
            "speech feature",
            "read it with media.read_sound(path, rate=16000)",
        )
    return np.asarray(sound.samples, np.float32)
