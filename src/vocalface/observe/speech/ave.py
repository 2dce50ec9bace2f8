"""AVE, the audio-visual encoder of SyncTalk: 512 numbers a frame from 0.2 s of log-mel. Its weights are published for
non-commercial use and are not part of this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vocalface.errors import AssetError
from vocalface.observe.speech import files
from vocalface.observe.speech.feature import FeatureStream, SpeechFeature
from vocalface.observe.speech.mel import BANDS, COLUMNS_PER_FRAME, MelStream, normalise

WINDOW = 16
"""Mel columns of a window: 0.2 s, five video frames."""
ASSET = "audio/audio_visual_encoder.pth"
_PREFIX = "audio_encoder."


def window_starts(columns: int) -> np.ndarray:
    """First mel column of every window of a sound with `columns` columns, [K].

    Window k begins at int(3.2 k); the last is moved back so that it fits. The reference repeats the first and the
    last feature twice, so that row i covers the video frames i - 2 .. i + 2.
    """
    count = int((columns - WINDOW) / 80 * 25) + 2
    return np.minimum((np.arange(count) * COLUMNS_PER_FRAME + 1e-6).astype(int), columns - WINDOW)


def load(path: str | Path):
    """The encoder with the weights of `path`, in evaluation mode.

    Raises:
        AssetError: not a checkpoint, or keys or shapes that do not match; the message lists them.
    """
    import torch

    from vocalface.nn.audio import AudioEncoder

    get = "get the published audio_visual_encoder.pth again"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise AssetError(f"Not a readable checkpoint ({type(error).__name__})", path, get) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    # The file is found with and without the prefix.
    state = {k.removeprefix("module."): v for k, v in state.items()}
    state = {k if k.startswith(_PREFIX) else _PREFIX + k: v for k, v in state.items()}
    network = AudioEncoder()
    expected = network.state_dict()
    missing = sorted(set(expected) - set(state))
    extra = sorted(set(state) - set(expected))
    shapes = [k for k in expected if k in state and state[k].shape != expected[k].shape]
    faults = {"missing": missing, "unexpected": extra, "other shape": shapes}
    if any(faults.values()):
        report = "; ".join(f"{len(keys)} {what}, such as {keys[0]}" for what, keys in faults.items() if keys)
        raise AssetError(f"Not the weights of AVE: {report}", path, get)
    network.load_state_dict(state)
    return network.eval()


class AveFeature(SpeechFeature):
    """AVE features [F, 512], >= 0. Edge rule: the first and the last window stand for the two frames at each end."""

    name = "ave"
    dim = 512
    lookahead = 3

    def __init__(self, path: str | Path | None = None) -> None:
        self.network = load(files.find(ASSET, path, "The checkpoint of AVE"))

    def stream(self) -> FeatureStream:
        return _AveStream(self.network)


class _AveStream(FeatureStream):
    def __init__(self, network) -> None:
        super().__init__(AveFeature.dim)
        self._network = network
        self._mel = MelStream()
        self._columns = np.zeros((0, BANDS), np.float32)
        self._first = 0
        self._window = 0
        self._last: np.ndarray | None = None  # [1, 512]

    def _push(self, samples: np.ndarray) -> np.ndarray:
        return self._advance(self._mel.push(samples), None)

    def _finish(self, frames: int) -> np.ndarray:
        columns = self._mel.flush()
        short = WINDOW - self._first - len(self._columns) - len(columns)
        if short > 0:  # sound under 0.2 s: silence follows
            columns = np.concatenate([columns, np.full((short, BANDS), -100.0, np.float32)])
        total = self._first + len(self._columns) + len(columns)
        rows = self._advance(columns, window_starts(total)[self._window :])
        rows = np.concatenate([rows, self._last, self._last])
        return rows[: frames - self.emitted]

    def _advance(self, columns: np.ndarray, starts: np.ndarray | None) -> np.ndarray:
        """Rows of the windows that are complete, or of those that begin at `starts`."""
        self._columns = np.concatenate([self._columns, normalise(columns)])
        if starts is None:
            known = self._first + len(self._columns)
            upcoming = window_starts(known + WINDOW + 4)[self._window :]
            starts = upcoming[upcoming + WINDOW <= known]
        if len(starts) == 0:
            return np.zeros((0, self.dim), np.float32)
        windows = np.stack([self._columns[s - self._first : s - self._first + WINDOW].T for s in starts])
        rows = self._encode(windows)
        if self._window == 0:
            rows = np.concatenate([rows[:1], rows[:1], rows])
        self._window += len(starts)
        self._last = rows[-1:]
        drop = max(int(starts[-1]) - 4 - self._first, 0)
        self._columns, self._first = self._columns[drop:], self._first + drop
        return rows

    def _encode(self, windows: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            parts = [
                self._network(torch.from_numpy(part)).numpy()
                for part in np.array_split(windows, -(-len(windows) // 64))
            ]
        return np.concatenate(parts)
