"""The articulatory feature: what a small network, taught on synthetic speech, says of the mouth behind a sound.

Log-mel columns are normalised causally (running level and running mean spectrum), pass five convolutions
(`articulation/train.py` defines and trains them), and the hidden layer, brought to 25 fps, is the feature, with the
normalised log-mel beside it. Runs on NumPy alone. See MODEL_CARD.md for the weights.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
from scipy.signal import lfilter

from vocalface.errors import AssetError
from vocalface.observe.speech.feature import FeatureStream, SpeechFeature
from vocalface.observe.speech.mel import BANDS, COLUMN_RATE, COLUMNS_PER_FRAME, HOP, MelStream, column_span
from vocalface.types import SPEECH_RATE, Sound

WEIGHTS = Path(__file__).with_name("articulatory.safetensors")
SCHEMA = 1
MOTIONS = ("jaw", "gap", "width", "round", "closure", "press", "tuck", "upper", "lower", "tongue")
"""What `ArticulatoryFeature.motions` predicts, in its order; `presenter.articulation` says what each means."""

RANGE_DB = 65.0  # what lies further under the speaker's level is silence
SCALE_DB = 15.0


class Normaliser:
    """Brings mel dB to a scale free of recording level and of the microphone's colour, column by column.

    The level is the 95th percentile of the columns' loudness so far, the mean spectrum that of the columns within
    about 30 dB of it. Both begin from a prior and fade with a half-life of 20 s, so nothing depends on what is still
    to come: a file and a stream get the same numbers. Every step is continuous in its input.
    """

    _FADE = 0.5 ** (1 / (20 * COLUMN_RATE))
    _BINS = np.arange(-110.0, 51.0)  # loudness, dB, one bin a dB
    _PRIOR_LEVEL, _PRIOR_SPREAD, _PRIOR_COLUMNS = -30.0, 7.0, 40.0
    _PRIOR_MEAN_COLUMNS = 80.0

    def __init__(self, prior_mean: np.ndarray) -> None:
        prior = np.exp(-0.5 * ((self._BINS - self._PRIOR_LEVEL) / self._PRIOR_SPREAD) ** 2)
        self._histogram = prior * (self._PRIOR_COLUMNS / prior.sum())  # [bins]
        self._weight = self._PRIOR_MEAN_COLUMNS
        self._sum = self._PRIOR_MEAN_COLUMNS * prior_mean.astype(np.float64)  # [80]

    @property
    def mean(self) -> np.ndarray:
        """The mean spectrum under the level so far, [80] dB."""
        return self._sum / self._weight

    def push(self, db: np.ndarray) -> np.ndarray:
        """Normalised columns [k, 80] float32 of mel dB [k, 80]; about -3..3."""
        if len(db) == 0:
            return np.zeros((0, BANDS), np.float32)
        db = db.astype(np.float64)
        loudness = 10 * np.log10(np.mean(10 ** (db / 10), axis=1))
        level = self._level(loudness)
        relative = np.maximum(db - level[:, None], -RANGE_DB)
        active = np.clip((loudness - level + 35) / 10, 0, 1)
        weight = self._accumulate(active[:, None], np.atleast_1d(self._weight))
        total = self._accumulate(active[:, None] * relative, self._sum)
        self._weight, self._sum = weight[-1, 0], total[-1]
        return ((relative - total / weight) / SCALE_DB).astype(np.float32)

    def _level(self, loudness: np.ndarray) -> np.ndarray:
        """The running 95th percentile [k] dB."""
        place = np.clip(loudness, self._BINS[0], self._BINS[-1] - 1e-9) - self._BINS[0]
        lower = place.astype(int)
        share = place - lower
        # Digital silence says nothing of the level and hardly counts.
        heard = np.clip((loudness + 75) / 15, 0.02, 1)
        counts = np.zeros((len(loudness), len(self._BINS)))
        rows = np.arange(len(loudness))
        counts[rows, lower] = heard * (1 - share)
        counts[rows, lower + 1] = heard * share
        histograms = self._accumulate(counts, self._histogram)
        self._histogram = histograms[-1]
        cumulative = np.cumsum(histograms, axis=1)
        wanted = 0.95 * cumulative[:, -1]
        above = np.argmax(cumulative >= wanted[:, None], axis=1)
        before = cumulative[rows, above - 1]
        return self._BINS[above] - 1 + (wanted - before) / (cumulative[rows, above] - before)

    def _accumulate(self, values: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Running sums [k, n] that fade."""
        return lfilter([1.0], [1.0, -self._FADE], values, axis=0, zi=(self._FADE * state)[None])[0]


class Network:
    """The trained network as NumPy arrays. Immutable.

    Attributes:
        left, right: mel columns of context before and after an output column.
        hidden: width of the hidden layer.
        prior_mean: [80] mean spectrum under the level, dB, that a fresh `Normaliser` assumes.
    """

    def __init__(self, tensors: dict[str, np.ndarray], config: dict) -> None:
        self._tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
        self.dilations = tuple(config["dilations"])
        self.hidden = self._tensors["stem.weight"].shape[0]
        radius = 2 + sum(self.dilations)
        self.right = radius - config["lead"]
        self.left = radius + config["lead"]
        self.prior_mean = self._tensors["prior_mean"]
        self.silence = np.float32((-RANGE_DB - self.prior_mean) / SCALE_DB)

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        """Hidden layer [T - left - right, hidden], before standardisation, of normalised columns [T, 80]."""
        t = self._tensors
        x = _gelu(_convolve(columns, t["stem.weight"], t["stem.bias"], 1))
        for i, dilation in enumerate(self.dilations):
            inner = _gelu(_convolve(x, t[f"blocks.{i}.conv.weight"], t[f"blocks.{i}.conv.bias"], dilation))
            inner = _convolve(inner, t[f"blocks.{i}.mix.weight"], t[f"blocks.{i}.mix.bias"], 1)
            x = x[dilation:-dilation] + inner
        return x

    def standardise(self, hidden: np.ndarray) -> np.ndarray:
        """Hidden layer to mean 0 and deviation 1 over the training speech."""
        return (hidden - self._tensors["hidden_mean"]) / self._tensors["hidden_std"]

    def motions(self, hidden: np.ndarray) -> np.ndarray:
        """The ten motions [T, 10] of a standardised hidden layer [T, hidden]."""
        t = self._tensors
        out = _gelu(hidden * t["hidden_std"] + t["hidden_mean"]) @ t["head.weight"][:, :, 0].T + t["head.bias"]
        return out * t["motion_std"] + t["motion_mean"]


def _convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dilation: int) -> np.ndarray:
    """Valid convolution over time: x [T, C], weight [D, C, K] -> [T - (K - 1) dilation, D]."""
    taps = weight.shape[2]
    length = len(x) - (taps - 1) * dilation
    out = np.broadcast_to(bias, (length, len(bias))).copy()
    for k in range(taps):
        out += x[k * dilation : k * dilation + length] @ weight[:, :, k].T
    return out


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


@cache
def load(path: Path = WEIGHTS) -> Network:
    """The network stored at `path`; AssetError when it is absent, altered or of another schema."""
    from safetensors import SafetensorError, safe_open

    again = "install vocalface again, or make new weights: vocalface train articulation"
    if not path.is_file():
        raise AssetError("The articulatory network's weights are absent", path, again)
    try:
        with safe_open(path, framework="numpy") as file:
            config = json.loads((file.metadata() or {}).get("config", "{}"))
            if config.get("schema") != SCHEMA:
                raise AssetError(f"Weights of schema {config.get('schema')}, expected {SCHEMA}", path, again)
            return Network({name: file.get_tensor(name) for name in file.keys()}, config)  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise AssetError(f"The articulatory network's weights cannot be read ({error})", path, again) from None


class ArticulatoryFeature(SpeechFeature):
    """Hidden layer, standardised, and normalised log-mel averaged over the frame: [F, hidden + 80].

    Edge rule: silence before the sound and after it; the sound is padded with zeros to whole frames.
    """

    name = "articulatory"

    def __init__(self, path: str | Path | None = None) -> None:
        self.network = load(Path(path) if path else WEIGHTS)
        self.dim = self.network.hidden + BANDS
        self.lookahead = _lookahead(self.network.right)

    def stream(self) -> FeatureStream:
        return _ArticulatoryStream(self.network)

    def motions(self, sound: Sound) -> np.ndarray:
        """The mouth's motions [F, 10], columns `MOTIONS`, as the network guesses them without any adaptation."""
        return self.network.motions(self(sound)[:, : self.network.hidden])


def _lookahead(right: int) -> int:
    """Whole frames after frame i that its row needs, given the columns of context to the right."""
    needs = []
    for frame in range(5):  # 5 frames = 16 columns: the pattern repeats
        column = int(frame * COLUMNS_PER_FRAME + COLUMNS_PER_FRAME / 2) + 1 + right
        samples = column * HOP + 2 * HOP
        needs.append(-(-samples * 25 // SPEECH_RATE) - frame - 1)
    return max(needs)


class _ArticulatoryStream(FeatureStream):
    def __init__(self, network: Network) -> None:
        super().__init__(network.hidden + BANDS)
        self._network = network
        self._mel = MelStream()
        self._normaliser = Normaliser(network.prior_mean)
        self._columns = np.tile(network.silence, (network.left, 1))  # normalised; the first is number _first
        self._first = -network.left
        self._hidden = np.zeros((0, network.hidden), np.float32)  # the first is number _first_hidden
        self._first_hidden = 0
        self._frame = 0

    def _push(self, samples: np.ndarray) -> np.ndarray:
        return self._advance(self._normaliser.push(self._mel.push(samples)))

    def _finish(self, frames: int) -> np.ndarray:
        tail = np.tile(self._network.silence, (self._network.right, 1))
        return self._advance(np.concatenate([self._normaliser.push(self._mel.flush()), tail]))

    def _advance(self, columns: np.ndarray) -> np.ndarray:
        net = self._network
        self._columns = np.concatenate([self._columns, columns])
        end = self._first + len(self._columns)  # one past the last column known
        done = self._first_hidden + len(self._hidden)
        if end - net.right > done:
            start = done - net.left - self._first
            self._hidden = np.concatenate([self._hidden, net(self._columns[start:])])
        rows = self._rows()
        keep = min(int(self._frame * COLUMNS_PER_FRAME), self._first_hidden + len(self._hidden) - net.left)
        self._columns, self._first = self._columns[keep - self._first :], keep
        keep = int(self._frame * COLUMNS_PER_FRAME)
        self._hidden, self._first_hidden = self._hidden[keep - self._first_hidden :], keep
        return rows

    def _rows(self) -> np.ndarray:
        """The frames whose hidden columns are known, [k, dim]."""
        last = self._first_hidden + len(self._hidden) - 2  # a frame lies between column `last` and the next
        count = max(int(np.floor((last + 1 - 1e-9) / COLUMNS_PER_FRAME + 0.5)) - self._frame, 0) if last >= 0 else 0
        frames = self._frame + np.arange(count)
        place = (frames + 0.5) * COLUMNS_PER_FRAME
        lower = place.astype(int)
        share = (place - lower)[:, None].astype(np.float32)
        at = lower - self._first_hidden
        hidden = (1 - share) * self._hidden[at] + share * self._hidden[at + 1] if count else self._hidden[:0]
        spans = [column_span(frame, frame + 1) for frame in frames]
        mel = [self._columns[a - self._first : b - self._first].mean(axis=0) for a, b in spans]
        self._frame += count
        mel = np.array(mel, np.float32).reshape(-1, BANDS)
        return np.concatenate([self._network.standardise(hidden), mel], axis=1).astype(np.float32)
