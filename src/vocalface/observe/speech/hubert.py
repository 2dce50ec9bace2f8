"""HuBERT large (facebook/hubert-large-ls960-ft, Apache-2.0) through `transformers`: two steps of 1024 a frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vocalface.errors import AssetError, ConfigError
from vocalface.observe.speech import files
from vocalface.observe.speech.feature import FRAME_SAMPLES, FeatureStream, SpeechFeature

ASSET = "audio/hubert-large-ls960-ft/config.json"
_HOP, _KERNEL = 320, 400
_BLOCK_STEPS = 1000
"""Steps of 20 ms the network sees at once, as in ER-NeRF and TalkingGaussian: 20 s."""


class HubertFeature(SpeechFeature):
    """HuBERT's last layer [F, 2048]: steps 2 i and 2 i + 1 of 50 Hz.

    The network attends over blocks of 20 s, so a row may need all the sound of its block: `lookahead` is a block.
    Edge rule: the convolutions leave the last step or two of the sound without a value; the last one is repeated.
    """

    name = "hubert"
    dim = 2 * 1024
    lookahead = _BLOCK_STEPS // 2 + 1

    def __init__(self, path: str | Path | None = None) -> None:
        try:
            from transformers import HubertModel
        except ImportError:
            raise ConfigError(
                "HuBERT needs the package transformers", "speech feature 'hubert'", "pip install 'vocalface[speech]'"
            ) from None
        folder = Path(path) if path else files.find(ASSET, None, "The folder of HuBERT").parent
        files.find(ASSET, folder, "The folder of HuBERT")
        try:
            self._network = HubertModel.from_pretrained(str(folder), local_files_only=True).eval()
        except (OSError, ValueError) as error:
            raise AssetError(
                f"HuBERT cannot be read ({type(error).__name__})",
                folder,
                "download the model's whole folder again, or use the feature of vocalface",
            ) from None
        self.dim = 2 * self._network.config.hidden_size

    def stream(self) -> FeatureStream:
        return _HubertStream(self._steps, self.dim)

    def _steps(self, samples: np.ndarray) -> np.ndarray:
        """[n] samples of one block -> [k, hidden]. Zero mean and unit variance in the block, as its training had."""
        import torch

        scaled = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        with torch.inference_mode():
            return self._network(torch.from_numpy(scaled.astype(np.float32))[None]).last_hidden_state[0].numpy()


class _HubertStream(FeatureStream):
    """Blocks of 1000 steps; a block reads the 80 samples after it, the last kernel's reach."""

    def __init__(self, steps, dim: int) -> None:
        super().__init__(dim)
        self._steps = steps
        self._samples = np.zeros(0, np.float32)
        self._last: np.ndarray | None = None

    def _push(self, samples: np.ndarray) -> np.ndarray:
        self._samples = np.concatenate([self._samples, samples])
        rows = []
        while len(self._samples) >= _BLOCK_STEPS * _HOP + _KERNEL - _HOP:
            rows.append(self._rows(self._samples[: _BLOCK_STEPS * _HOP + _KERNEL - _HOP]))
            self._samples = self._samples[_BLOCK_STEPS * _HOP :]
        return np.concatenate(rows) if rows else np.zeros((0, self.dim), np.float32)

    def _finish(self, frames: int) -> np.ndarray:
        owed = frames - self.emitted
        rows = [np.zeros((0, self.dim), np.float32)]
        if len(self._samples) >= 2 * FRAME_SAMPLES or self._last is None:
            short = _KERNEL + _HOP - len(self._samples)
            rows.append(self._rows(np.pad(self._samples, (0, max(short, 0)))))
        rows = np.concatenate(rows)[:owed]
        return np.concatenate([rows, np.repeat(self._last, owed - len(rows), axis=0)])

    def _rows(self, samples: np.ndarray) -> np.ndarray:
        steps = self._steps(samples)
        rows = steps[: len(steps) // 2 * 2].reshape(-1, self.dim)
        self._last = rows[-1:]
        return rows
