"""What the trainings of the official networks share: a run that goes on after an interruption and ends in one file."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from vocalface.errors import OutputError
from vocalface.training import checkpoint
from vocalface.training.distributed import World
from vocalface.training.files import write_atomically
from vocalface.training.loop import Loop


class Trainer(Protocol):
    """A network in training. `told` is what the run depends on besides its configuration: material, given weights."""

    config: Any
    world: World
    net: nn.Module
    told: Any

    def step(self, step: int) -> dict[str, float]: ...
    def state(self) -> dict: ...
    def restore(self, state: dict) -> None: ...


def run(trainer: Trainer, prefix: str, output: Path | str, *, progress=None, work: Path | None = None) -> dict:
    """Train and write `output` (safetensors, keys as in the published file: `prefix`, or a parent module's own).

    A run of the same configuration, material and given weights that was interrupted goes on.

    Args:
        work: folder for the checkpoints (default: beside the output); only what is this run's own is removed from it.

    Returns:
        The number of steps and the last losses.

    Raises:
        OutputError.
    """
    config, world, output = trainer.config, trainer.world, Path(output)
    if output.suffix != ".safetensors":
        better = output.with_suffix(".safetensors").name
        raise OutputError("weights are a .safetensors file", output, f"use -o {better}")
    key = hashlib.sha256(repr((prefix, config, trainer.told)).encode()).hexdigest()[:16]
    states = (work or output.with_name(f".{output.stem}.work")) / key
    found = checkpoint.latest(states)
    if found:
        trainer.restore(found[1])
    last: dict[str, float] = {}

    def step(k: int) -> dict[str, float]:
        last.update(trainer.step(k))
        return dict(last)

    def save(done: int) -> None:
        if world.leads:
            checkpoint.save(states, done, trainer.state(), {"config": asdict(config)})

    Loop(config.steps, step, save_fn=save, progress=progress if world.leads else None).run(found[0] if found else 0)
    if world.leads:
        from safetensors.torch import save as to_bytes

        net = trainer.net
        names = "" if isinstance(net, nn.ModuleDict) else f"{prefix}."  # of several networks, each under its name
        tensors = {f"{names}{k}": v.contiguous().cpu() for k, v in net.state_dict().items()}
        write_atomically(output, to_bytes(tensors, {"kind": prefix, "config": json.dumps(asdict(config))}))
        shutil.rmtree(states, ignore_errors=True)
        if work is None and states.parent.is_dir() and not any(states.parent.iterdir()):
            states.parent.rmdir()
    return {"steps": config.steps, **last}
