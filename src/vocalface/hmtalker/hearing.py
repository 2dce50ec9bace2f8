"""What a clip's speech says of its lips, by kernel ridge regression: a teacher for CMDM, and a clock for the footage.

Ridge regression generalises from a minute of speech better than a network trained on it does, but is no small network
that streams. So it teaches: the network learns its answers, on windows blended from those that the clip has.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

RIDGE, WIDTH, MOST = 1.0, 0.3, 3_000  # penalty; inverse width of the kernel, a feature; windows it remembers
REACH, SPAN, EVERY, SMOOTH = 4, 100, 25, 40  # frames: lags tried, half a stretch, its step, deviation of the smoothing
HEARD = 0.4  # correlation of a stretch whose lag counts


def window(features, i: np.ndarray, length: int = 8):
    """Rows i - length/2 .. i + length/2 - 1 of `features` [T, D] (array or tensor); edge rows repeat: [..., L, D].

    The published code pads with zeros, which for most features is far from silence.
    """
    rows = np.asarray(i)[..., None] + np.arange(-(length // 2), length - length // 2)
    return features[np.clip(rows, 0, len(features) - 1)]


class Teacher:
    """Kernel ridge regression from windows of speech features to units, with a Gaussian kernel.

    Args:
        windows: [N, L, D] normalised features; units: [N, E] what was seen. More than 3,000 are thinned evenly.
    """

    def __init__(self, windows: Tensor, units: Tensor) -> None:
        if len(windows) > MOST:
            kept = torch.linspace(0, len(windows) - 1, MOST).long()
            windows, units = windows[kept], units[kept]
        self.known = windows.flatten(1)
        self.gamma = WIDTH / self.known.shape[1]
        self.mean = units.mean(0)
        kernel = self._kernel(self.known)
        kernel.diagonal().add_(RIDGE)
        self.weights = torch.linalg.solve(kernel, units - self.mean)

    def _kernel(self, x: Tensor) -> Tensor:
        square = x.square().sum(1)[:, None] + self.known.square().sum(1) - 2 * x @ self.known.T
        return (-self.gamma * square).exp()

    def __call__(self, windows: Tensor) -> Tensor:
        """[..., L, D] -> [..., E]."""
        out = self._kernel(windows.reshape(-1, self.known.shape[1])) @ self.weights + self.mean
        return out.view(*windows.shape[:-2], -1)


def foretold(windows: Tensor, units: Tensor, parts: int = 8, margin: int = 10) -> np.ndarray:
    """Units [N, E] of every part of a clip, as the rest of it teaches them."""
    rows = np.arange(len(units))
    out = np.empty(tuple(units.shape), np.float32)
    for part in np.array_split(rows, parts):
        rest = rows[(rows < part[0] - margin) | (rows > part[-1] + margin)]
        out[part] = Teacher(windows[rest], units[rest])(windows[part]).cpu().numpy()
    return out


def drift(features: np.ndarray, units: np.ndarray, length: int = 8) -> np.ndarray:
    """By how many frames the lips are later than the sound, about the clip's own mean: [N].

    Cut and converted footage runs off by up to a frame, forth and back; lips learned under it are blurred. Each
    stretch of 8 s votes with the lag at which its units fit best what the rest of the clip foretells, where they fit.

    Args:
        features: [N, D], normalised; units: [N, E], of one person speaking.
    """
    count = len(units)
    if count < 4 * SPAN:
        return np.zeros(count, np.float32)
    all_windows = window(torch.from_numpy(features), np.arange(count), length)
    said = foretold(all_windows, torch.from_numpy(units))
    lags = np.arange(-REACH, REACH + 1)
    centres, votes = [], []
    for centre in range(SPAN // 4, count, EVERY):
        rows = np.arange(max(centre - SPAN, REACH), min(centre + SPAN, count - REACH))
        fit = np.array([_agreement(said[rows], units[rows + lag]) for lag in lags])
        best = int(fit.argmax())
        if 0 < best < len(lags) - 1 and fit[best] >= HEARD:
            before, peak, after = fit[best - 1 : best + 2]
            centres.append(centre)
            votes.append(lags[best] + 0.5 * (before - after) / min(before - 2 * peak + after, -1e-6))
    if len(votes) < 3:
        return np.zeros(count, np.float32)
    out = np.interp(np.arange(count), centres, votes)
    return gaussian_filter1d(out - out.mean(), SMOOTH, mode="nearest").astype(np.float32)


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the columns of two [N, E]: [E]; 0 where one hardly moves."""
    a, b = a - a.mean(0), b - b.mean(0)
    spread = a.std(0) * b.std(0)
    return np.where(spread > 1e-4, (a * b).mean(0) / np.maximum(spread, 1e-4), 0)


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Mean correlation of the columns that move."""
    r = correlations(a, b)
    return float(r[r != 0].mean()) if r.any() else 0.0


def at_time(features: np.ndarray, late: np.ndarray) -> np.ndarray:
    """Features [T, D] as frame i hears them when its lips are `late` [T] frames: those of i - late, between frames."""
    t = np.clip(np.arange(len(features)) - late, 0, len(features) - 1)
    i = np.floor(t).astype(int)
    share = (t - i)[:, None].astype(np.float32)
    return (1 - share) * features[i] + share * features[np.minimum(i + 1, len(features) - 1)]
