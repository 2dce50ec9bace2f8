"""What the trainings of the official networks share: a run that goes on after an interruption and ends in one file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from vocalface.errors import ConfigError
from vocalface.sadtalker.open_weights import check_output
from vocalface.sadtalker.train_report import History, Shown
from vocalface.training import checkpoint
from vocalface.training.distributed import World, agreed, highest
from vocalface.training.files import write_atomically
from vocalface.training.loop import Loop, SkipStep


class Trainer(Protocol):
    """A network in training.

    Attributes:
        kind: its name on the command line. prefix: of its keys in the file; "" where it is several networks, each
            under its own name.
        terms: what the loss is made of and what is missing, in words.
        told: what the run depends on besides its configuration: material, given weights.
    """

    kind: str
    prefix: str
    config: Any
    world: World
    net: nn.Module
    terms: dict[str, str]
    told: Any

    def step(self, step: int) -> dict[str, float]: ...
    def state(self) -> dict: ...
    def restore(self, state: dict) -> None: ...
    def examine(self, material: Sequence) -> Shown: ...


def run(
    trainer: Trainer, output: Path | str, *, resume: bool = True, progress=None, work: Path | None = None,
    about: dict[str, str] | None = None, report: Callable[[History], object] | None = None,
) -> dict:  # fmt: skip
    """Train and write `output` (safetensors, keys as in the published files).

    A run of the same configuration, material and given weights that was interrupted goes on to the same bits. How often
    checkpoints are written (`checkpoint_seconds`) is no part of that.

    Args:
        resume: False begins anew.
        work: folder for the checkpoints (default: beside the output); only what is this run's own is removed from it.
        about: more to say in the file's header.
        report: called with the run's losses, interruptions or not, when the weights are written; in one process alone.

    Returns:
        The number of steps and the last losses.

    Raises:
        OutputError. ConfigError: processes that find different checkpoints. VocalfaceError: training diverged.
    """
    config, world, output = trainer.config, trainer.world, check_output(output)
    same = replace(config, checkpoint_seconds=0.0)
    key = hashlib.sha256(repr((trainer.kind, same, trainer.told)).encode()).hexdigest()[:16]
    states = (work or output.with_name(f".{output.stem}.work")) / key
    found = checkpoint.latest(states) if resume else None
    start = found[0] if found else 0
    if not agreed(start, world):
        raise ConfigError("the processes find different checkpoints", states, "give all machines one folder")
    if found:
        trainer.restore(found[1])
    elif world.leads:
        shutil.rmtree(states, ignore_errors=True)
    last: dict[str, float] = {}
    history = History(config.steps, found[1].get("losses") if found else None)

    def step(k: int) -> dict[str, float]:
        buffers = [(b, b.clone()) for b in trainer.net.buffers()]
        try:
            last.update(trainer.step(k))
        except SkipStep:  # what is not finite has also reached the running means
            for now, before in buffers:
                now.copy_(before)
            raise
        history.add(k, last)
        return dict(last)

    def save(done: int) -> None:
        if world.leads:
            state = trainer.state() | {"losses": history.rows}
            checkpoint.save(states, done, state, {"config": asdict(config)})

    Loop(
        config.steps, step, save_fn=save, progress=progress if world.leads else None,
        checkpoint_every_seconds=config.checkpoint_seconds, heard=lambda number: highest(number, world),
    ).run(start)  # fmt: skip
    if world.leads:
        write_atomically(output, content(trainer, about or {}))
        if report:
            report(history)
        checkpoint.discard(states, parent=work is None)
    return {"steps": config.steps, **last}


def content(trainer: Trainer, about: dict[str, str]) -> bytes:
    """The file."""
    from safetensors.torch import save

    before = f"{trainer.prefix}." if trainer.prefix else ""
    tensors = {f"{before}{k}": v.contiguous().cpu() for k, v in trainer.net.state_dict().items()}
    header = {"config": json.dumps(asdict(trainer.config)), "terms": json.dumps(trainer.terms)}
    return save(tensors, {"kind": trainer.kind, **header, **about})


def sums(*arrays: np.ndarray | None) -> Sequence[float]:
    """What tells material from other material, for `told`; NaN is left out."""
    return [round(float(np.nansum(a, dtype=np.float64)), 4) for a in arrays if a is not None]
