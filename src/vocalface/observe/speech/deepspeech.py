"""DeepSpeech features from a table that AD-NeRF's or TalkingGaussian's scripts wrote (`aud_ds.npy`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vocalface.errors import AssetError, ConfigError
from vocalface.observe.speech.feature import FeatureStream, SpeechFeature, speech_samples
from vocalface.types import Sound, frames_for

_SHAPE = (16, 29)
_TOLERANCE = 5
"""Rows by which a table may differ from the sound: the scripts round differently."""


class DeepSpeechFeature(SpeechFeature):
    """16 steps of 29 character logits around each frame, [F, 464], read from a file made for one sound.

    Edge rule: the table's last row is repeated where it is short of the sound by a few rows.
    """

    name = "deepspeech"
    dim = _SHAPE[0] * _SHAPE[1]
    lookahead = 8

    def __init__(self, path: str | Path | None) -> None:
        if path is None:
            raise ConfigError(
                "DeepSpeech features are read from a file", "speech feature 'deepspeech'", "give the path of aud_ds.npy"
            )
        self.path = Path(path)
        again = "give the aud_ds.npy of this very sound, or use another speech feature"
        if not self.path.is_file():
            raise AssetError("The table of DeepSpeech features is absent", self.path, again)
        try:
            table = np.load(self.path, allow_pickle=False)
        except (ValueError, OSError, EOFError):
            raise AssetError("Not a NumPy file", self.path, again) from None
        if table.ndim != 3 or table.shape[1:] != _SHAPE or len(table) == 0:
            raise AssetError(f"Expected rows of shape {_SHAPE}, got {table.shape}", self.path, again)
        self._table = table.reshape(len(table), -1).astype(np.float32)

    def __call__(self, sound: Sound) -> np.ndarray:
        frames = frames_for(len(speech_samples(sound)))
        if abs(frames - len(self._table)) > _TOLERANCE:
            raise ConfigError(
                f"The table has {len(self._table)} rows, the sound {frames} frames",
                self.path,
                "give this sound's table",
            )
        return self._table[np.minimum(np.arange(frames), len(self._table) - 1)]

    def stream(self) -> FeatureStream:
        raise ConfigError("DeepSpeech features from a file cannot be streamed", self.path, "use 'articulatory'")
