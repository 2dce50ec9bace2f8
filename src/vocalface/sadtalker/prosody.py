"""What the music of speech tells the head, 25 times a second: loudness, beats, voice, pitch, silence.

Causal but for `AHEAD` frames, so that a stream and a file agree; all levels and pitches are relative to what the
speaker has shown so far.
"""

from __future__ import annotations

import numpy as np

from vocalface.nn.shaping import SilenceGate
from vocalface.observe.speech.intake import levels
from vocalface.types import FPS, SPEECH_RATE, Sound

PROSODY = ("loud", "beat", "voiced", "pitch", "silent")
"""loud 0..1; beat: loudness over its slow mean; voiced 0..1; pitch: octaves over the speaker's own mean, 0 where
there is none; silent 0..1, the rule that closes the mouth."""

AHEAD = SilenceGate.ahead
HOP = SPEECH_RATE // FPS
_WINDOW = 1024  # samples about a frame's middle, for the pitch
_LOW, _HIGH = 65.0, 420.0  # Hz
_TAPER = np.hanning(_WINDOW)
_TAPER_CORRELATION = np.fft.irfft(np.abs(np.fft.rfft(_TAPER, 2 * _WINDOW)) ** 2)[:_WINDOW]
_LAGS = np.arange(int(SPEECH_RATE / _HIGH), int(SPEECH_RATE / _LOW) + 1)


class Prosody:
    """Pieces of speech in, rows [k, 5] out, columns `PROSODY`, a row a frame."""

    look_ahead = AHEAD

    def __init__(self) -> None:
        self.gate = SilenceGate()
        self.level, self.slow, self.pitch, self.weight = -30.0, 0.0, np.log2(150.0), 1.0
        self.past = np.zeros(2 * HOP, np.float32)  # samples before the first unfinished frame
        self.tail = np.zeros(0, np.float32)
        self.levels: list[float] = []  # of frames whose gate is not known
        self.tones: list[tuple[float, float]] = []  # voicing and octave of those up to the one before the last
        self.begun = False
        self.samples = self.done = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Rows of the frames that these samples [n] float32 complete."""
        self.samples += len(samples)
        return self._hear(samples)

    def flush(self) -> np.ndarray:
        """The rows still owed, when the speech has ended."""
        owed = -(-self.samples // HOP) - self.done
        ended = self._hear(np.zeros(HOP * (AHEAD + 1), np.float32))
        self.done = -(-self.samples // HOP)
        return ended[:owed]

    def _hear(self, samples: np.ndarray) -> np.ndarray:
        self.tail = np.concatenate([self.tail, samples])
        count = len(self.tail) // HOP
        if not count:
            return np.zeros((0, len(PROSODY)), np.float32)
        both = np.concatenate([self.past, self.tail[: count * HOP]])
        first = HOP + HOP // 2 - _WINDOW // 2  # the pitch is that of one frame earlier: its window is whole by now
        windows = both[first + HOP * np.arange(count)[:, None] + np.arange(_WINDOW)]
        rows = []
        for level, *tone in zip(levels(self.tail[: count * HOP]).tolist(), *(v.tolist() for v in pitch(windows))):
            gate = self.gate.push(level)
            self.levels.append(level)
            if self.begun:
                self.tones.append(tuple(tone))
            self.begun = True
            if len(self.levels) > AHEAD:
                rows.append(self._row(self.levels.pop(0), *self.tones.pop(0), gate))
        self.past, self.tail = both[-2 * HOP :], self.tail[count * HOP :]
        self.done += len(rows)
        return np.array(rows, np.float32).reshape(-1, len(PROSODY))

    def _row(self, level: float, voiced: float, octave: float, gate: float) -> tuple[float, ...]:
        if level > -55:
            self.level += (0.3 if level > self.level else 0.004) * (level - self.level)
        loud = float(np.clip((level - self.level + 28) / 28, 0, 1))
        self.slow += 0.06 * (loud - self.slow)
        sure = voiced * loud
        self.weight = 0.995 * self.weight + sure
        self.pitch += sure / max(self.weight, 1.0) * (octave - self.pitch)
        tone = voiced * float(np.clip(octave - self.pitch, -0.8, 0.8))
        return loud, loud - self.slow, voiced, tone, gate


def pitch(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voicing [n] 0..1 and log2 of the pitch in Hz [n] of windows [n, 1024].

    Autocorrelation over that of the taper (Boersma, "Accurate short-term analysis of the fundamental frequency", 1993),
    with a small preference for short periods.
    """
    x = (windows - windows.mean(1, keepdims=True)) * _TAPER
    correlation = np.fft.irfft(np.abs(np.fft.rfft(x, 2 * _WINDOW, axis=1)) ** 2, axis=1)[:, :_WINDOW]
    normal = correlation[:, _LAGS] / (correlation[:, :1] + 1e-7) * (_TAPER_CORRELATION[0] / _TAPER_CORRELATION[_LAGS])
    best = (normal - 0.02 * np.log2(_LAGS / _LAGS[0])).argmax(1)
    strength = normal[np.arange(len(best)), best]
    return np.clip((strength - 0.45) / 0.3, 0, 1), np.log2(SPEECH_RATE / _LAGS[best])


def rows_of(sound: Sound) -> np.ndarray:
    """Prosody [F, 5] of a whole sound at 16 kHz."""
    stream = Prosody()
    return np.concatenate([stream.push(sound.samples), stream.flush()])
