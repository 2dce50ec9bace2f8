"""Cuts: where one shot ends and the next begins."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

RIM = np.zeros((8, 8), bool)
RIM[0] = RIM[:5, 0] = RIM[:5, 7] = True


def signature(image: np.ndarray) -> np.ndarray:
    """A frame's coarse picture and colour histogram, [n] float32; cheap and steady within a shot."""
    h, w = image.shape[:2]
    small = image[:: max(1, h // 24), :: max(1, w // 24)].astype(np.float32) / 255
    histogram = np.concatenate([np.histogram(small[..., c], 16, (0, 1))[0] for c in range(3)]) / small[..., 0].size
    coarse = image[h // 16 :: max(1, h // 8), w // 16 :: max(1, w // 8)][:8, :8].astype(np.float32).ravel() / 255
    return np.concatenate([histogram.astype(np.float32), coarse])


def find(signatures: Iterable[np.ndarray], threshold: float = 0.22) -> tuple[list[tuple[int, int]], list[int]]:
    """Shots, [start, end) each, and jumps: first frames after a cut within the same set-up.

    A cut changes the histogram and the coarse picture at once, and far more than its neighbours do; motion changes
    them little by little. Where the picture's rim stays (same camera, same background), it is a jump cut: the clip
    stays one shot, but nothing may be smoothed across it.
    """
    s = np.array(list(signatures))
    if len(s) < 2:
        return [(0, len(s))], []
    difference = np.abs(np.diff(s, axis=0))
    score = difference[:, :48].sum(1) / 6 + difference[:, 48:].mean(1) * 2
    around = np.array([np.median(score[max(0, i - 6) : i + 7]) for i in range(len(score))])
    sudden = np.flatnonzero((score > threshold) & (score > 4 * around + 0.05)) + 1
    rim = np.array([np.median(np.abs(s[i, 48:] - s[i - 1, 48:]).reshape(8, 8, 3)[RIM]) for i in sudden])
    cuts = [int(i) for i, r in zip(sudden, rim) if r > 0.03]
    jumps = [int(i) for i, r in zip(sudden, rim) if r <= 0.03]
    edges = [0, *cuts, len(s)]
    return [(a, b) for a, b in itertools.pairwise(edges) if b > a], jumps


def segments(shot: tuple[int, int], jumps: list[int]) -> list[tuple[int, int]]:
    """Continuous runs of a shot, counted from its start."""
    edges = [shot[0], *(j for j in jumps if shot[0] < j < shot[1]), shot[1]]
    return [(a - shot[0], b - shot[0]) for a, b in itertools.pairwise(edges)]


def best(shots: list[tuple[int, int]], faces: list[int]) -> tuple[int, int]:
    """The shot that holds most of the sampled frames with a face, the longer one of equals."""
    return max(shots, key=lambda s: (sum(s[0] <= i < s[1] for i in faces), s[1] - s[0]))
