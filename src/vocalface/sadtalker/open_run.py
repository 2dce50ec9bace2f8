"""Trainings of the open networks that go on after an interruption, to the same bits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR

from vocalface.training import checkpoint, rng
from vocalface.training.loop import Loop


@dataclass(frozen=True)
class Place:
    """Where a run keeps its checkpoints: beside the output, under the name of all that it depends on."""

    folder: Path
    every: float  # s

    @staticmethod
    def of(output: Path, every: float, resume: bool, *depends: object) -> Place:
        """Args: `resume` False begins anew. `depends`: numbers, texts, configurations; arrays count by their sums."""
        key = hashlib.sha256(repr(depends).encode()).hexdigest()[:16]
        place = Place(output.with_name(f".{output.stem}.work") / key, every)
        if not resume:
            place.clear()
        return place

    def clear(self) -> None:
        """Removes what is this run's own."""
        checkpoint.discard(self.folder)


def run(
    steps: int, step: Callable[[int], None], parts: Mapping[str, Any], kept: dict, draw: np.random.Generator,
    place: Place | None = None,
) -> None:  # fmt: skip
    """Do the steps that are left.

    Args:
        parts: networks, optimisers, schedules: what has a state dict.
        kept: what else a step changes: tensors, numbers, and dicts and lists of them; filled in place.
        draw: the generator of a step's draws; torch's own is kept too.

    Raises:
        OutputError. KeyboardInterrupt: stopped by a signal, after a checkpoint.
    """
    found = checkpoint.latest(place.folder) if place else None
    if found:
        for name, part in parts.items():
            part.load_state_dict(found[1]["parts"][name])
        kept.update(found[1]["kept"])
        rng.restore(found[1]["draws"], draw=draw)

    def save(done: int) -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        checkpoint.save(place.folder, done, {"parts": state, "kept": kept, "draws": rng.state(draw=draw)})

    Loop(
        steps, step, save_fn=save if place else None, checkpoint_every_seconds=place.every if place else None
    ).run(found[0] if found else 0)  # fmt: skip


def one_cycle(optimiser: torch.optim.Optimizer, rate: float, steps: int, rise: float) -> OneCycleLR:
    """The rate rises for a share `rise` of the steps, then falls; PyTorch divides by zero where that is one step."""
    return OneCycleLR(optimiser, rate, total_steps=steps, pct_start=rise if rise * steps >= 2 else 0.45)
