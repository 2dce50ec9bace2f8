"""Observations turned into what training draws from: a frame file on disk and small arrays in memory.

Frames stay on disk as raw records of the head's box, read one at a time with `os.pread`, so that 8,000 frames of
512x512 cost a few megabytes of memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import MediaError, ObservationsError, OutputError
from vocalface.hmtalker.config import Config
from vocalface.observe import indices, store
from vocalface.observe.action_units import eyes, lift
from vocalface.observe.speech import extractor
from vocalface.observe.speech.intake import levels
from vocalface.types import (
    AU_NAMES,
    FACE,
    FPS,
    HAIR,
    LOWER_AU_INDEX,
    MOUTH,
    UPPER_AU_INDEX,
    Camera,
    CropBox,
    Observations,
)

Progress = Callable[[int, int, str], None]
CHANNELS = 8  # image 3, behind 3, head alpha 1, labels 1
AU_LIMIT = 5.0


@dataclass
class Frame:
    """One training frame, cut to the head's box."""

    image: np.ndarray  # [h, w, 3] uint8
    behind: np.ndarray  # [h, w, 3] uint8
    alpha: np.ndarray  # [h, w] uint8, head matte
    labels: np.ndarray  # [h, w] uint8


@dataclass
class Material:
    """Everything training reads. T frames; box and landmarks in px of the training size."""

    frames: int
    train: int  # frames [0, train) are trained on, [train, frames) held out
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 of the head through the clip
    camera: Camera  # at the training size
    poses: np.ndarray  # [T, 4, 4] float32
    features: np.ndarray  # [T, D] float32 speech features
    noisy: np.ndarray  # [K, T, D] the same of noisy copies of the sound
    feature_name: str
    explicit: np.ndarray  # [T, E] float32 lower-face explicit feature
    upper: np.ndarray  # [T, U] float32: the seven upper AUs first
    lips: np.ndarray  # [T, 4] int, lips_rect x0 y0 x1 y1 relative to the box
    gap: np.ndarray  # [T] float32, inner-lip opening, px
    valid: np.ndarray  # [T] bool
    drift: np.ndarray  # [T] float32, frames by which lips are later than sound; `features` have followed it
    silent: np.ndarray  # [T] bool, speech level under the threshold
    landmarks: np.ndarray  # [T, 478, 3]
    path: Path

    def read(self, i: int) -> Frame:
        x0, y0, x1, y1 = self.box
        h, w = y1 - y0, x1 - x0
        size = h * w * CHANNELS
        with open(self.path, "rb") as f:
            raw = np.frombuffer(os.pread(f.fileno(), size, i * size), np.uint8).reshape(h, w, CHANNELS)
        return Frame(raw[..., :3], raw[..., 3:6], raw[..., 6], raw[..., 7])


def train_frames(frames: int, fraction: float) -> int:
    """How many frames train; the rest is held out (N = 7637 -> 6942 at 1/11)."""
    return max(1, int(np.floor(frames * (1 - fraction) + 1e-9)))


def lips_rect(landmarks: np.ndarray, margin: float = 1.25) -> np.ndarray:
    """Square around the outer lips, [T, 4] x0 y0 x1 y1 float; `margin` widens it."""
    outer = landmarks[:, indices.LIPS_OUTER, :2]
    low, high = outer.min(1), outer.max(1)
    half = (high - low).max(-1) / 2 * margin
    centre = (low + high) / 2
    return np.concatenate([centre - half[:, None], centre + half[:, None]], axis=1)


def noisy_copies(samples: np.ndarray, config: Config) -> Iterator[np.ndarray]:
    """The sound under white noise at 15 to 40 dB below its level, as often as the configuration says."""
    level = np.sqrt(np.mean(samples.astype(np.float64) ** 2))
    for k in range(config.noisy_copies):
        rng = np.random.default_rng([config.seed, 7, k])
        yield samples + level * 10 ** (-rng.uniform(15, 40) / 20) * rng.standard_normal(len(samples))


def silence_threshold(level: np.ndarray) -> float:
    """A level between the clip's noise floor and its speech, dB: pauses lie under it."""
    floor, loud = np.percentile(level, [3, 90])
    return float(max(floor + 0.25 * (loud - floor), -65.0)) if loud - floor > 12 else float(floor - 6)


def explicit_features(obs: Observations, config: Config) -> np.ndarray:
    """The explicit lower-face feature [T, E]: action units, ARKit lower-face blendshapes x5, or 3DMM coefficients."""
    track = obs.track
    if config.explicit == "au":
        return np.clip(track.action_units[:, LOWER_AU_INDEX], 0, AU_LIMIT).astype(np.float32)
    if config.explicit == "blendshape":
        return np.clip(5 * track.blendshapes[:, indices.BLENDSHAPES_LOWER], 0, AU_LIMIT).astype(np.float32)
    return expression_coefficients(obs, 16)


def expression_coefficients(obs: Observations, k: int) -> np.ndarray:
    """Linear 3DMM expression coefficients [T, k] of the lower face.

    The basis is the person's own: principal components of the landmarks in the head's frame (no licensed morphable
    model is needed). Scaled to unit standard deviation and shifted so that the training median is 1.
    """
    points = lift(obs.track.landmarks, obs.track.head_pose, obs.camera)[:, indices.LOWER_FACE]
    return np.clip(components(points, k, obs.track.valid) + 1, -AU_LIMIT, AU_LIMIT)


def head_box(obs: Observations, size: int, margin: float = 0.03) -> tuple[int, int, int, int]:
    """The head's box through the clip at `size` px: every tenth frame's matte, with a margin; multiples of 4."""
    low, high = np.full(2, obs.size), np.zeros(2, int)
    for k, alpha in enumerate(media.read_layer(obs.folder / "alpha.mkv")):
        if k % 10 == 0:
            rows, columns = np.flatnonzero((alpha > 100).sum(1) > 1), np.flatnonzero((alpha > 100).sum(0) > 1)
            if len(rows):
                low = np.minimum(low, [columns[0], rows[0]])
                high = np.maximum(high, [columns[-1] + 1, rows[-1] + 1])
    scale = size / obs.size
    pad = margin * (high - low).max() * scale
    x0, y0 = np.floor(np.maximum(low * scale - pad, 0) / 4).astype(int) * 4
    x1, y1 = np.minimum(np.ceil((high * scale + pad) / 4).astype(int) * 4, size)
    return int(x0), int(y0), int(x1), int(y1)


def prepare(obs: Observations, config: Config, folder: Path, progress: Progress | None = None) -> Material:
    """Write the frame file under `folder` (reused when it is whole) and gather the arrays.

    Raises MediaError when the source has no sound, ObservationsError when too little of it shows a face.
    """
    n, size = len(obs), config.size
    if n < 2 * FPS:
        raise ObservationsError(
            f"the clip is too short to train on: {n / FPS:.1f} s", obs.clip, "give at least 2 s, better 1 to 5 minutes"
        )
    clip = media.open_clip(obs.clip)
    if not clip.has_sound:
        raise MediaError("the clip has no sound track", obs.clip, "train on a clip with the person's own speech in it")
    sound = clip.speech(16_000)
    start = int(obs.info.get("start_frame", 0))
    samples = sound.samples[start * 640 :]
    feature = extractor(config.audio)

    def heard(samples: np.ndarray) -> np.ndarray:
        whole = feature(type(sound)(samples.astype(np.float32), 16_000))
        return whole[np.clip(np.arange(n), 0, len(whole) - 1)].astype(np.float32)

    features = heard(samples)
    noisy = np.array([heard(s) for s in noisy_copies(samples, config)], np.float32).reshape(-1, *features.shape)

    folder.mkdir(parents=True, exist_ok=True)
    box = head_box(obs, size)
    path, mark = folder / "frames.raw", folder / "frames.json"
    key = json.dumps([obs.clip_hash, n, size, box, CHANNELS, str(obs.info.get("created", ""))])
    if not (mark.exists() and mark.read_text() == key and path.exists()):
        mark.unlink(missing_ok=True)
        _write_frames(obs, size, box, path, progress)
        mark.write_text(key)

    scale = size / obs.size
    landmarks = obs.track.landmarks * np.float32(scale)
    lips = lips_rect(landmarks) - np.array([box[0], box[1], box[0], box[1]])
    limit = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    lips = np.clip(np.round(lips), 0, limit).astype(int)
    inner = landmarks[:, indices.LIPS_INNER, 1]
    gap = (inner.max(1) - inner.min(1)).astype(np.float32)
    train = train_frames(n, config.val_fraction)
    late = np.zeros(n, np.float32)
    if config.follow_drift:  # found where we train; what is held out is not looked at
        from vocalface.hmtalker.hearing import at_time, drift  # needs torch, which speaking does without

        known = features[:train]
        parted = obs.track.action_units[:train, [AU_NAMES.index("AU25"), AU_NAMES.index("AU26")]]
        late[:train] = drift((known - known.mean(0)) / (known.std(0) + 1e-3), np.column_stack([gap[:train], parted]))
        late[train:] = late[train - 1]
        features = at_time(features, late)
        noisy = np.array([at_time(f, late) for f in noisy], np.float32).reshape(noisy.shape)
    level = levels(samples, n)
    return Material(
        frames=n, train=train, box=box, camera=obs.camera.scaled(scale),
        poses=obs.track.head_pose.astype(np.float32), features=features, noisy=noisy, feature_name=feature.name,
        explicit=explicit_features(obs, config),
        upper=upper_features(obs, config), lips=lips, gap=gap,
        valid=obs.track.valid, drift=late, silent=level < silence_threshold(level), landmarks=landmarks, path=path,
    )  # fmt: skip


def upper_features(obs: Observations, config: Config) -> np.ndarray:
    """The upper face's condition [T, U]: seven AUs; with "au+eyes" also each lid's opening and the gaze; with
    "au+shape" principal components of the person's own lids, brows and irises in the head's frame (unit spread).
    Both tell the two eyes apart and follow the gaze, which AUs do not."""
    units = upper_units(obs.track.action_units)
    if config.upper == "au":
        return units
    track = obs.track
    if config.upper == "au+eyes":
        return np.concatenate([units, eyes(track, obs.camera)], axis=1)
    points = lift(track.landmarks, track.head_pose, obs.camera)
    parts = []
    for lids, brow, iris, corners in (
        (indices.EYE_LEFT, indices.BROW_LEFT, indices.IRIS_LEFT, [33, 133]),
        (indices.EYE_RIGHT, indices.BROW_RIGHT, indices.IRIS_RIGHT, [362, 263]),
    ):  # about the corners of the eye: what is left of the pose's error moves all points alike
        parts.append(points[:, [*lids, *brow, *iris]] - points[:, corners].mean(1, keepdims=True))
    return np.concatenate([units, components(np.concatenate(parts, 1), config.upper_rank, track.valid)], axis=1)


def components(points: np.ndarray, k: int, valid: np.ndarray) -> np.ndarray:
    """First k principal components [T, k] of point sets [T, P, 3], zero mean and unit spread over the training part."""
    flat = points.reshape(len(points), -1)
    train = flat[: train_frames(len(flat), 1 / 11)][valid[: train_frames(len(flat), 1 / 11)]]
    mean = train.mean(0)
    _, _, basis = np.linalg.svd(train - mean, full_matrices=False)
    coefficients = (flat - mean) @ basis[:k].T
    return np.clip(coefficients / (((train - mean) @ basis[:k].T).std(0) + 1e-8), -AU_LIMIT, AU_LIMIT).astype(
        np.float32
    )


def upper_units(action_units: np.ndarray) -> np.ndarray:
    """The seven upper AUs [T, 7], clipped; AU45 at 2 as in the published recipe."""
    upper = np.clip(action_units[:, UPPER_AU_INDEX], 0, AU_LIMIT)
    upper[:, 6] = np.clip(upper[:, 6], 0, 2)
    return upper.astype(np.float32)


def _write_frames(obs: Observations, size: int, box: tuple[int, int, int, int], path: Path, progress) -> None:
    x0, y0, x1, y1 = box
    whole = CropBox(0, 0, obs.size)

    def fit(a: np.ndarray) -> np.ndarray:
        return a if a.shape[0] == size else media.crop(a, whole, size)

    try:
        with open(path, "wb") as f:
            for frame in store.frames(obs):
                record = np.empty((y1 - y0, x1 - x0, CHANNELS), np.uint8)
                record[..., :3] = fit(frame.image)[y0:y1, x0:x1]
                record[..., 3:6] = fit(frame.behind)[y0:y1, x0:x1]
                record[..., 6] = fit(frame.head_alpha)[y0:y1, x0:x1]
                pick = np.minimum(((np.arange(size) + 0.5) * obs.size / size).astype(int), obs.size - 1)
                record[..., 7] = frame.labels[pick][:, pick][y0:y1, x0:x1]
                f.write(record.tobytes())
                if progress:
                    progress(frame.index + 1, len(obs), "frames")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OutputError(f"cannot write the frame file: {error.strerror}", path, "free some disk space") from error


def head_pixels(labels: np.ndarray) -> np.ndarray:
    """[...] bool: face, hair or mouth interior."""
    return (labels == FACE) | (labels == HAIR) | (labels == MOUTH)
