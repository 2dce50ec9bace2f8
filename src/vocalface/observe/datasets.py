"""Data folders made for TalkingGaussian, ER-NeRF and their kin, loaded as Observations.

Expected: `transforms_train.json`, `transforms_val.json`, `ori_imgs/{i}.jpg`, `parsing/{i}.png`, `torso_imgs/{i}.png`,
`bc.jpg`, `aud.wav`, `au.csv`, and `ori_imgs/{i}.lms` (68 points) where present.

Convention: their poses are camera-to-world in OpenGL axes (x right, y up, z back); ours are world-to-camera in OpenCV
axes (x right, y down, z forward). The change of axes happens here and nowhere else.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import ObservationsError
from vocalface.observe import action_units, store
from vocalface.observe.indices import LANDMARKS_68
from vocalface.types import BACKGROUND, FACE, HAIR, MOUTH, NECK, TORSO, Camera, CropBox, FaceTrack, Observations

# Colours of the parsing pictures, RGB.
_COLORS = {
    (0, 0, 255): FACE, (0, 0, 0): HAIR, (100, 100, 100): MOUTH, (0, 255, 0): NECK, (255, 0, 0): TORSO,
    (255, 255, 255): BACKGROUND,
}  # fmt: skip


def world_to_camera(transform: np.ndarray) -> np.ndarray:
    """OpenGL camera-to-world [..., 4, 4] -> OpenCV world-to-camera [..., 4, 4]."""
    flipped = np.array(transform, np.float64)
    flipped[..., :3, 1:3] *= -1
    return np.linalg.inv(flipped)


def labels_of(parsing: np.ndarray) -> np.ndarray:
    """Parsing colours [H, W, 3] uint8 -> label mask [H, W]; a pixel takes the nearest of the six colours."""
    table = np.array(list(_COLORS), np.int32)
    distance = ((parsing[..., None, :].astype(np.int32) - table) ** 2).sum(-1)
    return np.array(list(_COLORS.values()), np.uint8)[distance.argmin(-1)]


def load(folder: Path | str) -> Observations:
    """The folder as Observations; a clip and the layers are written once into `FOLDER/vocalface.obs`.

    Frames without a pose keep their number: they are marked invalid and interpolated.

    Raises:
        ObservationsError: files are missing or do not fit one another.
    """
    folder = Path(folder)
    target = folder / "vocalface.obs"
    if (target / "observations.json").exists():
        return store.load(target)
    header, entries = _transforms(folder)
    frames = max(e["img_id"] for e in entries) + 1
    valid = np.zeros(frames, bool)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    for e in entries:
        valid[e["img_id"]] = True
        poses[e["img_id"]] = world_to_camera(np.array(e["transform_matrix"]))
    first = media.read_image(_need(folder / "ori_imgs" / f"{entries[0]['img_id']}.jpg"))
    size = first.shape[0]
    if first.shape[1] != size:
        raise ObservationsError(f"frames are {first.shape[1]}x{size}, not square", folder, "crop them first")
    from vocalface.observe.landmarks import fill

    units = action_units.from_table(_need(folder / "au.csv"), frames)
    points = fill(_landmarks(folder, frames, valid, size), valid)
    track = FaceTrack(
        valid, points, np.zeros((frames, 52), np.float32), units, fill(poses.reshape(frames, -1), valid)
        .reshape(frames, 4, 4).astype(np.float32),
    )  # fmt: skip
    focal = float(header["focal_len"])
    camera = Camera(focal, focal, float(header["cx"]), float(header["cy"]), size, size)
    plate = media.read_image(_need(folder / "bc.jpg"))
    writer = store.ObservationsWriter(target, size)
    clip = target / "clip.mkv"
    last = first
    with media.VideoWriter(clip, size, size, crf=4, sound=_need(folder / "aud.wav")) as video:
        for i in range(frames):
            image = folder / "ori_imgs" / f"{i}.jpg"
            last = media.read_image(image) if image.exists() else last
            video.write(last)
            if valid[i]:
                labels = labels_of(media.read_image(_need(folder / "parsing" / f"{i}.png")))
                torso = media.read_image(_need(folder / "torso_imgs" / f"{i}.png"), alpha=True)
            head = np.isin(labels, (FACE, HAIR, MOUTH))
            writer.add(labels, head.astype(np.uint8) * 255, torso)
    return writer.finish(
        clip=clip, clip_hash=store.file_hash(clip), crop=CropBox(0, 0, size), camera=camera, track=track, plate=plate,
        shots=[(0, frames)], info={"action_units": "openface table", "from": "data folder", "has_sound": True},
    )  # fmt: skip


def _need(path: Path) -> Path:
    if not path.exists():
        raise ObservationsError(f"{path.name} is missing", path.parent, "finish that project's preprocessing first")
    return path


def _transforms(folder: Path) -> tuple[dict, list[dict]]:
    header, entries = {}, []
    for name in ("transforms_train.json", "transforms_val.json"):
        path = folder / name
        if not path.exists() and entries:
            continue
        try:
            data = json.loads(_need(path).read_text())
            header = header or {k: data[k] for k in ("focal_len", "cx", "cy")}
            entries += [{"img_id": int(f["img_id"]), "transform_matrix": f["transform_matrix"]} for f in data["frames"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ObservationsError(
                f"cannot be read: {error}", path, "make it again with that project's tools"
            ) from error
    if not entries:
        raise ObservationsError("no frames are listed", folder, "finish that project's preprocessing first")
    return header, sorted(entries, key=lambda e: e["img_id"])


def _landmarks(folder: Path, frames: int, valid: np.ndarray, size: int) -> np.ndarray:
    """[T, 478, 3]: the 68 stored points at their indices, every other index at the nearest of them by the template."""
    out = np.zeros((frames, 478, 3), np.float32)
    for i in np.flatnonzero(valid):
        path = folder / "ori_imgs" / f"{i}.lms"
        points = np.loadtxt(_need(path), dtype=np.float32).reshape(-1, 2)
        if len(points) != 68:
            raise ObservationsError(f"{len(points)} landmarks, expected 68", path, "detect 68 points a frame")
        out[i, :, :2] = points.mean(0)
        out[i, LANDMARKS_68, :2] = points
    return out
