"""Numbers of facial action: AUE from OpenFace tables, its blendshape stand-in `aue_bs`, correlations of single units.

AUE is what the papers report and needs OpenFace's intensities of both videos, measured on the same frames. `aue_bs`
has the same form over MediaPipe's blendshapes; its size has nothing to do with AUE's.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from vocalface.errors import ObservationsError
from vocalface.metrics.landmarks import correlation
from vocalface.observe.indices import BLENDSHAPES
from vocalface.types import AU_NAMES, LOWER_AUS, UPPER_AUS

GROUPS = {
    # TalkingGaussian counts AU09 to the upper face, HM-Talker to the lower.
    "tg": (
        tuple(a for a in LOWER_AUS if a != "AU09"),
        ("AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU45"),
    ),
    "hm": (LOWER_AUS, UPPER_AUS),
}
"""Grouping -> (lower units, upper units)."""

# Which blendshapes stand for a unit, and how much (own choice, from the muscles each names). `X?` is the mean of
# XLeft and XRight. MediaPipe's noseSneer, mouthFrown and cheekSquint hardly ever move: AU09, AU15, AU06 say little.
FROM_BLENDSHAPES: dict[str, dict[str, float]] = {
    "AU01": {"browInnerUp": 1}, "AU02": {"browOuterUp?": 1}, "AU04": {"browDown?": 1}, "AU05": {"eyeWide?": 1},
    "AU06": {"cheekSquint?": 1, "mouthSmile?": 0.15}, "AU07": {"eyeSquint?": 1}, "AU09": {"noseSneer?": 1},
    "AU10": {"mouthUpperUp?": 1}, "AU12": {"mouthSmile?": 1}, "AU14": {"mouthDimple?": 1, "mouthPress?": 0.1},
    "AU15": {"mouthFrown?": 1}, "AU17": {"mouthShrugLower": 1}, "AU20": {"mouthStretch?": 1},
    "AU23": {"mouthPress?": 1, "mouthRollLower": 0.25, "mouthRollUpper": 0.25},
    "AU25": {"jawOpen": 1, "mouthLowerDown?": 1, "mouthUpperUp?": 0.5, "mouthClose": -1},
    "AU26": {"jawOpen": 1}, "AU45": {"eyeBlink?": 1},
}  # fmt: skip


def aue(units: np.ndarray, truth: np.ndarray, grouping: str = "tg") -> tuple[float, float]:
    """AUE-L and AUE-U: squared error, mean over frames, *summed* over the units of the group (TalkingGaussian).

    Args:
        units, truth: [T, 17] in AU_NAMES' order, 0..5.
        grouping: "tg" (TalkingGaussian's 9 lower and 8 upper units) or "hm" (HM-Talker's 10 and 7).
    """
    error = np.square(np.asarray(units, np.float64) - truth).mean(0)
    lower, upper = ([AU_NAMES.index(name) for name in group] for group in GROUPS[grouping])
    return float(error[lower].sum()), float(error[upper].sum())


def from_blendshapes(blendshapes: np.ndarray, baseline: np.ndarray | None = None) -> np.ndarray:
    """Stand-ins of the 17 units, [T, 17] in 0..5, of MediaPipe's 52 blendshapes [T, 52].

    Args:
        baseline: [17] of the person at rest, from `rest`; without it the clip's own.
    """
    raw = _combine(blendshapes)
    return 5 * np.clip(raw - (_rest(raw) if baseline is None else baseline), 0, 1)


def rest(blendshapes: np.ndarray) -> np.ndarray:
    """[17]: the 5th percentile over the clip, what the person's face shows at rest."""
    return _rest(_combine(blendshapes))


def aue_bs(blendshapes: np.ndarray, truth: np.ndarray, grouping: str = "tg") -> tuple[float, float]:
    """AUE's formula over the stand-ins, lower and upper; the baseline is the true clip's for both."""
    seen = np.isfinite(blendshapes).all(1) & np.isfinite(truth).all(1)
    if not seen.any():
        return float("nan"), float("nan")
    baseline = rest(truth[seen])
    return aue(*(from_blendshapes(b[seen], baseline) for b in (blendshapes, truth)), grouping)


def unit_correlation(units: np.ndarray, truth: np.ndarray, name: str) -> float:
    """Pearson correlation over time of one unit of [T, 17] arrays."""
    i = AU_NAMES.index(name)
    return correlation(units[:, i], truth[:, i])


def read_openface(path: str | Path) -> np.ndarray:
    """The 17 intensities of an OpenFace table as [T, 17] float32 in AU_NAMES' order.

    Every row as it stands, the unsure ones included, because AUE is defined so (`observe` mends them when it reads a
    table to train from). Column names may start with a blank, as OpenFace writes them.

    Raises:
        ObservationsError: a column is absent or a cell is no number.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [{k.strip(): v for k, v in row.items() if k} for row in csv.DictReader(file)]
        table = np.array([[float(row[f"{name}_r"]) for name in AU_NAMES] for row in rows], np.float32)
        if not len(table):
            raise ValueError("it has no rows")
        return table
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ObservationsError(
            f"not a table of OpenFace's action units ({error})", path, "run OpenFace's FeatureExtraction with -aus"
        ) from error


def _combine(blendshapes: np.ndarray) -> np.ndarray:
    def value(name: str) -> np.ndarray:
        if name.endswith("?"):
            return (value(name[:-1] + "Left") + value(name[:-1] + "Right")) / 2
        return blendshapes[:, BLENDSHAPES.index(name)]

    return np.stack([sum(w * value(n) for n, w in FROM_BLENDSHAPES[unit].items()) for unit in AU_NAMES], axis=1)


def _rest(raw: np.ndarray) -> np.ndarray:
    return np.nanpercentile(raw, 5, axis=0)
