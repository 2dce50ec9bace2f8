"""Training over several processes: `torchrun` starts them, gradients are averaged, a step decides its draws.

Run alone, everything here does nothing. Gradients are averaged by hand, not by a wrapper around the modules: steps here
use a network several times and with several optimisers, which a wrapper does not follow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from vocalface.errors import ConfigError, DeviceError
from vocalface.training.rng import at

T = TypeVar("T")
PATIENCE = timedelta(days=1)
"""How long a process waits for the others: the first may be preparing a corpus; `torchrun` ends all when one fails."""


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

    def share(self, batch: int) -> np.ndarray:
        """This process's places in a batch of all processes."""
        return np.array_split(np.arange(batch), self.size)[self.rank]

    def check(self, batch: int) -> None:
        """Raises ConfigError for a batch that the processes cannot share evenly: their means would weigh unequally."""
        if batch % self.size:
            raise ConfigError(
                f"a batch of {batch} cannot be shared by {self.size} processes",
                "batch",
                f"use a multiple of {self.size}",
            )


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
    if device == "cuda":
        torch.cuda.set_device(local)  # NCCL's barrier asks for the current one
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    return World(rank, size, place)


def leave() -> None:
    """Part from the other processes, together: gloo aborts one that still waits for a neighbour already gone."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def rows(count: int, batch: int, seed: int, step: int, world: World | None = None) -> np.ndarray:
    """This process's part of the batch of `step`: rows of 0..count-1, drawn without replacement where they suffice.

    The whole batch depends on (seed, step) alone, whatever the number of processes; `batch` is that of all together.
    """
    world = world or World()
    return at(seed, step, stream=7).choice(count, batch, replace=batch > count)[world.share(batch)]


def average(tensors: Iterable[Tensor | None], world: World) -> None:
    """Each tensor becomes the mean over the processes, in place and in one exchange."""
    found = [t for t in tensors if t is not None and t.is_floating_point()]
    if world.size == 1 or not found:
        return
    flat = torch.cat([t.detach().reshape(-1) for t in found])
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


def highest(number: int, world: World) -> int:
    """The largest of what the processes have."""
    if world.size == 1:
        return number
    held = torch.tensor(number, dtype=torch.int64, device=world.device)
    dist.all_reduce(held, op=dist.ReduceOp.MAX)
    return int(held)


def agreed(number: int, world: World) -> bool:
    """Whether every process has the same number."""
    return highest(number, world) == -highest(-number, world)


def first_then_all(work: Callable[[], T], world: World) -> T:
    """`work`, done by the first process alone before the others do it too: what it leaves on disk they find."""
    out = work() if world.leads else None
    if world.size > 1:
        dist.barrier()
    return out if world.leads else work()


# ------------------------------------------------------------------------------------------------------- normalisation
class _Mean(torch.autograd.Function):
    """The mean over the processes; so is its gradient, since each holds one part of the loss."""

    @staticmethod
    def forward(ctx, value: Tensor, size: int) -> Tensor:
        ctx.size = size
        out = value.clone()
        dist.all_reduce(out)
        return out / size

    @staticmethod
    def backward(ctx, slope: Tensor):
        out = slope.clone()
        dist.all_reduce(out)
        return out / ctx.size, None


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the parts of all processes (PyTorch's own needs a GPU). The parts are of one size."""

    size = 1

    def _check_input_dim(self, x: Tensor) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *(1,) * (x.ndim - 2))
        mean = _Mean.apply(x.mean(axes), self.size)
        centred = x - mean.view(shape)
        variance = _Mean.apply(centred.square().mean(axes), self.size)
        with torch.no_grad():
            count = self.size * x.numel() // x.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)
        return centred * (self.weight / (variance + self.eps).sqrt()).view(shape) + self.bias.view(shape)


def synchronise(module: nn.Module, world: World) -> None:
    """Batch norms of `module` see the batch of all processes, so that several give what one gives with all of it."""
    if world.size == 1:
        return
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine and layer.track_running_stats:
            layer.__class__ = SharedBatchNorm  # keeps parameters, buffers and their names
            layer.size = world.size
