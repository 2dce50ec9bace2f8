"""From a clip to its Observations: faces, crop, landmarks, pose, action units, layers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import ConfigError, FaceError, ObservationsError, OutputError, VocalfaceError
from vocalface.observe import action_units, landmarks, photometric, pose, shots, store
from vocalface.observe.layers import LayerBuilder
from vocalface.types import AU_NAMES, FPS, CropBox, FaceTrack, Observations

Progress = Callable[[int, int, str], None]
LEAST_SEEN = 0.8  # share of frames in which the face must be seen
VERSION = 10  # of what is computed; a change makes old folders stale


def observe(
    clip: Path | str,
    folder: Path | str | None = None,
    *,
    size: int = 512,
    au_table: Path | str | None = None,
    face: str = "largest",
    progress: Progress | None = None,
) -> Observations:
    """Observe a clip; a folder that holds this clip with these settings is returned as it is.

    An interrupted run goes on from the faces it had found. Without a sound track it works as well (`info` says so).

    Args:
        folder: default CLIP.obs beside the clip, or in the working folder where that one cannot be written.
        size: S, px of the crop.
        au_table: OpenFace's table, taken instead of the action units measured here.
        face: "largest", or the face's number from the left.
        progress: called with (done, total, label).

    Raises:
        MediaError: no video. FaceError: no face, too small, seen in under 80 % of the frames, several of a like size,
        under 2 s. ConfigError: a size that makes no sense.
        ObservationsError: a table of action units that does not fit. OutputError: the folder cannot be written.
    """
    clip = Path(clip)
    if not 64 <= size <= 2048:
        raise ConfigError(f"cannot observe at {size} px", "--size", "use 64 to 2048, e.g. 512")
    opened = media.open_clip(clip)
    folder = Path(folder) if folder else default_folder(clip)
    content = store.file_hash(clip)
    key = {"version": VERSION, "sha256": content, "size": size, "face": face, "au_table": _table_hash(au_table)}
    with contextlib.suppress(VocalfaceError):
        known = store.load(folder)
        if known.info.get("key") == key:
            (folder / "landmarks.npz").unlink(missing_ok=True)  # of a run that was killed at its last step
            return known
    if au_table:  # before the long look at the clip
        _units_of(au_table, len(opened.at(FPS)))
    tell = progress or (lambda done, total, label: None)
    began = time.monotonic()
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write here ({error.strerror})", folder, "choose another folder with -o") from error
    try:
        seen = _landmarks(opened, folder, key, tell)
        track, found, info = _track(opened, seen, size)
    except VocalfaceError:
        if not existed:  # what cannot be observed leaves nothing
            shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:  # interrupted: the faces stay once they are all found, an empty folder does not
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise
    start, stop = seen.shot
    frames = stop - start

    def crops(first: int, last: int) -> Iterator[np.ndarray]:
        for image in opened.at(FPS).iterate(start + first, start + last):
            yield media.crop(image, seen.crop, size)

    refiner = photometric.prepare(crops, track.landmarks, track.valid, found, [a for a, _ in seen.segments[1:]])
    poses = found.poses.copy()
    writer = store.ObservationsWriter(folder, size)
    plates = []
    try:
        for first, last in seen.segments:  # after a jump cut the framing may differ: a background of its own
            shot = track.landmarks[first:last], track.valid[first:last]
            with landmarks.silenced():
                layers = LayerBuilder(size, *shot, threads=os.cpu_count() or 1)
            wanted = set(np.asarray(layers.plate_indices).tolist())

            plates.append(layers.observe_plate((i, c) for i, c in enumerate(crops(first, last)) if i in wanted))

            def posed(first: int = first, last: int = last) -> Iterator[tuple[int, np.ndarray]]:
                for i, image in enumerate(crops(first, last)):
                    poses[first + i, :3] = refiner(first + i, image, track.landmarks[first + i])
                    yield i, image

            for i, built in enumerate(layers.build_all(posed())):
                writer.add(*built)
                tell(first + i + 1, frames, "layers")
    except BaseException:
        writer.abort()
        raise
    track = replace(track, head_pose=poses)
    if au_table:
        units, provider = _units_of(au_table, seen.total)[start:stop], "openface table"
    else:
        points = track.landmarks, track.blendshapes, poses
        units, provider = action_units.from_landmarks(*points, found.camera, track.valid), action_units.PROVIDER
    track = replace(track, action_units=units)
    info["action_units"] = provider
    info["pose"]["photometric"] = refiner.info
    info |= {
        "key": key, "start_frame": start, "source_frames": seen.total, "has_sound": opened.has_sound,
        "source_rate": opened.rate, "source_size": [opened.width, opened.height],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    obs = writer.finish(
        clip=clip, clip_hash=content, crop=seen.crop, camera=found.camera, track=track, plate=np.stack(plates),
        shots=seen.segments,
        info=info,
    )  # fmt: skip
    (folder / "landmarks.npz").unlink(missing_ok=True)
    return obs


def default_folder(clip: Path) -> Path:
    """CLIP.obs beside the clip, or in the working folder where that one cannot be written."""
    beside = clip.with_suffix(".obs")
    return beside if beside.is_dir() or os.access(clip.parent, os.W_OK) else Path(beside.name)


def _units_of(path: Path | str, frames: int) -> np.ndarray:
    """Action units [frames, 17] of a table; what is no number is an ObservationsError too."""
    try:
        return action_units.from_table(path, frames)
    except (ValueError, TypeError) as error:
        raise ObservationsError(f"a row holds no numbers ({error})", path, "give OpenFace's au.csv as it is") from error


def _table_hash(path: Path | str | None) -> str:
    if not path:
        return ""
    if not Path(path).is_file():
        raise ObservationsError("no such table of action units", path, "check the path of --au-table")
    return store.file_hash(path)


class Seen:
    """Landmarks in source px; `shot` is the one that shows the face longest, the others are not looked at."""

    def __init__(self, points, shapes, valid, shot, crop, total, cuts, jumps) -> None:
        self.points, self.shapes, self.valid = points, shapes, valid
        self.shot, self.crop, self.total, self.cuts = tuple(int(s) for s in shot), crop, int(total), cuts
        self.segments = shots.segments(self.shot, jumps)  # continuous runs, counted from the shot's start


def _landmarks(clip: media.Clip, folder: Path, key: dict, tell: Progress) -> Seen:
    """Faces of every frame; kept in the folder, so that an interrupted run does not look twice."""
    cache = folder / "landmarks.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(cache) as data:
        if json.loads(str(data["key"])) == key:
            return Seen(
                data["points"], data["shapes"], data["valid"], data["shot"], CropBox(*data["crop"].tolist()),
                data["total"], data["cuts"].tolist(), data["jumps"].tolist(),
            )  # fmt: skip
    total = len(clip.at(FPS))
    if total < 2 * FPS:
        raise FaceError(f"the clip lasts {total / FPS:.1f} s", clip.path, "give at least 2 s, better 1 to 5 minutes")
    with landmarks.Landmarker() as landmarker:
        found, marks = landmarks.scan(clip, landmarker, shots.signature, lambda i: tell(i, total, "shots"))
        cuts, jumps = shots.find(marks)
        shot = shots.best(cuts, [i for i, faces in found if faces])
        if shot[1] - shot[0] < 2 * FPS:
            raise FaceError(
                f"the longest shot with a face lasts {(shot[1] - shot[0]) / FPS:.1f} s ({len(cuts)} shots)", clip.path,
                "cut the clip to one shot of at least 2 s",
            )  # fmt: skip
        boxes = landmarks.choose([(i, f) for i, f in found if shot[0] <= i < shot[1]], key["face"], clip.path)
        crop = landmarks.automatic_crop(boxes, clip.width, clip.height)
        size = float(np.median(boxes[:, 3] - boxes[:, 1]))
        if size < landmarks.LEAST_FACE:
            raise FaceError(
                f"the face is {size:.0f} px high, too small", clip.path,
                "give footage with a face over 60 px, better 200",
            )  # fmt: skip
        points = np.zeros((total, 478, 3), np.float32)
        shapes = np.zeros((total, 52), np.float32)
        valid = np.zeros(total, bool)
        near = (boxes[0, :2] + boxes[0, 2:]) / 2
        last: landmarks.Face | None = None
        for i, image in enumerate(clip.at(FPS).iterate(*shot), shot[0]):
            last = follow(landmarker, image, last, crop, near, size)
            if last is not None:
                points[i], shapes[i], valid[i] = last.landmarks, last.blendshapes, True
                near = 0.8 * near + 0.2 * (last.box[:2] + last.box[2:]) / 2
            tell(i + 1 - shot[0], shot[1] - shot[0], "faces")
    store.save_arrays(
        cache, points=points, shapes=shapes, valid=valid, shot=shot, crop=[crop.x, crop.y, crop.side], total=total,
        cuts=cuts, jumps=jumps, key=json.dumps(key),
    )  # fmt: skip
    return Seen(points, shapes, valid, shot, crop, total, cuts, jumps)


def follow(
    landmarker: landmarks.Landmarker, image: np.ndarray, last: landmarks.Face | None, crop: CropBox, near: np.ndarray,
    size: float,
) -> landmarks.Face | None:  # fmt: skip
    """The face of this frame, in source px: looked for around the last one, else in the crop.

    The landmarker sees a square of 1.9 faces, which keeps small faces at a size that it finds.
    """
    h, w = image.shape[:2]
    tries = [(near, 1.9 * size)] if last is not None else []
    tries += [((crop.x + crop.side / 2, crop.y + crop.side / 2), crop.side), (near, 2.6 * size)]
    for centre, side in tries:
        side = int(min(max(side, 64), max(h, w)))
        x = int(np.clip(centre[0] - side / 2, 0, max(w - side, 0)))
        y = int(np.clip(centre[1] - side / 2, 0, max(h - side, 0)))
        part = image[y : y + side, x : x + side]
        near_faces = [
            f for f in landmarker(part)
            if np.abs((f.box[:2] + f.box[2:]) / 2 + [x, y] - near).max() < 0.8 * size and 0.5 < f.size / size < 2
        ]  # fmt: skip
        if near_faces:
            face = min(near_faces, key=lambda f: np.abs((f.box[:2] + f.box[2:]) / 2 + [x, y] - near).max())
            return landmarks.Face(face.landmarks + np.array([x, y, 0], np.float32), face.blendshapes)
    return None


def _track(clip: media.Clip, seen: Seen, size: int) -> tuple[FaceTrack, pose.Tracking, dict]:
    """The face with its first poses; its action units are zero until the poses are refined."""
    start, stop = seen.shot
    valid = seen.valid[start:stop]
    dropped = landmarks.runs(~valid)
    if valid.mean() < LEAST_SEEN:
        listed = ", ".join(f"{start + a}-{start + b - 1}" for a, b in dropped[:6])
        listed += f" and {len(dropped) - 6} more runs" if len(dropped) > 6 else ""
        raise FaceError(
            f"the face is seen in {100 * valid.mean():.0f} % of the frames", f"{clip.path} (missing: frames {listed})",
            "cut those parts out",
        )  # fmt: skip
    scale = size / seen.crop.side
    origin = np.array([seen.crop.x, seen.crop.y, 0], np.float32)
    points = landmarks.fill((seen.points[start:stop] - origin) * np.float32(scale), valid)
    shapes = landmarks.fill(seen.shapes[start:stop], valid)
    principal = ((clip.width / 2 - seen.crop.x) * scale, (clip.height / 2 - seen.crop.y) * scale)
    found = pose.track_pose(points, valid, size, principal, [a for a, _ in seen.segments[1:]])
    info = {
        "dropped_frames": dropped, "all_shots": seen.cuts,
        "pose": {"rmse_px": round(found.rmse, 3), "rmse_raw_px": round(found.rmse_raw, 3), "focal": found.camera.fx},
    }  # fmt: skip
    units = np.zeros((len(points), len(AU_NAMES)), np.float32)
    return FaceTrack(valid, points, shapes, units, found.poses), found, info
