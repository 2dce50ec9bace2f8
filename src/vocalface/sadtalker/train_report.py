"""The page that a training of the official networks leaves beside its weights: losses, figures, pictures, motions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vocalface.training.report import Report

PAIRS = 8  # pictures that a renderer is asked for


@dataclass(frozen=True)
class Shown:
    """What a trained network does with some clips."""

    figures: dict[str, float]
    pictures: list[np.ndarray] = field(default_factory=list)  # uint8 [H, W, 3]
    caption: str = ""  # of the pictures
    curves: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)  # title -> label -> values, one a frame


class History:
    """Losses of a run as means over equal stretches of steps, at most `MOST` of them, so that any run can be drawn."""

    MOST = 400

    def __init__(self, steps: int, rows: Sequence | None = None) -> None:
        self.every = -(-steps // self.MOST)
        self.rows = list(rows or [])  # [stretch, steps in it, name -> sum]

    def add(self, step: int, values: Mapping[str, float]) -> None:
        stretch = step // self.every
        if not self.rows or self.rows[-1][0] != stretch:
            self.rows.append([stretch, 0, {}])
        row = self.rows[-1]
        row[1] += 1
        for name, value in values.items():
            row[2][name] = row[2].get(name, 0.0) + value

    def curves(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Steps [N], and each loss [N] there."""
        names = list(dict.fromkeys(name for _, _, sums in self.rows for name in sums))
        steps = np.array([stretch * self.every for stretch, _, _ in self.rows])
        return steps, {n: np.array([sums.get(n, np.nan) / count for _, count, sums in self.rows]) for n in names}


def evenly(material: Sequence, count: int = PAIRS) -> list[tuple[object, int]]:
    """(run, frame): `count` frames spread over all runs and along them, none the first of a run."""
    chosen = material[:: max(len(material) // count, 1)][:count]
    rounds = -(-count // len(chosen))
    return [(run, 1 + int((k + 0.5) / rounds * (len(run) - 1))) for run in chosen for k in range(rounds)][:count]


def mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def strip(*pictures: np.ndarray) -> np.ndarray:
    """[3, S, S] in [0, 1], side by side, as uint8 [S, N S, 3]."""
    row = np.concatenate([np.moveaxis(p, 0, -1) for p in pictures], 1)
    return np.round(255 * np.clip(row, 0, 1)).astype(np.uint8)


def write(
    path: Path, title: str, about: Mapping[str, object], history: History, shown: Shown | None, whom: str = ""
) -> Path:  # fmt: skip
    """The page.

    Args:
        about: of the run, in words. whom: the clips that `shown` is about.

    Raises:
        OutputError.
    """
    report = Report(title, about)
    if shown:
        report.table(["figure", whom], shown.figures.items(), caption="After the training")
        if shown.pictures:
            report.images(f"{whom}: {shown.caption}", shown.pictures, photo=True)
        for name, series in shown.curves.items():
            report.curve(f"{whom}: {name}", series, x_label="frame")
    steps, losses = history.curves()
    positive = {n: v for n, v in losses.items() if np.nanmin(v) > 0}
    report.heading("Losses")
    if positive:
        report.curve("as they are summed", positive, x=steps, x_label="step", log=True)
    if others := {n: v for n, v in losses.items() if n not in positive}:
        report.curve("those that may be negative", others, x=steps, x_label="step")
    return report.write(path)
