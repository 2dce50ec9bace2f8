"""Training over several processes: `torchrun` starts them, gradients are averaged, a step decides its draws.

Run alone, everything here does nothing. Gradients are averaged by hand, not by a wrapper around the modules: steps here
use a network several times and with several optimisers, which a wrapper does not follow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from vocalface.errors import DeviceError
from vocalface.training.rng import at


@dataclass(frozen=True)
class World:
    """The processes of a run and this one among them."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and shows progress."""
        return self.rank == 0


def join(device: str = "cpu") -> World:
    """Meet the other processes that `torchrun` started (gloo on the CPU, NCCL on GPUs); alone without it.

    Raises DeviceError for cuda without as many GPUs as processes.
    """
    size, rank, local = (int(os.environ.get(n, d)) for n, d in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0)))
    if device == "cuda" and torch.cuda.device_count() <= local:
        raise DeviceError(
            f"process {local} finds {torch.cuda.device_count()} CUDA devices", "--device cuda",
            "start one process for each GPU, or use --device cpu",
        )  # fmt: skip
    place = f"cuda:{local}" if device == "cuda" else "cpu"
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return World(rank, size, place)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rows(count: int, batch: int, seed: int, step: int, world: World | None = None) -> np.ndarray:
    """This process's part of the batch of `step`: rows of 0..count-1, drawn without replacement where they suffice.

    The whole batch depends on (seed, step) alone, whatever the number of processes; `batch` is that of all together.
    """
    world = world or World()
    whole = at(seed, step, stream=7).choice(count, batch, replace=batch > count)
    return np.array_split(whole, world.size)[world.rank]


def average(tensors: Iterable[Tensor | None], world: World) -> None:
    """Each tensor becomes the mean over the processes, in place and in one exchange."""
    found = [t for t in tensors if t is not None and t.is_floating_point()]
    if world.size == 1 or not found:
        return
    flat = torch.cat([t.detach().reshape(-1).float() for t in found])
    dist.all_reduce(flat)
    flat /= world.size
    for tensor, part in zip(found, flat.split([t.numel() for t in found])):
        tensor.detach().copy_(part.view_as(tensor))


def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Means of equally large parts of a batch: what one process would compute over the whole of it.

    A parameter without a gradient in this process takes part with zero, so that all exchange the same.
    """
    parameters = [p for p in parameters if p.requires_grad]
    if world.size > 1:
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    average([p.grad for p in parameters], world)


def alike(module: nn.Module, world: World) -> None:
    """Every process takes the first one's weights and buffers."""
    if world.size > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.detach(), 0)
