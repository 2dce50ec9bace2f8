"""A trained head: one `.vface` file that speaks with its source deleted.

The file is a safetensors file; its JSON header carries schema, configuration, metrics, consent and provenance, and a
hash of the tensors so that an altered file is refused. NumPy only: speaking on a CPU needs no torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import ConfigError, HeadError, OutputError
from vocalface.hmtalker.config import Config
from vocalface.training.files import check_writable, write_atomically
from vocalface.types import Camera, CropBox

SCHEMA = 1


@dataclass(frozen=True)
class Head:
    """Everything `speak` needs.

    arrays: raw Gaussians (`face.means` …), networks (`face_net.…`, `mouth_net.…`), speech statistics
    (`feature_mean`, `feature_std`), how far its controls swing (`swing.gain` [1], `swing.centre` [32]), closed-mouth
    controls (`closed.c_f`, `closed.mouth`), means and spread of the trained voice's controls (`voice.c_f`,
    `voice.mouth`, `voice.spread` [2]), and the reference track: `track.pose` [T, 4, 4], `track.upper` [T, 7], `plate`
    [S, S, 3] uint8, `torso.rgb` and `torso.alpha` (bytes of
    videos), `box` [4].
    """

    config: Config
    arrays: dict[str, np.ndarray]
    camera: Camera
    crop: CropBox
    feature_name: str
    metrics: dict = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)
    digest: str = ""

    def with_metrics(self, metrics: dict) -> Head:
        return replace(self, metrics=metrics)

    def segment(self, start: int = 0) -> tuple[int, int]:
        """The continuous run [a, b) of the track to play: the one that holds `start`, or the longest for start = 0."""
        runs = [tuple(int(v) for v in r) for r in self.arrays.get("track.segments", [(0, self.frames)])]
        if start:
            return next((r for r in runs if r[0] <= start < r[1]), runs[-1])
        return max(runs, key=lambda r: r[1] - r[0])

    @property
    def frames(self) -> int:
        """Length of the reference track."""
        return len(self.arrays["track.pose"])

    # --------------------------------------------------------------------------------------------------------- file
    @staticmethod
    def check_output(path: Path) -> None:
        """Raises ConfigError where `path` is no .vface file, OutputError where it cannot be written."""
        check_writable(path)
        if path.suffix != ".vface":
            raise ConfigError("a head is a .vface file", path, f"use -o {path.with_suffix('.vface').name}")

    def save(self, path: Path | str) -> Path:
        """Write atomically. Networks and canonical Gaussians as float16 where that loses nothing visible."""
        from safetensors.numpy import save

        path = Path(path)
        check_writable(path)
        arrays = {k: np.ascontiguousarray(v) for k, v in self.arrays.items()}
        header = {
            "schema": SCHEMA, "config": self.config.to_dict(), "metrics": self.metrics, "provenance": self.provenance,
            "feature": {"name": self.feature_name, "dim": len(arrays["feature_mean"])},
            "camera": [self.camera.fx, self.camera.fy, self.camera.cx, self.camera.cy, self.camera.width],
            "crop": [self.crop.x, self.crop.y, self.crop.side], "sha256": digest(arrays),
        }  # fmt: skip
        header = json.loads(json.dumps(header))  # as it will be read
        header["header_sha256"] = header_digest(header)
        data = save(arrays, {"vocalface": json.dumps(header)})
        try:
            write_atomically(path, data)
        except OSError as error:
            raise OutputError(f"cannot write the head: {error.strerror}", path, "free some disk space") from error
        return path

    @staticmethod
    def load(path: Path | str) -> Head:
        """Read and check a head. Raises HeadError for a truncated, altered or newer file."""
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise HeadError("no such head", path, "train one: vocalface train CLIP -o NAME.vface")
        try:
            with safe_open(path, framework="numpy") as f:
                meta = f.metadata() or {}
                arrays = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise HeadError("not a whole .vface file (truncated or damaged)", path, "copy or train it again") from error
        try:
            header = json.loads(meta["vocalface"])
            schema = int(header["schema"])
        except (KeyError, ValueError, TypeError) as error:
            raise HeadError("a safetensors file, but not a head", path, "give a file that `train` wrote") from error
        if schema > SCHEMA:
            raise HeadError(
                f"the head has schema {schema}, this version reads up to {SCHEMA}", path, "pip install -U vocalface"
            )
        altered = HeadError("the head was altered after training (its hash differs)", path, "copy or train it again")
        seal = header.pop("header_sha256", None)
        if header.get("sha256") != digest(arrays) or seal not in (None, header_digest(header)):
            raise altered
        try:
            fx, fy, cx, cy, size = header["camera"]
            return Head(
                Config.from_dict(header["config"]), arrays, Camera(fx, fy, cx, cy, int(size), int(size)),
                CropBox(*header["crop"]), header["feature"]["name"], header["metrics"], header["provenance"],
                header["sha256"],
            )  # fmt: skip
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise altered from error


def header_digest(header: dict) -> str:
    """sha256 of a head's header without its own seal."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def digest(arrays: dict[str, np.ndarray]) -> str:
    """sha256 over names, shapes, types and bytes."""
    h = hashlib.sha256()
    for key in sorted(arrays):
        a = np.ascontiguousarray(arrays[key])
        h.update(f"{key}{a.shape}{a.dtype}".encode())
        h.update(a.data)
    return h.hexdigest()


# -------------------------------------------------------------------------------------------------------------- layers
GOP = 16  # frames between key frames: playing the track backwards decodes one group at a time


class Layers:
    """The torso layer of a head, unpacked in `folder` and read either way one group of pictures at a time."""

    def __init__(self, head: Head, folder: Path) -> None:
        self.frames = head.frames
        self._paths = {}
        for name in ("rgb", "alpha"):
            path = folder / f"{name}.mp4"
            path.write_bytes(head.arrays[f"torso.{name}"].tobytes())
            self._paths[name] = path
        self._group = -1
        self._cache: dict[str, list[np.ndarray]] = {}
        self._clips = {k: media.open_clip(p) for k, p in self._paths.items()}

    def _load(self, group: int) -> None:
        if group != self._group:
            start, stop = group * GOP, min((group + 1) * GOP, self.frames)
            self._cache = {k: list(c.at(25).iterate(start, stop)) for k, c in self._clips.items()}
            self._group = group

    def behind(self, i: int) -> np.ndarray:
        """Torso over the plate, [S, S, 3] uint8."""
        self._load(i // GOP)
        return self._cache["rgb"][i % GOP]

    def torso_alpha(self, i: int) -> np.ndarray:
        self._load(i // GOP)
        return self._cache["alpha"][i % GOP][..., 0]
