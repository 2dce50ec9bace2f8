"""Measure the layers on real clips: composite PSNR, temporal IoU of the head, flicker, milliseconds a frame.

    python benchmarks/observe_layers.py CLIP... [--frames 300] [--size 512] [--save FOLDER]

`iou` moves a frame's head mask along with the rigid landmarks to the next frame. They lie on the front of the face:
when a head turns, its outline, further back, moves less, and that counts as an error. `iou_own` moves the mask by the
affine map that fits the next mask best, so that only a change of shape counts (a lively clip: .980 and .990, and the
fall of `iou` goes with the speed of the head, r = -.87).

Needs the model files of `vocalface fetch` (or $VOCALFACE_ASSETS). Landmarks come straight from MediaPipe in IMAGE
mode and the crop from their extent, so that the numbers depend on nothing but the layers. Times are CPU time of
one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np

from vocalface.observe.layers import LayerBuilder, head_colours

RIGID = [
    6, 8, 9, 10, 21, 34, 54, 67, 103, 109, 116, 117, 118, 123, 127, 139, 143, 151, 162, 168, 197, 251, 264, 284, 297,
    332, 338, 345, 346, 347, 352, 356, 368, 372, 389,
]  # fmt: skip
"""Forehead, temples, bridge of the nose, cheek bones."""


def read(path: Path, count: int) -> list[np.ndarray]:
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == count:
                break
    return frames


def find(frames: list[np.ndarray], model: Path) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks [T, 478, 3] px and valid [T]."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)), running_mode=vision.RunningMode.IMAGE
    )
    landmarks, valid = np.zeros((len(frames), 478, 3), np.float32), np.zeros(len(frames), bool)
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        for i, frame in enumerate(frames):
            height, width = frame.shape[:2]
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
            faces = landmarker.detect(image).face_landmarks
            if faces:
                landmarks[i] = [[p.x * width, p.y * height, p.z * width] for p in faces[0]]
                valid[i] = True
            elif i:
                landmarks[i] = landmarks[i - 1]
    return landmarks, valid


def crop(frames: list[np.ndarray], landmarks: np.ndarray, valid: np.ndarray, size: int) -> tuple[list, np.ndarray]:
    """Frames and landmarks of a square twice as wide as the face's reach; a clip that is square already is kept."""
    height, width = frames[0].shape[:2]
    if height == width:
        x, y, side = 0.0, 0.0, float(width)
    else:
        low, high = landmarks[valid][..., :2].min((0, 1)), landmarks[valid][..., :2].max((0, 1))
        side = float(2 * (high - low).max())
        x, y = (low + high) / 2 - side / 2
    ratio = size / side
    if ratio == 1:
        return frames, landmarks
    matrix = np.array([[ratio, 0, (0.5 - x) * ratio - 0.5], [0, ratio, (0.5 - y) * ratio - 0.5]])
    how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    frames = [cv2.warpAffine(f, matrix, (size, size), flags=how, borderMode=cv2.BORDER_REPLICATE) for f in frames]
    return frames, ((landmarks - [x, y, 0]) * ratio).astype(np.float32)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def moved_iou(before: np.ndarray, after: np.ndarray, points: np.ndarray, points_after: np.ndarray) -> float:
    """IoU of two head masks once the first is moved along with the rigid landmarks."""
    matrix, _ = cv2.estimateAffinePartial2D(points, points_after, method=cv2.RANSAC, ransacReprojThreshold=2)
    moved = cv2.warpAffine(before.astype(np.float32), matrix, before.shape[::-1]) > 0.5
    return float((moved & after).sum() / max((moved | after).sum(), 1))


def own_iou(before: np.ndarray, after: np.ndarray) -> float:
    """IoU of two head mattes [S, S] uint8 once the first is moved by the affine map that fits them best."""
    soft = [cv2.GaussianBlur(a.astype(np.float32) / 255, (0, 0), 4) for a in (after, before)]
    matrix = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-5)
    with contextlib.suppress(cv2.error):  # no convergence: as it stands
        _, matrix = cv2.findTransformECC(*soft, matrix, cv2.MOTION_AFFINE, stop)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine((before > 127).astype(np.float32), matrix, before.shape[::-1], flags=how) > 0.5
    return float((moved & (after > 127)).sum() / max((moved | (after > 127)).sum(), 1))


def measure(path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    frames = read(path, arguments.frames)
    landmarks, valid = find(frames, Path(os.environ["VOCALFACE_ASSETS"]) / "mediapipe/face_landmarker.task")
    if not valid.any():
        raise SystemExit(f"{path}: no face found")
    frames, landmarks = crop(frames, landmarks, valid, arguments.size)
    builder = LayerBuilder(arguments.size, landmarks, valid)
    start = time.process_time()
    plate = builder.observe_plate((i, frames[i]) for i in builder.plate_indices)
    first = time.process_time() - start
    true_head, raw_head, ious, own, masks, before = [], [], [], [], [], None
    layers, times = builder.build_all(enumerate(frames)), []
    for i, frame in enumerate(frames):
        start = time.process_time()
        labels, head_alpha, torso = next(layers)
        times.append(time.process_time() - start)
        share, head = torso[..., 3:] / 255, head_alpha[..., None] / 255
        behind = np.rint(torso[..., :3] * share + plate * (1 - share)).astype(np.uint8)
        colours = head_colours(frame, behind, head_alpha)
        true_head.append(psnr(np.rint(colours * head + behind * (1 - head)), frame))
        raw_head.append(psnr(np.rint(frame * head + behind * (1 - head)), frame))
        mask = head_alpha > 127
        if before is not None and valid[i - 1] and valid[i]:
            ious.append(moved_iou(before > 127, mask, builder.landmarks[i - 1, RIGID], builder.landmarks[i, RIGID]))
            own.append(own_iou(before, head_alpha))
        before = head_alpha
        masks.append(mask)
        if arguments.save and i % 50 == 0:
            save(arguments.save / f"{path.stem}_{i:04d}.png", frame, labels, colours, head, torso, plate, behind)
    return {
        "frames": len(frames), "psnr": np.mean(true_head), "psnr_min": np.min(true_head), "psnr_raw": np.mean(raw_head),
        "iou": np.mean(ious), "iou_p5": np.percentile(ious, 5), "iou_own": np.mean(own), **flicker(frames, masks),
        "ms": 1000 * np.mean(times), "first_pass_s": first,
    }  # fmt: skip


def flicker(frames: list[np.ndarray], masks: list[np.ndarray]) -> dict[str, float]:
    """Mean and greatest number of mask pixels a frame that are another way before and after, on a still picture."""
    small = [cv2.resize(f, (256, 256), interpolation=cv2.INTER_AREA) for f in frames]
    still = [cv2.blur(cv2.absdiff(a, b).max(2), (5, 5)) < 10 for a, b in pairwise(small)]
    counts = []
    for i in range(1, len(masks) - 1):
        quiet = cv2.resize((still[i - 1] & still[i]).astype(np.uint8), masks[i].shape[::-1], interpolation=0) > 0
        counts.append(((masks[i] != masks[i - 1]) & (masks[i] != masks[i + 1]) & quiet).sum())
    return {"blip": np.mean(counts), "blip_max": np.max(counts)}


def save(path: Path, frame, labels, colours, head, torso, plate, behind) -> None:
    palette = np.array([[0, 0, 0], [255, 180, 140], [120, 60, 20], [255, 0, 0], [0, 255, 0], [0, 80, 255]])
    magenta, share = np.array([255.0, 0, 255]), torso[..., 3:] / 255
    overlay = frame * 0.5 + palette[labels] * 0.5
    cut, body = colours * head + magenta * (1 - head), torso[..., :3] * share + magenta * (1 - share)
    error = np.clip(8 * np.abs(colours * head + behind * (1 - head) - frame), 0, 255)
    sheet = np.vstack([np.hstack([overlay, cut, body]), np.hstack([plate, behind, error])]).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--save", type=Path, help="folder for contact sheets of every 50th frame")
    arguments = parser.parse_args()
    for path in arguments.clips:
        row = measure(path, arguments)
        print(path.stem, "  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
