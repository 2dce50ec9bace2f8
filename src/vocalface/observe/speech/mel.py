"""Log-mel spectrogram as Wav2Lip, SadTalker and SyncTalk's AVE read it, whole or streamed, and the feature `mel`.

16 kHz; pre-emphasis 0.97; STFT of 800 samples every 200 (80 columns a second), Hann, centred, zeros beyond both ends
(librosa 0.9's rule; older ones reflect, which differs in the two outermost columns); 80 Slaney mel bands from 55 to
7600 Hz of the magnitude; 20 log10.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from vocalface.observe.speech.feature import FeatureStream, SpeechFeature
from vocalface.types import FPS, SPEECH_RATE

HOP = 200
COLUMN_RATE = SPEECH_RATE // HOP
"""Mel columns a second."""
COLUMNS_PER_FRAME = COLUMN_RATE / FPS
BANDS = 80
_WINDOW = 800
_HALF = _WINDOW // 2
_PRE_EMPHASIS = 0.97
_FLOOR_DB = -100.0
_BLOCK = 60 * SPEECH_RATE  # samples worked on at a time: memory stays constant


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Normalised log-mel [1 + N // 200, 80] float32 in [-4, 4] of samples [N] at 16 kHz.

    Equals Wav2Lip's `melspectrogram(wav).T`.
    """
    return normalise(mel_db(samples))


def normalise(db: np.ndarray) -> np.ndarray:
    """Mel dB to Wav2Lip's scale: -100..0 dB, 20 dB down, onto -4..4."""
    return np.clip(8 * (db - 20 + 100) / 100 - 4, -4, 4).astype(np.float32)


def mel_db(samples: np.ndarray) -> np.ndarray:
    """Log-mel magnitude [1 + N // 200, 80] float32, dB, at least -100, of samples [N] at 16 kHz."""
    stream = MelStream()
    parts = [stream.push(samples[start : start + _BLOCK]) for start in range(0, len(samples), _BLOCK)]
    return np.concatenate([*parts, stream.flush()])


class MelStream:
    """Mel columns in dB of sound that arrives in parts: `mel_db` of the whole, column by column."""

    def __init__(self) -> None:
        self._emphasised = np.zeros(_HALF)  # samples not yet used up
        self._last = 0.0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The columns [k, 80] float32 that `samples` [n] complete."""
        samples = np.asarray(samples, dtype=np.float64)
        if len(samples):
            previous = np.concatenate([[self._last], samples[:-1]])
            self._last = samples[-1]
            self._emphasised = np.concatenate([self._emphasised, samples - _PRE_EMPHASIS * previous])
        return self._columns()

    def flush(self) -> np.ndarray:
        """The last columns, which reach over the sound's end."""
        self._emphasised = np.concatenate([self._emphasised, np.zeros(_HALF)])
        return self._columns()

    def _columns(self) -> np.ndarray:
        count = (len(self._emphasised) - _WINDOW) // HOP + 1
        if count <= 0:
            return np.zeros((0, BANDS), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(self._emphasised, _WINDOW)[: count * HOP : HOP]
        magnitude = np.abs(np.fft.rfft(windows * _hann(), axis=1))
        mel = magnitude @ mel_basis().T
        self._emphasised = self._emphasised[count * HOP :].copy()
        return np.maximum(20 * np.log10(np.maximum(1e-5, mel)), _FLOOR_DB).astype(np.float32)


@cache
def _hann() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)


@cache
def mel_basis(low: float = 55.0, high: float = 7600.0) -> np.ndarray:
    """Slaney mel filters [80, 401]: linear to 1 kHz, logarithmic above, each of unit area."""

    def to_mel(hz):
        hz = np.asarray(hz, dtype=float)
        return np.where(hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1e-9) / 1000) * 27 / np.log(6.4))

    def to_hz(mel):
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    edges = to_hz(np.linspace(to_mel(low), to_mel(high), BANDS + 2))
    bins = np.linspace(0, SPEECH_RATE / 2, _WINDOW // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


class MelFeature(SpeechFeature):
    """Two half-frame means of the normalised log-mel: [F, 160] in [-4, 4].

    Edge rule: zeros beyond both ends, and the sound is padded with zeros to whole frames.
    """

    name = "mel"
    dim = 2 * BANDS
    lookahead = 1

    def stream(self) -> FeatureStream:
        return _MelFeatureStream()


class _MelFeatureStream(FeatureStream):
    def __init__(self) -> None:
        super().__init__(MelFeature.dim)
        self._mel = MelStream()
        self._columns = np.zeros((0, BANDS), np.float32)
        self._first = 0  # index of the first column kept
        self._frame = 0

    def _push(self, samples: np.ndarray) -> np.ndarray:
        return self._emit(self._mel.push(samples))

    def _finish(self, frames: int) -> np.ndarray:
        return self._emit(self._mel.flush())[: max(frames - self.emitted, 0)]

    def _emit(self, columns: np.ndarray) -> np.ndarray:
        self._columns = np.concatenate([self._columns, columns])
        rows = []
        while True:
            halves = [column_span(self._frame + h / 2, self._frame + (h + 1) / 2) for h in range(2)]
            if halves[1][1] > self._first + len(self._columns):
                break
            means = [self._columns[a - self._first : b - self._first].mean(axis=0) for a, b in halves]
            rows.append(normalise(np.concatenate(means)))
            self._frame += 1
        drop = int(self._frame * COLUMNS_PER_FRAME) - self._first
        self._columns, self._first = self._columns[drop:], self._first + drop
        return np.array(rows, np.float32).reshape(-1, self.dim)


def column_span(start: float, end: float) -> tuple[int, int]:
    """[first, last) of the mel columns whose centres lie in video frames [start, end)."""
    # 1e-6 keeps a column on an exact border in the later frame, whatever the rounding of 3.2 f.
    return (
        int(np.ceil(start * COLUMNS_PER_FRAME - 1e-6)),
        int(np.ceil(end * COLUMNS_PER_FRAME - 1e-6)),
    )
