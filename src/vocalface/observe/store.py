"""Observations on disk: one folder `NAME.obs/`, whole when `observations.json` is there (it is written last).

observations.json  schema, source, crop, intrinsics, shots, what was done
track.npz          landmarks, blendshapes, action units, poses
plate_0.png …      the background alone, one a shot
labels.mkv         label mask, lossless       alpha.mkv    matte of the head, lossless
torso.mkv          torso colour, near-lossless    torso_alpha.mkv   its alpha, lossless
"""

from __future__ import annotations

import hashlib
import json
import os
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
    """Writes a folder frame by frame; nothing counts until `finish`."""

    def __init__(self, folder: Path | str, size: int) -> None:
        self.folder, self.size = Path(folder), size
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "observations.json").unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot write here ({error.strerror})", self.folder, "choose another folder with -o"
            ) from error
        self.writers = {
            name: media.LayerWriter(self.folder / f"{name}.mkv", size, size, mode) for name, mode in LAYERS.items()
        }
        self.count = 0

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

    def finish(
        self, *, clip: Path, clip_hash: str, crop: CropBox, camera: Camera, track: FaceTrack, plate: np.ndarray,
        shots: list[tuple[int, int]] | None = None, info: dict | None = None,
    ) -> Observations:  # fmt: skip
        for writer in self.writers.values():
            writer.__exit__(None, None, None)
        if self.count != len(track):
            raise ObservationsError(
                f"{self.count} frames of layers, {len(track)} rows of the track", self.folder, "observe the clip again"
            )
        plates = np.asarray(plate) if np.ndim(plate) == 4 else np.asarray(plate)[None]
        for k, picture in enumerate(plates):
            media.write_image(self.folder / f"plate_{k}.png", picture)
        save_track(self.folder / "track.npz", track)
        clip = Path(clip)
        header = {
            "schema": SCHEMA, "source": os.path.relpath(clip, self.folder), "source_absolute": str(clip.resolve()),
            "source_sha256": clip_hash, "frames": len(track), "size": self.size, "crop": [crop.x, crop.y, crop.side],
            "camera": [camera.fx, camera.fy, camera.cx, camera.cy], "plates": len(plates),
            "shots": shots or [(0, len(track))], "info": info or {},
        }  # fmt: skip
        part = self.folder / ".observations.json.part"
        part.write_text(json.dumps(header, indent=1))
        os.replace(part, self.folder / "observations.json")
        return load(self.folder)


def save_track(path: Path, track: FaceTrack, **more: np.ndarray) -> None:
    """Write a track atomically."""
    part = path.with_name(f".{path.name}.part.npz")
    np.savez_compressed(
        part, valid=track.valid, landmarks=track.landmarks.astype(np.float32),
        blendshapes=track.blendshapes.astype(np.float32), action_units=track.action_units.astype(np.float32),
        head_pose=track.head_pose.astype(np.float32), **more,
    )  # fmt: skip
    os.replace(part, path)


def load(folder: Path | str) -> Observations:
    """Open a folder. Raises ObservationsError when it is not whole or its source is gone."""
    folder = Path(folder)
    try:
        header = json.loads((folder / "observations.json").read_text())
        data = np.load(folder / "track.npz")
        track = FaceTrack(*(data[k] for k in ("valid", "landmarks", "blendshapes", "action_units", "head_pose")))
    except (OSError, ValueError, KeyError) as error:
        raise ObservationsError("not a whole folder of observations", folder, "vocalface observe CLIP") from error
    if header.get("schema", 0) > SCHEMA:
        raise ObservationsError("written by a newer version", folder, "pip install -U vocalface")
    if len(track) != header["frames"] or any(len(v) != len(track) for v in vars(track).values()):
        raise ObservationsError(
            f"the track has {len(track)} rows, the header says {header['frames']}", folder, "observe the clip again"
        )
    missing = [n for n in LAYERS if not (folder / f"{n}.mkv").exists()]
    if missing:
        raise ObservationsError(f"layers are missing: {', '.join(missing)}", folder, "observe the clip again")
    size = header["size"]
    plates = np.stack([media.read_image(folder / f"plate_{k}.png") for k in range(header["plates"])])
    return Observations(
        folder, _source(folder, header), header["source_sha256"], CropBox(*header["crop"]), size,
        Camera(*header["camera"], size, size), track, plates,
        [tuple(s) for s in header["shots"]], header["info"],
    )  # fmt: skip


def _source(folder: Path, header: dict) -> Path:
    """The source where it was, or beside the folder under its old name."""
    for path in (
        folder / header["source"], Path(header["source_absolute"]), folder.parent / Path(header["source"]).name,
        folder / Path(header["source"]).name,
    ):  # fmt: skip
        if path.is_file():
            return path.resolve()
    raise ObservationsError(
        "the source video is gone", header["source_absolute"], f"put it back, or beside {folder.name}"
    )


def frames(obs: Observations, start: int = 0, stop: int | None = None) -> Iterator[ObservedFrame]:
    """Frames [start, stop) with their layers, in constant memory."""
    stop = len(obs) if stop is None else min(stop, len(obs))
    offset = int(obs.info.get("start_frame", 0))
    view = media.open_clip(obs.clip).at(25)
    layers = zip(*(media.read_layer(obs.folder / f"{n}.mkv", start, stop) for n in LAYERS))
    images = view.iterate(start + offset, stop + offset)
    for index, (image, (labels, alpha, torso, torso_alpha)) in enumerate(zip(images, layers), start):
        weight = torso_alpha[..., None].astype(np.uint16)
        behind = (
            torso.astype(np.uint16) * weight + obs.plate_at(index).astype(np.uint16) * (255 - weight) + 127
        ) // 255
        yield ObservedFrame(
            index, media.crop(image, obs.crop, obs.size), labels, alpha, np.dstack([torso, torso_alpha]),
            behind.astype(np.uint8),
        )  # fmt: skip
