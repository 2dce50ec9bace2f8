"""Observations on disk: one folder `NAME.obs/`, whole when `observations.json` is there (it is written last).

observations.json  schema, source, crop, intrinsics, shots, what was done
track.npz          landmarks, blendshapes, action units, poses
plate_0.png …      the background alone, one a shot
labels.mkv         label mask, lossless       alpha.mkv    matte of the head, lossless
torso.mkv          torso colour, near-lossless    torso_alpha.mkv   its alpha, lossless
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import ObservationsError, OutputError
from vocalface.types import Camera, CropBox, FaceTrack, Observations, ObservedFrame

SCHEMA = 1
LAYERS = {"labels": "labels", "alpha": "gray", "torso": "rgb", "torso_alpha": "gray"}


def file_hash(path: Path | str) -> str:
    """sha256 of a file's content."""
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


class ObservationsWriter:
    """Writes a folder frame by frame; nothing counts until `finish`, and until then what was there stays whole."""

    def __init__(self, folder: Path | str, size: int) -> None:
        self.folder, self.size = Path(folder), size
        self.new = self.folder / ".new"  # everything is written here first
        shutil.rmtree(self.new, ignore_errors=True)  # of a run that was killed
        try:
            self.new.mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"cannot write here ({error.strerror})", self.folder, "choose another folder with -o"
            ) from error
        self.writers: dict[str, media.LayerWriter] = {}
        self.count = 0
        try:
            for name, mode in LAYERS.items():
                self.writers[name] = media.LayerWriter(self.new / f"{name}.mkv", size, size, mode)
        except BaseException:
            self.abort()
            raise

    def add(self, labels: np.ndarray, head_alpha: np.ndarray, torso: np.ndarray) -> None:
        """The layers of the next frame: [S, S], [S, S], [S, S, 4], all uint8."""
        for name, layer in (
            ("labels", labels), ("alpha", head_alpha), ("torso", torso[..., :3]), ("torso_alpha", torso[..., 3]),
        ):  # fmt: skip
            self.writers[name].write(layer)
        self.count += 1

    def abort(self) -> None:
        """Drop what was written so far."""
        for writer in self.writers.values():
            writer.__exit__(RuntimeError, None, None)
        shutil.rmtree(self.new, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # where it holds nothing else

    def finish(
        self, *, clip: Path, clip_hash: str, crop: CropBox, camera: Camera, track: FaceTrack, plate: np.ndarray,
        shots: list[tuple[int, int]] | None = None, info: dict | None = None,
    ) -> Observations:  # fmt: skip
        """Close the layers, write the rest and, last of all, move the header that makes the folder count.

        Args:
            plate: [S, S, 3], or [P, S, S, 3] for one of each shot.

        Raises:
            ObservationsError: the layers and the track are not equally long. OutputError: the disk is full.
        """
        if self.count != len(track):
            self.abort()
            raise ObservationsError(
                f"{self.count} frames of layers, {len(track)} rows of the track", self.folder, "observe the clip again"
            )
        clip, plates = Path(clip), np.asarray(plate) if np.ndim(plate) == 4 else np.asarray(plate)[None]
        header = {
            "schema": SCHEMA, "source": os.path.relpath(clip, self.folder), "source_absolute": str(clip.resolve()),
            "source_sha256": clip_hash, "source_bytes": clip.stat().st_size, "frames": len(track), "size": self.size,
            "crop": [crop.x, crop.y, crop.side], "camera": [camera.fx, camera.fy, camera.cx, camera.cy],
            "plates": len(plates), "shots": shots or [(0, len(track))], "info": info or {},
        }  # fmt: skip
        try:
            for writer in self.writers.values():
                writer.__exit__(None, None, None)
            for k, picture in enumerate(plates):
                media.write_image(self.new / f"plate_{k}.png", picture)
            save_track(self.new / "track.npz", track)
            (self.new / "observations.json").write_text(json.dumps(header, indent=1))
            self._publish()
        except OSError as error:
            raise OutputError(f"cannot write ({error.strerror})", self.folder, "free some disk space") from error
        finally:
            self.abort()
        return load(self.folder)

    def _publish(self) -> None:
        """The old header goes first and the new one comes last: what lies between is no folder of observations."""
        (self.folder / "observations.json").unlink(missing_ok=True)
        for old in self.folder.glob("plate_*.png"):
            old.unlink()
        for path in sorted(self.new.iterdir(), key=lambda p: p.name == "observations.json"):
            path.replace(self.folder / path.name)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an .npz that appears only when it is whole. Raises OutputError."""
    part = path.with_name(f".{path.stem}.part.npz")
    try:
        np.savez_compressed(part, **arrays)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"cannot write ({error.strerror})", path, "free some disk space") from error


def save_track(path: Path, track: FaceTrack) -> None:
    """Write a track atomically."""
    save_arrays(path, **{k: v if k == "valid" else v.astype(np.float32) for k, v in vars(track).items()})


SHAPES = {
    "valid": (), "landmarks": (478, 3), "blendshapes": (52,), "action_units": (17,), "head_pose": (4, 4),
}  # fmt: skip
"""Shape of a row of each array of a track."""


def load(folder: Path | str) -> Observations:
    """Open a folder. Raises ObservationsError when it is not whole or its source is gone."""
    folder = Path(folder)
    again = "vocalface observe CLIP"
    if not folder.is_dir():
        raise ObservationsError("no such folder of observations", folder, again)
    try:
        header = json.loads((folder / "observations.json").read_text())
        newer = header.get("schema", 0) > SCHEMA
    except FileNotFoundError as error:
        raise ObservationsError("not a whole folder of observations (interrupted?)", folder, again) from error
    except (OSError, ValueError, AttributeError) as error:
        raise ObservationsError("observations.json cannot be read", folder, again) from error
    if newer:
        raise ObservationsError("written by a newer version", folder, "pip install -U vocalface")
    missing = [n for n in ("track.npz", *(f"{n}.mkv" for n in LAYERS)) if not (folder / n).is_file()]
    if missing:
        raise ObservationsError(f"not a whole folder: {', '.join(missing)} missing", folder, again)
    try:
        with np.load(folder / "track.npz") as data:
            track = FaceTrack(**{k: data[k] for k in SHAPES})
        rows, size, crop = int(header["frames"]), int(header["size"]), CropBox(*header["crop"])
        camera = Camera(*header["camera"], size, size)
        shots, info, content = [tuple(s) for s in header["shots"]], dict(header["info"]), header["source_sha256"]
        plates = [folder / f"plate_{k}.png" for k in range(header["plates"])]
        source = _source(folder, header)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ObservationsError("not a whole folder of observations (damaged)", folder, again) from error
    for name, shape in SHAPES.items():
        if getattr(track, name).shape != (rows, *shape):
            raise ObservationsError(
                f"{name} is {getattr(track, name).shape}, expected {(rows, *shape)}", folder / "track.npz", again
            )
    pictures = [media.read_image(p) for p in plates]
    if not plates or any(p.shape != (size, size, 3) for p in pictures):
        raise ObservationsError(f"a plate is missing or not {size}x{size}", folder, again)
    return Observations(folder, source, content, crop, size, camera, track, np.stack(pictures), shots, info)


def _source(folder: Path, header: dict) -> Path:
    """The source where it was; else beside the folder, by name or, under another name, by content."""
    name, content, length = Path(header["source"]).name, header["source_sha256"], header.get("source_bytes")
    for path in (folder / header["source"], Path(header["source_absolute"]), folder.parent / name, folder / name):
        if path.is_file() and length in (None, path.stat().st_size):
            return path.resolve()
    for path in sorted(folder.parent.iterdir()):
        if path.is_file() and path.stat().st_size == length and file_hash(path) == content:
            return path.resolve()
    raise ObservationsError(
        "the source video is gone or was altered", header["source_absolute"],
        f"put {name} back, or beside {folder.name}",
    )  # fmt: skip


def frames(obs: Observations, start: int = 0, stop: int | None = None) -> Iterator[ObservedFrame]:
    """Frames [start, stop) with their layers, in constant memory.

    Raises:
        ObservationsError: the source or a layer ends too early.
    """
    stop = len(obs) if stop is None else min(stop, len(obs))
    offset = int(obs.info.get("start_frame", 0))
    view = media.open_clip(obs.clip).at(25)
    layers = zip(*(media.read_layer(obs.folder / f"{n}.mkv", start, stop) for n in LAYERS))
    images = view.iterate(start + offset, stop + offset)
    index = start - 1
    for index, (image, (labels, alpha, torso, torso_alpha)) in enumerate(zip(images, layers), start):
        yield ObservedFrame(
            index, media.crop(image, obs.crop, obs.size), labels, alpha, np.dstack([torso, torso_alpha]),
            media.over(torso, obs.plate_at(index), torso_alpha),
        )  # fmt: skip
    _all_read(obs, index + 1, stop)


def torsos(obs: Observations) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The torso layer alone: every frame's colour [S, S, 3] and straight alpha [S, S], uint8.

    Raises:
        ObservationsError: the layer ends too early.
    """
    count = 0
    for part in zip(*(media.read_layer(obs.folder / f"{n}.mkv", 0, len(obs)) for n in ("torso", "torso_alpha"))):
        count += 1
        yield part
    _all_read(obs, count, len(obs))


def _all_read(obs: Observations, count: int, wanted: int) -> None:
    if count < wanted:
        raise ObservationsError(f"frame {count} of {wanted} cannot be read", obs.folder, "observe the clip again")
