"""The 17 action units, 0..5, from MediaPipe's blendshapes and from the face's geometry; or from an OpenFace table.

Blendshapes carry brows, lids and smiles. Where they are dead or nearly so (AU09, 10, 17, 20, 23, 25, 26), the unit
is a displacement of landmarks in the head's frame, in millimetres, scaled so that a strong excursion is 5: the same
millimetres give the same unit in every clip. Both are taken from the person's own neutral face (percentiles over the
clip). AU15, whose landmarks the jaw and the width of the mouth move more than it does, is told from them by a fit of
all units of the procedural face. Heights are taken from the nearest steady point, the base of the nose for the mouth,
because an error of the pose's pitch moves far points against one another.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from vocalface.errors import ObservationsError
from vocalface.observe.indices import BLENDSHAPES, EARS
from vocalface.types import AU_NAMES, Camera, FaceTrack

PROVIDER = "mediapipe blendshapes + landmark geometry + procedural face fit (AU15)"
FROWN = 10.0  # units of AU15 a coefficient of the fit: its ridge takes half of it
JAW = 30.0  # mm of jaw drop at jawOpen = 1; 14 to 102 over ten clips, as far as landmarks tell

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
    some = slice(None, None, max(1, len(poses) // 2000))  # the mean depth needs not all frames of an hour
    depth = np.median(_with_own_depth(landmarks[some], poses[some], camera)[..., 2], axis=0)
    out = np.empty((*landmarks.shape[:2], 3), np.float32)
    for k in range(0, len(poses), 2000):
        part = slice(k, k + 2000)
        r, t = poses[part, :3, :3].astype(np.float64), poses[part, :3, 3].astype(np.float64)
        origin = -np.einsum("tij,ti->tj", r, t)
        direction = np.einsum("tij,tni->tnj", r, _rays(landmarks[part], camera))
        reach = (depth - origin[:, None, 2]) / direction[..., 2]
        out[part] = origin[:, None] + reach[..., None] * direction
    return out


def _rays(landmarks: np.ndarray, camera: Camera) -> np.ndarray:
    x, y = (landmarks[..., 0] - camera.cx) / camera.fx, (landmarks[..., 1] - camera.cy) / camera.fy
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def _with_own_depth(landmarks: np.ndarray, poses: np.ndarray, camera: Camera) -> np.ndarray:
    """Points in the head's frame where the landmarker's own depth puts them, [T, 478, 3] metres."""
    r, t = poses[:, :3, :3].astype(np.float64), poses[:, :3, 3].astype(np.float64)
    distance = t[:, 2][:, None]
    z = distance + (landmarks[..., 2] - landmarks[:, EARS, 2].mean(1, keepdims=True)) * distance / camera.fx
    return np.einsum("tij,tni->tnj", r, _rays(landmarks, camera) * z[..., None] - t[:, None])


def from_landmarks(
    landmarks: np.ndarray, blendshapes: np.ndarray, poses: np.ndarray, camera: Camera, valid: np.ndarray
) -> np.ndarray:
    """Action units [T, 17] float32 in AU_NAMES' order."""
    out = np.zeros((len(landmarks), len(AU_NAMES)), np.float32)
    for name, weights in _SHAPES.items():
        raw = sum(w * blendshapes[:, BLENDSHAPES.index(s)] for s, w in weights.items())
        out[:, AU_NAMES.index(name)] = 5 * np.clip(raw - np.percentile(raw[valid], 5), 0, 1)
    closed = blendshapes[:, [BLENDSHAPES.index("eyeBlinkLeft"), BLENDSHAPES.index("eyeBlinkRight")]].mean(1) > 0.5
    if not closed.all():  # a blink squints as well: lids tighten between blinks only
        rows, column = np.arange(len(out)), AU_NAMES.index("AU07")
        out[:, column] = np.interp(rows, rows[~closed], out[~closed, column])
    jaw = blendshapes[:, BLENDSHAPES.index("jawOpen")]
    lifted = lift(landmarks, poses, camera)
    for name, value in geometric(lifted * 1000, jaw, valid).items():
        out[:, AU_NAMES.index(name)] = value
    out[:, AU_NAMES.index("AU15")] = FROWN * fitted(lifted, valid)[:, AU_NAMES.index("AU15")]
    return np.clip(out, 0, 5)


def fitted(points: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Coefficients [T, 17], 0..1, of all units together, from landmarks in the head's frame [T, 478, 3] metres.

    Only AU15 is taken from it. On two drawn sequences that mix eleven units r with the truth is .88 and .90 against .62
    and .84 of the corners' height less jaw and width; they are drawn with this very face, which favours it (a fit of
    ICT-FaceKit's 53 expressions: .79, .82). On five real clips the ten lower units explain the lower face 2 to 7 %
    better with it, on held-out frames, and both faces agree at r = .8 on four (.4 on the fifth). In drawn plain
    speech, where AU15 stays under .3, it tells nothing (r = 0, ICT .5). AU20 comes nearer to the drawn truth by a fit
    (.5 to .7 against .4) but twice as noisy, and three of the clips are explained worse; AU09 is no clearer.
    """
    from vocalface import faces
    from vocalface.faces.fit import fit_expressions

    return fit_expressions(faces.load("procedural"), points, valid)


def geometric(p: np.ndarray, jaw_open: np.ndarray, valid: np.ndarray) -> dict[str, np.ndarray]:
    """Lower-face units, each [T].

    Args:
        p: [T, 478, 3] landmarks in the head's frame, millimetres.
        jaw_open: [T] the blendshape, 0..1. The jaw is the mean of it and the chin's landmarks: the one is free of the
            pose's error, the other is in millimetres.
    """

    def low(x: np.ndarray, q: float) -> float:
        return float(np.percentile(x[valid], q))

    def unit(x: np.ndarray, full: float) -> np.ndarray:
        return np.clip(5 * x / full, 0, 5)

    nose = p[:, [2, 97, 98, 326, 327], 1].mean(1)  # base of the nose
    gap = (p[:, [82, 13, 312], 1] - p[:, [87, 14, 317], 1]).mean(1)
    width = p[:, 291, 0] - p[:, 61, 0]
    upper, lower = p[:, [0, 37, 267], 1].mean(1), p[:, [17, 84, 314], 1].mean(1)
    chin = p[:, [199, 200, 175], 1].mean(1)
    wings = p[:, [129, 358], 1].mean(1) - p[:, [133, 362], 1].mean(1)  # against the inner corners of the eyes
    drop, opening = nose - chin, JAW * jaw_open
    drop = (drop - low(drop, 10) + opening - low(opening, 10)) / 2
    return {
        "AU09": unit(wings - low(wings, 40), 8),
        "AU10": unit(upper - nose - low(upper - nose, 30), 7),
        "AU17": unit(lower - chin - low(lower - chin, 65), 7),
        "AU20": unit(width - low(width, 50), 13),
        "AU23": unit(low(width, 50) - width, 13),
        "AU25": unit(gap - low(gap, 5), 20),
        "AU26": unit(drop, 14),
    }


EYES = ("lid_left", "lid_right", "gaze_x", "gaze_y")
"""Channels of `eyes`; left and right are the image's, as everywhere in `observe`."""
_LIDS = (((159, 145), (158, 153), (160, 144)), ((386, 374), (385, 380), (387, 373)))  # upper over lower, image's left


def eyes(track: FaceTrack, camera: Camera) -> np.ndarray:
    """What AU45 does not tell, each eye's opening and where the eyes look, from a stored track.

    Lids come from landmarks, gaze from blendshapes. Noise in share of the range (four clips): lids .015 to .024, the
    blendshapes .013 to .025; but a gap is linear in the opening, and eyeBlink stays under .6 for some closed eyes. In
    share of the deviation (five clips): gaze .08 to .20 in x and .15 to .23 in y, the landmarks of the irises .09 to
    .21 and .19 to .32. Nothing is smoothed.

    Args:
        track: of T frames; without blendshapes (all zero) the gaze is 0.
        camera: intrinsics of the track's pixels.

    Returns:
        [T, 4] float32 in `EYES`' order. Lids 0..5: 0 closed, 4 the person's usual opening. Gaze -1..1 off the
        person's usual direction, in the head's frame, both eyes together: +x to the image's right, +y up, 1 = about
        25 degrees; held through blinks, when the iris is not seen.
    """
    p = lift(track.landmarks, track.head_pose, camera) * 1000
    gaps = np.stack([np.mean([p[:, a, 1] - p[:, b, 1] for a, b in pairs], axis=0) for pairs in _LIDS], axis=1)
    usual, least = np.median(gaps[track.valid], axis=0), np.percentile(gaps[track.valid], 0.5, axis=0)
    closed = np.where(least < 0.35 * usual, least, 0.1 * usual)  # a clip without a blink has no closed eye to show
    lids = np.clip(4 * (gaps - closed) / np.maximum(usual - closed, 1e-3), 0, 5)

    def shape(name: str) -> np.ndarray:
        return track.blendshapes[:, BLENDSHAPES.index(name)]

    # The person's left is the image's right.
    x = (shape("eyeLookOutLeft") - shape("eyeLookInLeft") + shape("eyeLookInRight") - shape("eyeLookOutRight")) / 2
    y = sum(shape(f"eyeLookUp{side}") - shape(f"eyeLookDown{side}") for side in ("Left", "Right")) / 2
    looks = (lids.mean(1) > 2.4) & track.valid
    rows = np.arange(len(track))
    if looks.any():
        x, y = (np.interp(rows, rows[looks], (v - np.median(v[looks]))[looks]) for v in (x, y))
    return np.concatenate([lids, np.clip(np.stack([x, y], axis=1), -1, 1)], axis=1).astype(np.float32)


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
