"""Speech on its way to a face: any file as pieces at 16 kHz, in constant memory, and how loud each frame is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import MediaError
from vocalface.types import FPS, SPEECH_RATE, Sound, frames_for

SHORTEST = SPEECH_RATE // 5  # samples, 0.2 s: shorter speech is padded


def listen(speech: Sound | Path | str) -> tuple[Iterator[np.ndarray], int]:
    """Pieces [n] float32 at 16 kHz of a sound (then at that rate already) or of a file; and how many frames it lasts.

    An hour takes no more memory than a minute. The number of frames is what the file says of itself.

    Raises MediaError: no such file, no sound track, nothing in it.
    """
    if isinstance(speech, Sound):
        parts, lasts = pieces(speech.samples), speech.seconds
    else:
        parts = (piece[:, 0] for piece in media.read_pieces(speech, SPEECH_RATE, 1))
        lasts = media.sound_seconds(speech) or 0.0
    first = next(parts, None)
    if first is None:
        raise MediaError("the speech is empty", speech, "give a sound file with speech in it")
    return itertools.chain([first], parts), frames_for(max(round(lasts * SPEECH_RATE), SHORTEST))


def pieces(samples: np.ndarray, seconds: float = 8.0) -> Iterator[np.ndarray]:
    """A whole sound [N] at 16 kHz, bit by bit."""
    step = int(seconds * SPEECH_RATE)
    for start in range(0, len(samples), step):
        yield samples[start : start + step]


def at_least(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The pieces, and silence after them up to `SHORTEST`."""
    heard = 0
    for part in parts:
        heard += len(part)
        yield part
    if heard < SHORTEST:
        yield np.zeros(SHORTEST - heard, np.float32)


def levels(samples: np.ndarray, frames: int | None = None) -> np.ndarray:
    """RMS level of each frame, dB, [frames]; by default of those that the samples [N] reach."""
    hop = SPEECH_RATE // FPS
    padded = np.zeros((frames_for(len(samples)) if frames is None else frames) * hop, np.float32)
    n = min(len(samples), len(padded))
    padded[:n] = samples[:n]
    return 10 * np.log10(np.mean(padded.reshape(-1, hop) ** 2, axis=1) + 1e-10)
