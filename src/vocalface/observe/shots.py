"""Cuts: where one shot ends and the next begins."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def signature(image: np.ndarray) -> np.ndarray:
    """A frame's coarse picture and colour histogram, [n] float32; cheap and steady within a shot."""
    h, w = image.shape[:2]
    small = image[:: max(1, h // 24), :: max(1, w // 24)].astype(np.float32) / 255
    histogram = np.concatenate([np.histogram(small[..., c], 16, (0, 1))[0] for c in range(3)]) / small[..., 0].size
    coarse = image[h // 16 :: max(1, h // 8), w // 16 :: max(1, w // 8)][:8, :8].astype(np.float32).ravel() / 255
    return np.concatenate([histogram.astype(np.float32), coarse])


def find(signatures: Iterable[np.ndarray], threshold: float = 0.28) -> list[tuple[int, int]]:
    """[start, end) of every shot.

    A cut changes the histogram and the coarse picture at once, and far more than its neighbours do; motion changes
    them little by little.
    """
    s = np.array(list(signatures))
    if len(s) < 2:
        return [(0, len(s))]
    difference = np.abs(np.diff(s, axis=0))
    score = difference[:, :48].sum(1) / 6 + difference[:, 48:].mean(1) * 2
    around = np.array([np.median(score[max(0, i - 6) : i + 7]) for i in range(len(score))])
    cuts = np.flatnonzero((score > threshold) & (score > 4 * around + 0.05)) + 1
    edges = [0, *cuts.tolist(), len(s)]
    return [(a, b) for a, b in zip(edges, edges[1:]) if b > a]


def longest(shots: list[tuple[int, int]]) -> tuple[int, int]:
    return max(shots, key=lambda s: s[1] - s[0])
