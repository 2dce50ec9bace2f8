"""Weights of the open motion networks: small safetensors, half precision, with what made them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vocalface.errors import AssetError, OutputError


def check_output(out: str | Path) -> Path:
    """Raises OutputError for a place where the weights could not be written, before minutes of work."""
    from vocalface.training.files import check_writable

    out = Path(out)
    if out.suffix != ".safetensors":
        raise OutputError(
            "weights are a .safetensors file", out, f"use -o {out.with_suffix('.safetensors').name}"
        )  # fmt: skip
    check_writable(out)
    return out


def save(out: str | Path, kind: str, tensors: dict[str, np.ndarray], config: dict) -> None:
    """Writes weights; the file appears only when it is whole. Raises OutputError."""
    from safetensors.numpy import save_file

    out = Path(out)
    part = out.with_name(f".{out.name}.part")
    half = {name: np.ascontiguousarray(value, np.float16) for name, value in tensors.items()}
    try:
        save_file(half, part, {"kind": kind, "config": json.dumps(config)})
        part.chmod(0o644)
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"Cannot write the weights ({error})", out, "choose another file with -o") from None


def load(path: str | Path, kind: str, schema: int) -> tuple[dict[str, np.ndarray], dict]:
    """Tensors in float32 and the config; AssetError when the file is absent, altered, or of another kind or schema."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    again = f"install vocalface again, or make new weights: vocalface train sadtalker.{kind} --preset open"
    if not path.is_file():
        raise AssetError("The motion network's weights are absent", path, again)
    try:
        with safe_open(path, framework="numpy") as file:
            meta = file.metadata() or {}
            config = json.loads(meta.get("config", "{}"))
            if meta.get("kind") != kind or config.get("schema") != schema:
                found = f"{meta.get('kind')}, schema {config.get('schema')}"
                raise AssetError(f"These weights are of {found}; expected {kind}, schema {schema}", path, again)
            return {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}, config  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise AssetError(f"The motion network's weights cannot be read ({error})", path, again) from None


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dilation: int = 1) -> np.ndarray:
    """Valid convolution over time: x [T, C], weight [D, C, K] -> [T - (K - 1) dilation, D]."""
    taps = weight.shape[2]
    length = len(x) - (taps - 1) * dilation
    out = np.broadcast_to(bias, (length, len(bias))).astype(np.float32)
    for k in range(taps):
        out += x[k * dilation : k * dilation + length] @ weight[:, :, k].T
    return out


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


class Context:
    """Rows in, blocks with `before` rows of the past and `after` of the future around each out.

    Before the first row stands the first one again, after the last one the last, so that a stream and a file agree.
    """

    def __init__(self, before: int, after: int) -> None:
        self.before, self.after = before, after
        self.rows: np.ndarray | None = None

    def push(self, rows: np.ndarray) -> np.ndarray | None:
        """The block [k + before + after, D] of the k rows that are complete now; None when there is none."""
        if not len(rows):
            return None
        known = np.repeat(rows[:1], self.before, axis=0) if self.rows is None else self.rows
        known = np.concatenate([known, rows])
        self.rows = known[max(len(known) - self.before - self.after, 0) :]
        return known if len(known) > self.before + self.after else None

    def flush(self) -> np.ndarray | None:
        """The block of the rows still owed."""
        return None if self.rows is None else self.push(np.repeat(self.rows[-1:], self.after, axis=0))
