"""Checkpoints that a killed run resumes from: one safetensors file each, no pickle, whole or not there at all.

A state is any nesting of dicts, lists and tuples over tensors, arrays, numbers, strings, bools and None (optimiser
state dicts included). Tensors go into the file's data, the nesting into its JSON header. What comes back is bit-exact.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from vocalface.errors import OutputError
from vocalface.training.files import write_atomically

KEEP = 2
_NAME = re.compile(r"step_(\d{9})\.safetensors")


def discard(folder: Path, parent: bool = True) -> None:
    """Removes a run's checkpoints, and with `parent` the folder that they lay in when nothing else does."""
    shutil.rmtree(folder, ignore_errors=True)
    if parent and folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def save(folder: str | Path, step: int, state: dict, meta: dict | None = None) -> Path:
    """Writes `folder/step_NNNNNNNNN.safetensors` atomically and keeps the last two.

    Args:
        folder: made when absent.
        step: number of steps that are done.
        state: nested dict, see above; tensors are stored from whichever device they are on.
        meta: what JSON can hold (configuration, counters).

    Raises:
        OutputError: the folder cannot be written or the disk is full.
        TypeError: a leaf of `state` is of a kind that cannot be stored.
    """
    folder = Path(folder)
    path = folder / f"step_{step:09d}.safetensors"
    arrays: dict[str, np.ndarray] = {}
    header = {"step": step, "meta": meta or {}, "state": _pack(state, arrays)}
    header["crc32"] = _checksum(arrays)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_bytes(arrays, metadata={"vocalface": json.dumps(header)}))
    except OSError as error:
        raise OutputError(
            f"the checkpoint cannot be written: {error.strerror}", path, "free some space or choose another folder"
        ) from error
    for _, old in _files(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def latest(folder: str | Path) -> tuple[int, dict, dict] | None:
    """The newest whole checkpoint of `folder` as (step, state, meta), or None. Torn files are passed over.

    Tensors come back on the CPU, arrays as NumPy arrays.
    """
    for step, path in reversed(_files(Path(folder))):
        loaded = _load(path)
        if loaded is not None:
            return step, *loaded
    return None


def _files(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def _load(path: Path) -> tuple[dict, dict] | None:
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads(file.metadata()["vocalface"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    if _checksum(arrays) != header["crc32"]:
        return None
    return _unpack(header["state"], arrays), header["meta"]


def _checksum(arrays: dict[str, np.ndarray]) -> int:
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(arrays[name].tobytes(), crc)
    return crc


def _pack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The JSON twin of `value`; its tensors are moved into `arrays`. Containers become [tag, content]."""
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, dict):
        return ["dict", [[_pack(k, arrays), _pack(v, arrays)] for k, v in value.items()]]
    if isinstance(value, (list, tuple)):
        return ["list" if isinstance(value, list) else "tuple", [_pack(v, arrays) for v in value]]
    if isinstance(value, torch.Tensor):
        data, dtype = value.detach().cpu(), str(value.dtype).removeprefix("torch.")
        if value.dtype == torch.bfloat16:  # NumPy has none: keep the bits
            data = data.view(torch.int16)
        return ["tensor", _store(data.numpy(), arrays), dtype]
    if isinstance(value, (np.ndarray, np.generic)):
        return ["array" if isinstance(value, np.ndarray) else "scalar", _store(np.asarray(value), arrays)]
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def _store(array: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    name = f"t{len(arrays):06d}"
    arrays[name] = np.array(array, order="C")  # a copy: safetensors takes the raw buffer, strides unseen
    return name


def _unpack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, list):
        return value
    tag, content = value[0], value[1]
    if tag == "dict":
        return {_unpack(k, arrays): _unpack(v, arrays) for k, v in content}
    if tag == "list":
        return [_unpack(v, arrays) for v in content]
    if tag == "tuple":
        return tuple(_unpack(v, arrays) for v in content)
    if tag == "tensor":
        tensor = torch.from_numpy(arrays[content].copy())
        return tensor.view(torch.bfloat16) if value[2] == "bfloat16" else tensor
    return arrays[content][()] if tag == "scalar" else arrays[content]
