"""The 17 action units, 0..5, from MediaPipe's blendshapes and from the face's geometry; or from an OpenFace table.

Blendshapes carry brows, lids and smiles. Where they are dead or nearly so (AU09, 10, 15, 17, 20, 23, 25, 26), the unit
is a displacement of landmarks in the head's frame, in millimetres, scaled so that a strong excursion is 5. Both are
taken from the person's own neutral face (low percentiles over the clip).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from vocalface.errors import ObservationsError
from vocalface.observe.indices import BLENDSHAPES, CHIN
from vocalface.types import AU_NAMES, Camera

PROVIDER = "mediapipe blendshapes + landmark geometry"

_SHAPES: dict[str, dict[str, float]] = {
    "AU01": {"browInnerUp": 1},
    "AU02": {"browOuterUpLeft": 0.5, "browOuterUpRight": 0.5},
    "AU04": {"browDownLeft": 0.5, "browDownRight": 0.5},
    "AU05": {"eyeWideLeft": 0.5, "eyeWideRight": 0.5},
    "AU06": {"cheekSquintLeft": 0.5, "cheekSquintRight": 0.5, "mouthSmileLeft": 0.075, "mouthSmileRight": 0.075},
    "AU07": {"eyeSquintLeft": 0.5, "eyeSquintRight": 0.5},
    "AU12": {"mouthSmileLeft": 0.5, "mouthSmileRight": 0.5},
    "AU14": {"mouthDimpleLeft": 0.5, "mouthDimpleRight": 0.5, "mouthPressLeft": 0.05, "mouthPressRight": 0.05},
    "AU45": {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5},
}


def lift(landmarks: np.ndarray, poses: np.ndarray, camera: Camera) -> np.ndarray:
    """Landmarks [T, 478, 3] px -> [T, 478, 3] metres in the head's frame.

    Each point is where its ray meets the point's own mean depth in the head's frame: a moving lip is measured in the
    plane of the face, free of the noise of the landmarker's depth.
    """
    r, t = poses[:, :3, :3].astype(np.float64), poses[:, :3, 3].astype(np.float64)
    distance = t[:, 2][:, None]
    z = distance + (landmarks[..., 2] - landmarks[:, [234, 454], 2].mean(1, keepdims=True)) * distance / camera.fx
    ray = np.stack(
        [(landmarks[..., 0] - camera.cx) / camera.fx, (landmarks[..., 1] - camera.cy) / camera.fy,
         np.ones(landmarks.shape[:2])], axis=-1,
    )  # fmt: skip
    rough = np.einsum("tij,tni->tnj", r, ray * z[..., None] - t[:, None])
    depth = np.median(rough[..., 2], axis=0)
    origin = -np.einsum("tij,ti->tj", r, t)
    direction = np.einsum("tij,tni->tnj", r, ray)
    reach = (depth - origin[:, None, 2]) / direction[..., 2]
    return (origin[:, None] + reach[..., None] * direction).astype(np.float32)


def from_landmarks(
    landmarks: np.ndarray, blendshapes: np.ndarray, poses: np.ndarray, camera: Camera, valid: np.ndarray
) -> np.ndarray:
    """Action units [T, 17] float32 in AU_NAMES' order."""
    out = np.zeros((len(landmarks), len(AU_NAMES)), np.float32)
    for name, weights in _SHAPES.items():
        raw = sum(w * blendshapes[:, BLENDSHAPES.index(s)] for s, w in weights.items())
        out[:, AU_NAMES.index(name)] = 5 * np.clip(raw - np.percentile(raw[valid], 5), 0, 1)
    for name, value in geometric(lift(landmarks, poses, camera) * 1000, valid).items():
        out[:, AU_NAMES.index(name)] = value
    return np.clip(out, 0, 5)


def geometric(p: np.ndarray, valid: np.ndarray) -> dict[str, np.ndarray]:
    """Lower-face units from points [T, 478, 3] in millimetres, each [T]."""

    def low(x: np.ndarray, q: float) -> float:
        return float(np.percentile(x[valid], q))

    def unit(x: np.ndarray, full: float) -> np.ndarray:
        return np.clip(5 * x / full, 0, 5)

    nose = p[:, [168, 6, 197, 195], 1].mean(1)  # the fixed point of all heights
    gap = (p[:, [82, 13, 312], 1] - p[:, [87, 14, 317], 1]).mean(1)
    chin = nose - p[:, CHIN, 1].mean(1)
    width = p[:, 291, 0] - p[:, 61, 0]
    corners = p[:, [61, 291], 1].mean(1) - nose
    upper = p[:, [0, 37, 267], 1].mean(1) - nose
    lower = p[:, [17, 84, 314], 1].mean(1) - nose
    wings = p[:, [129, 358, 98, 327], 1].mean(1) - nose
    drop = chin - low(chin, 10)
    neutral = low(width, 50)
    return {
        "AU09": unit(wings - low(wings, 40), 4),
        "AU10": unit(upper - low(upper, 30), 5),
        "AU15": unit(low(corners, 60) - corners, 6),
        "AU17": unit(lower + 0.7 * drop - low(lower + 0.7 * drop, 40), 6),
        "AU20": unit(width - neutral, 9),
        "AU23": unit(neutral - width, 11),
        "AU25": unit(gap - low(gap, 5), 14),
        "AU26": unit(drop, 14),
    }


def from_table(path: Path | str, frames: int, tolerance: int = 2) -> np.ndarray:
    """Action units [frames, 17] of an OpenFace `au.csv`.

    Column names may start with a blank; rows are placed by `frame` (1-based) where it is given; failed or unsure rows
    (`success` 0, `confidence` under 0.8) are interpolated.

    Raises:
        ObservationsError: no such table, columns are missing, or its rows do not fit the clip.
    """
    path = Path(path)
    try:
        with open(path, newline="") as f:
            rows = [{k.strip(): v for k, v in row.items() if k} for row in csv.DictReader(f)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ObservationsError("cannot read the action units", path, "give OpenFace's au.csv") from error
    names = [f"{a}_r" for a in AU_NAMES]
    missing = [n for n in names if rows and n not in rows[0]]
    if not rows or missing:
        raise ObservationsError(
            f"columns are missing: {', '.join(missing) or 'all'}", path, "run OpenFace's FeatureExtraction with -aus"
        )
    if abs(len(rows) - frames) > tolerance:
        raise ObservationsError(
            f"{len(rows)} rows of action units for {frames} frames", path, "run OpenFace on this very clip at 25 fps"
        )
    values = np.zeros((frames, len(names)), np.float32)
    good = np.zeros(frames, bool)
    for k, row in enumerate(rows):
        at = int(float(row["frame"])) - 1 if "frame" in row else k
        if 0 <= at < frames and float(row.get("success", 1)) > 0 and float(row.get("confidence", 1)) >= 0.8:
            values[at] = [float(row[n]) for n in names]
            good[at] = True
    if not good.any():
        raise ObservationsError("every row failed or is unsure", path, "run OpenFace on footage with a visible face")
    at = np.arange(frames)
    return np.stack([np.interp(at, at[good], values[good, k]) for k in range(len(names))], axis=1).astype(np.float32)
