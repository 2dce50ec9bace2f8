"""Data folders made for TalkingGaussian, ER-NeRF and their kin, loaded as Observations.

Expected: `transforms_train.json`, `transforms_val.json`, `ori_imgs/{i}.jpg`, `parsing/{i}.png`, `torso_imgs/{i}.png`,
`bc.jpg`, `aud.wav`, `au.csv`; `ori_imgs/{i}.lms` (68 points) and `teeth_mask/{i}.npy` where present.

Convention: their poses are camera-to-world in OpenGL axes (x right, y up, z back); ours are world-to-camera in OpenCV
axes (x right, y down, z forward). The change of axes happens here and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import AssetError, ObservationsError
from vocalface.observe import action_units, store
from vocalface.observe.indices import EYE_LEFT, EYE_RIGHT, FACE_OVAL, LANDMARKS_68, LIPS_INNER, LIPS_OUTER
from vocalface.observe.landmarks import Landmarker, fill, runs
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
    units = action_units.from_table(_need(folder / "au.csv"), frames)
    plate = media.read_image(_need(folder / "bc.jpg"))
    points, shapes, provider = _landmarks(folder, frames, valid)
    track = FaceTrack(valid, fill(points, valid), fill(shapes, valid), units, _fill_poses(poses, valid))
    focal = float(header["focal_len"])
    camera = Camera(focal, focal, float(header["cx"]), float(header["cy"]), size, size)
    writer = store.ObservationsWriter(target, size)
    clip = target / "clip.mkv"
    try:
        with media.VideoWriter(clip, size, size, crf=1, sound=_need(folder / "aud.wav")) as video:
            image, layers = first, _layers(folder, entries[0]["img_id"], size)
            for i in range(frames):
                if valid[i]:
                    image, layers = media.read_image(_need(folder / "ori_imgs" / f"{i}.jpg")), _layers(folder, i, size)
                video.write(image)
                writer.add(*layers)
    except BaseException:
        writer.abort()
        raise
    return writer.finish(
        clip=clip, clip_hash=store.file_hash(clip), crop=CropBox(0, 0, size), camera=camera, track=track, plate=plate,
        shots=[(0, frames)],
        info={"action_units": "openface table", "landmarks": provider, "from": "data folder", "has_sound": True,
              "dropped_frames": runs(~valid)},
    )  # fmt: skip


def _layers(folder: Path, i: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, head matte and torso of frame `i`."""
    labels = labels_of(media.read_image(_need(folder / "parsing" / f"{i}.png")))
    teeth = folder / "teeth_mask" / f"{i}.npy"
    if teeth.exists():
        labels[np.load(teeth).astype(bool)] = MOUTH
    torso = media.read_image(_need(folder / "torso_imgs" / f"{i}.png"), alpha=True)
    if labels.shape != (size, size) or torso.shape != (size, size, 4):
        raise ObservationsError(f"layers of frame {i} are not {size}x{size}", folder, "make them again at that size")
    return labels, np.isin(labels, (FACE, HAIR, MOUTH)).astype(np.uint8) * 255, torso


def _fill_poses(poses: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """[T, 4, 4] with the invalid ones interpolated, their rotations made rotations again."""
    out = fill(poses, valid)
    u, _, vt = np.linalg.svd(out[~valid, :3, :3])
    out[~valid, :3, :3] = u @ vt
    return out.astype(np.float32)


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


def _landmarks(folder: Path, frames: int, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Landmarks [T, 478, 3], blendshapes [T, 52] and where they are from.

    The landmarker looks at the frames when it is at hand; what it misses, or everything without it, is spread from the
    68 stored points. A frame with neither becomes invalid.
    """
    points, shapes = np.zeros((frames, 478, 3), np.float32), np.zeros((frames, 52), np.float32)
    with contextlib.ExitStack() as stack:
        try:
            landmarker = stack.enter_context(Landmarker(faces=1))
        except AssetError:
            landmarker = None
        for i in np.flatnonzero(valid):
            found = landmarker(media.read_image(_need(folder / "ori_imgs" / f"{i}.jpg"))) if landmarker else []
            stored = folder / "ori_imgs" / f"{i}.lms"
            if found:
                points[i], shapes[i] = found[0].landmarks, found[0].blendshapes
            elif stored.exists() or landmarker is None:
                points[i] = spread(_read_68(_need(stored)))
            else:
                valid[i] = False
    if not valid.any():
        raise ObservationsError("no face in any frame", folder / "ori_imgs", "give a folder with a visible face")
    return points, shapes, "mediapipe" if landmarker else "68 stored points"


def _read_68(path: Path) -> np.ndarray:
    try:
        points = np.loadtxt(path, dtype=np.float32).reshape(-1, 2)
    except ValueError as error:
        raise ObservationsError("landmarks cannot be read", path, "detect 68 points a frame again") from error
    if len(points) != 68:
        raise ObservationsError(f"{len(points)} landmarks, expected 68", path, "detect 68 points a frame")
    return points


def spread(points: np.ndarray) -> np.ndarray:
    """68 points [68, 2] -> [478, 3]: at their indices; between them along lips, eyes and oval; else their mean."""
    out = np.zeros((478, 3), np.float32)
    out[:, :2] = points.mean(0)
    out[LANDMARKS_68, :2] = points
    known = set(LANDMARKS_68.tolist())
    for contour in (LIPS_OUTER, LIPS_INNER, EYE_LEFT, EYE_RIGHT, FACE_OVAL):
        at = [k for k, index in enumerate(contour) if index in known]
        for axis in (0, 1):
            out[contour, axis] = np.interp(
                np.arange(len(contour)), at, out[np.array(contour)[at], axis], period=len(contour)
            )
    return out
