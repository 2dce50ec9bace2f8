"""Who directs the head and the lids besides speech: turning schedules, and another video's head and blinks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import ConfigError, FaceError
from vocalface.observe.indices import EARS, EYE_LEFT, EYE_RIGHT, RIGID
from vocalface.observe.landmarks import Face, Landmarker
from vocalface.observe.pose import similarity_transform
from vocalface.sadtalker.emotion import Mood
from vocalface.sadtalker.motion import Pose
from vocalface.types import FPS

LARGEST_TURN = {"--yaw": 35.0, "--pitch": 25.0, "--roll": 30.0}  # degrees: a head seen from one side shows no more
LONGEST = 60 * FPS  # frames of a reference video that are read
WINK = 0.35  # share of an eye's own opening at which it counts as shut


@dataclass(frozen=True)
class Direction:
    """What is laid over the motion that speech gives. Angles in degrees: yaw to the image's right, pitch down, roll
    clockwise.

    yaw, pitch, roll: key angles, spread evenly over the video and joined smoothly; they take the place of speech's.
    head, blink: of reference videos, see `head_track` and `blink_track`; played to and fro.
    mood: see `emotion.parse`.
    """

    yaw: tuple[float, ...] = ()
    pitch: tuple[float, ...] = ()
    roll: tuple[float, ...] = ()
    head: np.ndarray | None = None  # [N, 5]: angles rad, shift m
    blink: np.ndarray | None = None  # [M] 0..1
    mood: tuple[Mood, float] | None = None  # and how much of it

    def __post_init__(self) -> None:
        for name, limit in LARGEST_TURN.items():
            angles = getattr(self, name[2:])
            if any(not abs(a) <= limit for a in angles):
                raise ConfigError(
                    f"{name} of {max(angles, key=abs):g} degrees", name, f"stay within -{limit:g} to {limit:g}"
                )

    def __call__(self, poses: Iterable[Pose], frames: int) -> Iterator[Pose]:
        """The directed poses of a video of `frames` frames."""
        keys = [np.radians(getattr(self, name[2:])) for name in LARGEST_TURN]
        for i, pose in enumerate(poses):
            angles, shift, blink = pose.angles, pose.shift, pose.blink
            if self.head is not None:
                row = self.head[to_and_fro(i, len(self.head))]
                angles, shift = tuple(held(row[:3]).tolist()), tuple(row[3:].tolist())
            if self.blink is not None:
                blink = float(self.blink[to_and_fro(i, len(self.blink))])
            along = i / max(frames - 1, 1)
            angles = tuple(eased(k, along) if len(k) else a for k, a in zip(keys, angles))
            pose = replace(pose, angles=angles, shift=shift, blink=blink)
            yield pose if self.mood is None else self.mood[0](pose, self.mood[1])


def held(angles: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll [3] rad of a reference, bent so that they never pass `LARGEST_TURN`; small ones stay."""
    limit = np.radians(list(LARGEST_TURN.values()))
    beyond = np.maximum(np.abs(angles) - 0.6 * limit, 0)
    return np.sign(angles) * (np.minimum(np.abs(angles), 0.6 * limit) + 0.4 * limit * np.tanh(beyond / (0.4 * limit)))


def eased(keys: np.ndarray, along: float) -> float:
    """Key values spread evenly over 0..1, joined by cosine ramps."""
    at = min(along, 1.0) * (len(keys) - 1)
    k = min(int(at), max(len(keys) - 2, 0))
    t = 0.5 - 0.5 * np.cos(np.pi * (at - k))
    return float(keys[k] + (keys[min(k + 1, len(keys) - 1)] - keys[k]) * t)


def to_and_fro(i: int, count: int) -> int:
    """Frame of a clip of `count` frames that is played forwards and backwards without a jump."""
    if count == 1:
        return 0
    k = i % (2 * count - 2)
    return k if k < count else 2 * count - 2 - k


def landmarks_of(video: Path | str, search: Callable[[np.ndarray], list[Face]] | None = None) -> np.ndarray:
    """Landmarks [T, 478, 3] px of the largest face of a video at 25 frames a second, gaps filled; a minute at most.

    Raises MediaError, FaceError (seen in under half of the frames), AssetError.
    """
    clip = media.open_clip(video)

    def read(find) -> list[np.ndarray | None]:
        rows = []
        for i, image in enumerate(clip.at(FPS)):
            if i == LONGEST:
                break
            found = find(image)
            rows.append(found[0].landmarks if found else None)
        return rows

    if search is None:
        with Landmarker() as landmarker:
            rows = read(landmarker.search)
    else:
        rows = read(search)
    seen = [i for i, row in enumerate(rows) if row is not None]
    if len(seen) < 0.5 * len(rows) or not seen:
        raise FaceError(
            f"a face in {len(seen)} of {len(rows)} frames", video, "give a video in which one face is seen throughout"
        )
    filled = [rows[min(seen, key=lambda k, i=i: abs(k - i))] if row is None else row for i, row in enumerate(rows)]
    return np.stack(filled).astype(np.float64)


def head_track(landmarks: np.ndarray) -> np.ndarray:
    """The head [T, 5] of landmarks [T, 478, 3]: yaw, pitch, roll (rad) and shift right and down (m) against its median.

    Each frame's rigid points are laid on the middle frame's by a similarity; a face is taken to be 0.14 m wide.
    """
    middle = landmarks[len(landmarks) // 2]
    metre = np.linalg.norm(middle[454] - middle[234]) / 0.14
    tall = middle[152] - middle[10]
    pivot = middle[152] + 0.15 * tall  # the base of the skull, as in `rig`: what turns about it does not shift
    pivot[2] = middle[EARS, 2].mean()
    rows = []
    for points in landmarks:
        scale, turn, way = similarity_transform(middle[RIGID], points[RIGID])
        yaw = np.arctan2(-turn[0, 2], turn[2, 2])
        pitch = -np.arcsin(np.clip(turn[1, 2], -1, 1))
        roll = np.arctan2(turn[1, 0], turn[1, 1])
        place = ((scale * turn @ pivot + way - pivot) / metre)[:2]
        rows.append([yaw, pitch, roll, *place])
    track = np.array(rows)
    return smoothed(track - np.median(track, axis=0))


def blink_track(landmarks: np.ndarray) -> np.ndarray:
    """Closure of the lids [T], 0 open to 1 shut, from the eyes' height over width alone."""
    shares = []
    for rim in (EYE_LEFT, EYE_RIGHT):
        points = landmarks[:, rim, :2]
        across = points[:, np.argmax(points[0, :, 0])] - points[:, np.argmin(points[0, :, 0])]
        wide = np.linalg.norm(across, axis=1)
        off = points - points.mean(1, keepdims=True)
        up = np.stack([-across[:, 1], across[:, 0]], axis=1) / wide[:, None]
        high = np.ptp(np.einsum("tki,ti->tk", off, up), axis=1)
        shares.append(high / wide)
    opened = np.mean(shares, axis=0)
    opened = opened / np.percentile(opened, 80)
    return np.clip((1 - opened - 0.15) / (1 - WINK - 0.15), 0, 1)


def smoothed(track: np.ndarray) -> np.ndarray:
    """Binomial smoothing over five frames, ends repeated."""
    wide = np.concatenate([track[:1], track[:1], track, track[-1:], track[-1:]])
    return sum(w * wide[k : len(wide) - 4 + k] for k, w in enumerate((1, 4, 6, 4, 1))) / 16


def angles_of(text: str, name: str) -> tuple[float, ...]:
    """ "-15,0,15" -> (-15.0, 0.0, 15.0). Raises ConfigError."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ConfigError(f"{text!r} is no list of angles", name, f"give degrees, e.g. {name}=-15,0,15") from None
