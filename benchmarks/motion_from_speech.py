"""What `animate` does with a voice, against what real people did while they spoke: lips and head.

    VOCALFACE_TEST_DATA=FOLDER python benchmarks/motion_from_speech.py [--cache FOLDER]

FOLDER/clips holds clips of talking people, FOLDER/speech recordings in several languages (named after the language).
The true motion comes from MediaPipe's landmarks and this package's head pose; the sound alone makes ours.
Lips, per clip: Pearson's r of the opening at lag 0, the lag of the highest r, opening in silence. Head: amplitude,
speed and its spectrum, diversity over seeds, alignment of nods with the beats of the voice. Baselines: energy, the
sound of another part of the clip, the bare generator of head motion. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from vocalface import media
from vocalface.errors import VocalfaceError
from vocalface.observe import landmarks, pose, shots, watch
from vocalface.types import FPS, SPEECH_RATE, Sound

SIZE = 512
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")


@dataclass
class Talk:
    """One clip: what is heard, and what mouth and head did."""

    name: str
    sound: Sound
    gap: np.ndarray  # [F] between the inner lips, in distances of the outer eye corners
    jaw: np.ndarray  # [F] MediaPipe's jawOpen
    width: np.ndarray  # [F]
    round: np.ndarray  # [F] MediaPipe's mouthPucker
    head: np.ndarray  # [F, 6] yaw, pitch, roll rad (image's right, down, clockwise), shift right, down, back m


def load(folder: Path, cache: Path | None):
    """The talks of a folder; what has no sound or no face is passed over."""
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        clip = media.open_clip(path)
        if not clip.has_sound:
            continue
        kept = cache / f"{path.stem}.npz" if cache else None
        if kept and kept.is_file():
            with np.load(kept) as data:
                seen = dict(data)
        else:
            try:
                seen = measure(clip)
            except VocalfaceError as error:
                print(f"{path.name} passed over: {error.what}")
                continue
            if kept:
                cache.mkdir(parents=True, exist_ok=True)
                np.savez(kept, **seen)
        start, stop = (int(v) for v in seen.pop("shot"))
        hop = SPEECH_RATE // FPS
        samples = clip.speech(SPEECH_RATE).samples[start * hop : stop * hop]
        frames = min(stop - start, len(samples) // hop)
        yield Talk(path.stem, Sound(samples[: frames * hop], SPEECH_RATE), **{k: v[:frames] for k, v in seen.items()})


def measure(clip) -> dict[str, np.ndarray]:
    """Mouth and head of the longest shot, as `Talk` holds them, and `shot` [2]."""
    with landmarks.Landmarker() as landmarker:
        found, marks = landmarks.scan(clip, landmarker, shots.signature, lambda i: None)
        cuts, jumps = shots.find(marks)
        start, stop = shots.best(cuts, [i for i, faces in found if faces])
        boxes = landmarks.choose([(i, f) for i, f in found if start <= i < stop], "largest", clip.path)
        crop = landmarks.automatic_crop(boxes, clip.width, clip.height)
        size = float(np.median(boxes[:, 3] - boxes[:, 1]))
        near, last = (boxes[0, :2] + boxes[0, 2:]) / 2, None
        points = np.zeros((stop - start, 478, 3), np.float32)
        shapes, valid = np.zeros((stop - start, 52), np.float32), np.zeros(stop - start, bool)
        for k, image in enumerate(clip.at(FPS).iterate(start, stop)):
            last = watch.follow(landmarker, image, last, crop, near, size)
            if last is not None:
                points[k], shapes[k], valid[k] = last.landmarks, last.blendshapes, True
                near = 0.8 * near + 0.2 * (last.box[:2] + last.box[2:]) / 2
    scale = SIZE / crop.side
    points = landmarks.fill((points - np.array([crop.x, crop.y, 0], np.float32)) * np.float32(scale), valid)
    shapes = landmarks.fill(shapes, valid)
    middle = ((clip.width / 2 - crop.x) * scale, (clip.height / 2 - crop.y) * scale)
    inside = [a - start for a, _ in shots.segments((start, stop), jumps)[1:]]
    tracked = pose.track_pose(points, valid, SIZE, middle, inside)
    eyes = np.linalg.norm(points[:, 33] - points[:, 263], axis=1)
    gap, width = (np.linalg.norm(points[:, a] - points[:, b], axis=1) / eyes for a, b in ((13, 14), (61, 291)))
    return {
        "gap": gap, "width": width, "jaw": shapes[:, landmarks_index("jawOpen")],
        "round": shapes[:, landmarks_index("mouthPucker")], "head": head(tracked.poses), "shot": np.array([start, stop]),
    }  # fmt: skip


def landmarks_index(name: str) -> int:
    return {"jawOpen": 25, "mouthPucker": 38}[name]


def head(poses: np.ndarray) -> np.ndarray:
    """World-to-camera [T, 4, 4] -> [T, 6] about the middle pose: yaw, pitch, roll rad and shift m, in image axes."""
    from scipy.spatial.transform import Rotation

    turned = Rotation.from_matrix(poses[:, :3, :3])
    about = (turned * turned.mean().inv()).as_rotvec()  # camera axes: x right, y down, z away
    # A face that turns to the image's right turns about y the negative way; looking down is negative about x.
    angles = np.stack([-about[:, 1], -about[:, 0], about[:, 2]], axis=1)
    shift = poses[:, :3, 3] - np.median(poses[:, :3, 3], axis=0)
    return np.concatenate([angles, shift], axis=1)


def main(cache: Path | None = None) -> None:
    root = os.environ.get("VOCALFACE_TEST_DATA")
    if not root:
        print("skipped: VOCALFACE_TEST_DATA names no folder with clips/ and speech/")
        return
    talks = list(load(Path(root) / "clips", cache))
    print(json.dumps({t.name: len(t.gap) for t in talks}))


if __name__ == "__main__":
    tyro.cli(main)
