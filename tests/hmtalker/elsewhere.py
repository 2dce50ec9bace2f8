"""Tensors that say they live on another device, on a machine that has none.

`Far` wraps a CPU tensor and claims the device "meta"; what is computed from it is `Far` again, with real values. As on
a GPU, an operation that mixes it with CPU tensors fails, and NumPy cannot read it. So training's device handling is
tested where no GPU is.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FAR = torch.device("meta")
MAY_MIX = ("_to_copy", "copy_", "index")  # transfers, and indices that live on the CPU


class Far(torch.Tensor):
    @staticmethod
    def __new__(cls, near):
        out = torch.Tensor._make_wrapper_subclass(
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype, device=FAR
        )
        out.near = near
        return out

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return call(func, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Within it `.to("meta")` and `device="meta"` make `Far` tensors."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return call(func, args, kwargs or {})


def poison(tensor):
    if tensor.is_floating_point():
        tensor.fill_(torch.nan)
    elif tensor.dtype != torch.bool:
        tensor.fill_(torch.iinfo(tensor.dtype).max)


def call(func, args, kwargs):
    name = func.overloadpacket.__name__
    leaves = tree_leaves((args, kwargs))
    far = any(isinstance(a, Far) for a in leaves)
    near = [a for a in leaves if isinstance(a, torch.Tensor) and not isinstance(a, Far) and a.dim()]
    if far and near and not any(name.startswith(m) or name.endswith(m) for m in MAY_MIX):
        raise RuntimeError(f"{name} mixes devices: CPU tensors of shape {[tuple(a.shape) for a in near]}")
    place = kwargs.get("device")
    args, kwargs = tree_map(lambda a: a.near if isinstance(a, Far) else a, (args, dict(kwargs)))
    if place is not None:
        kwargs["device"] = torch.device("cpu")
    out = func(*args, **kwargs)
    if name.startswith(("empty", "new_empty")):
        # where PyTorch takes this for the real "meta" (`x[:, [0, 1]]`) nothing fills it: let that show at once
        poison(out)
    if func._schema.is_mutable and not name.startswith("empty"):
        return out if not far else tree_map(lambda o: Far(o) if isinstance(o, torch.Tensor) else o, out)
    far = torch.device(place) == FAR if place is not None else far
    return tree_map(lambda o: Far(o) if far and isinstance(o, torch.Tensor) else o, out)
