"""A place for face restoration by the user's own weights: each drawn square goes through it before it is put back.

The network takes and gives RGB [1, 3, S, S] float32, in [0, 1], or in [-1, 1] when `signed` (GFPGAN, RestoreFormer). It
may enlarge; what comes out is brought back to the square's size. An ONNX file with a fixed input size is fed that size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vocalface.errors import AssetError, ConfigError
from vocalface.media.crop import resize

Enhancer = Callable[[np.ndarray], np.ndarray]
"""[S, S, 3] uint8 -> [S', S', 3] uint8."""


def load(path: Path | str, signed: bool = False) -> Enhancer:
    """An enhancer of an ONNX (.onnx) or TorchScript (.pt, .ts) file.

    Raises AssetError (absent, not such a file), ConfigError (another kind of file, ONNX Runtime absent).
    """
    path = Path(path)
    if not path.is_file():
        raise AssetError("the enhancer's file is not there", path, "give a .onnx or TorchScript .pt file of your own")
    if path.suffix.lower() == ".onnx":
        run, side = _onnx(path)
    elif path.suffix.lower() in (".pt", ".ts", ".torchscript"):
        run, side = _script(path)
    else:
        raise ConfigError(
            f"an enhancer is no {path.suffix or 'file without suffix'}", path, "export it as .onnx or .pt"
        )
    low, high = (-1.0, 1.0) if signed else (0.0, 1.0)

    def enhance(image: np.ndarray) -> np.ndarray:
        size = image.shape[0]
        given = resize(image, side, side) if side and side != size else image
        x = given.transpose(2, 0, 1)[None].astype(np.float32) / 255 * (high - low) + low
        out = np.asarray(run(np.ascontiguousarray(x)), np.float32)
        if out.ndim != 4 or out.shape[:2] != (1, 3):
            raise ConfigError(f"the enhancer gave {list(out.shape)}", path, "it should give [1, 3, S, S]")
        made = np.clip((out[0].transpose(1, 2, 0) - low) / (high - low) * 255 + 0.5, 0, 255).astype(np.uint8)
        return resize(np.ascontiguousarray(made), size, size)

    return enhance


def _onnx(path: Path) -> tuple[Callable[[np.ndarray], np.ndarray], int | None]:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("ONNX Runtime is not installed", path, 'pip install "vocalface[metrics]"') from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises kinds of its own
        raise AssetError("the enhancer cannot be read as ONNX", path, "export it again") from error
    entry = session.get_inputs()[0]
    side = entry.shape[-1] if isinstance(entry.shape[-1], int) else None
    return lambda x: session.run(None, {entry.name: x})[0], side


def _script(path: Path) -> tuple[Callable[[np.ndarray], np.ndarray], int | None]:
    import torch

    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise AssetError("the enhancer cannot be read as TorchScript", path, "export it again") from error

    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            out = network(torch.from_numpy(x))
        return (out[0] if isinstance(out, tuple | list) else out).numpy()

    return run, None
