"""How much of the mouth's motion can be heard: the articulatory feature against real clips, beside baselines.

    python benchmarks/lips_from_speech.py FOLDER [--weights FILE] [--cache FOLDER]

FOLDER holds clips of talking people (several clips of one person in a sub-folder of their own). For each clip the
true motion comes from MediaPipe's landmarks; each way to predict it from the sound alone is scored by Pearson's r at
lag 0, weighted by duration, and by the F1 of closed-lip frames at a matched rate. What is fitted is fitted on the
other identities. The last lines print one JSON object of aggregate figures; nothing is written beside the cache.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from vocalface import media
from vocalface.observe.speech import extractor
from vocalface.observe.speech.articulatory import MOTIONS
from vocalface.observe.speech.mel import BANDS, COLUMNS_PER_FRAME, mel_db
from vocalface.types import FPS, Sound

TRUE = ("jaw", "gap", "round", "width")
CLOSED = 0.03  # lips count as closed under this gap, in distances between the outer eye corners
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")


@dataclass
class Talk:
    """One clip: what is heard, and what the mouth did."""

    identity: str
    sound: Sound
    motion: np.ndarray  # [F, 4], columns TRUE

    @property
    def frames(self) -> int:
        return len(self.motion)


def main(
    folder: tyro.conf.Positional[Path], weights: Path | None = None, cache: Path | None = None, ridge: float = 0.3
) -> None:
    """Scores the articulatory feature and its baselines on the clips of a folder.

    Args:
        folder: of clips.
        weights: another `.safetensors` than the package's.
        cache: where measured landmarks are kept between runs.
        ridge: strength of every linear readout, per row of standardised features.
    """
    talks = list(load(folder, cache))
    feature = extractor("articulatory", str(weights) if weights else None)
    rows = [feature(t.sound)[: t.frames] for t in talks]
    hidden = [r[:, : feature.network.hidden] for r in rows]
    guesses = [feature.motions(t.sound)[: t.frames][:, [MOTIONS.index(name) for name in TRUE]] for t in talks]
    mel = [neighbours(r[:, -BANDS:]) for r in rows]
    table = {
        "log-energy 300-3500 Hz, no training": [np.tile(energy(t)[:, None], 4) for t in talks],
        "ridge on log-mel t+-2, other identities": readout(mel, talks, ridge),
        "articulatory, zero-shot motions": guesses,
        "articulatory, hidden layer + ridge, other identities": readout(hidden, talks, ridge),
        "articulatory, whole feature + ridge, other identities": readout(rows, talks, ridge),
        "null: zero-shot, shifted by half a clip": [np.roll(g, len(g) // 2, axis=0) for g in guesses],
    }
    figures = {name: score(predicted, talks) for name, predicted in table.items()}
    identities = len({t.identity for t in talks})
    seconds = sum(t.frames for t in talks) / FPS
    print(f"{len(talks)} clips, {identities} identities, {seconds:.0f} s")
    print(f"{'':54s}" + "".join(f"{name:>8s}" for name in (*TRUE, "F1")))
    for name, values in figures.items():
        print(f"{name:54s}" + "".join(f"{values[k]:8.2f}" for k in (*TRUE, "F1")))
    print(json.dumps({"clips": len(talks), "identities": identities, "seconds": round(seconds), "rows": figures}))


def load(folder: Path, cache: Path | None):
    """The talks of a folder; clips without sound or with a face in under 80 % of frames are passed over."""
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        clip = media.open_clip(path)
        if not clip.has_sound:
            continue
        kept = cache / f"{path.stem}.npy" if cache else None
        if kept and kept.is_file():
            motion = np.load(kept)
        else:
            motion = measure(clip)
            if kept:
                cache.mkdir(parents=True, exist_ok=True)
                np.save(kept, motion)
        seen = ~np.isnan(motion[:, 0])
        if seen.mean() < 0.8:
            continue
        at = np.arange(len(motion))
        filled = np.stack([np.interp(at, at[seen], column[seen]) for column in motion.T], axis=1)
        sound = clip.speech(16000)
        identity = path.parent.name if path.parent != folder else path.stem
        frames = min(len(filled), -(-FPS * len(sound.samples) // sound.rate))
        yield Talk(identity, sound, filled[:frames])


def measure(clip) -> np.ndarray:
    """The mouth's motion [F, 4] on the 25 fps grid, NaN where no face is found.

    Lip gap and width are distances between landmarks over the distance of the outer eye corners (all in 3-D, so that
    turning the head hardly counts); jaw and rounding are MediaPipe's jawOpen and mouthPucker.
    """
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    model = (
        Path(os.environ.get("VOCALFACE_ASSETS", Path.home() / ".cache/vocalface")) / "mediapipe/face_landmarker.task"
    )
    options = vision.FaceLandmarkerOptions(BaseOptions(str(model)), output_face_blendshapes=True)
    motion, box = [], None
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        for image in clip.at(FPS):
            height, width = image.shape[:2]
            found = None
            # Follow the face; where it is lost look at the whole image, then at its upper square.
            for x0, y0, x1, y1 in [*([box] if box else []), (0, 0, width, height), (0, 0, width, min(width, height))]:
                part = np.ascontiguousarray(image[y0:y1, x0:x1])
                found = landmarker.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=part))
                if found.face_landmarks:
                    break
            if not found.face_landmarks:
                motion.append(np.full(4, np.nan))
                continue
            scale = np.array([x1 - x0, y1 - y0, x1 - x0])
            points = np.array([(p.x, p.y, p.z) for p in found.face_landmarks[0]]) * scale
            centre, reach = points[:, :2].mean(axis=0) + np.array([x0, y0]), 1.1 * np.ptp(points[:, 1])
            low = np.maximum(centre - reach, 0).astype(int)
            high = np.minimum(centre + reach, (width, height)).astype(int)
            box = (*low, *high)
            shapes = {b.category_name: b.score for b in found.face_blendshapes[0]}
            eyes = np.linalg.norm(points[33] - points[263])
            gap, mouth = (np.linalg.norm(points[a] - points[b]) / eyes for a, b in ((13, 14), (61, 291)))
            motion.append(np.array([shapes["jawOpen"], gap, shapes["mouthPucker"], mouth]))
    return np.array(motion)


def energy(talk: Talk) -> np.ndarray:
    """Log-energy between about 300 and 3500 Hz at the frames' centres, [F] dB."""
    power = 10 * np.log10((10 ** (mel_db(talk.sound.samples)[:, 7:50] / 10)).mean(axis=1))
    return np.interp((np.arange(talk.frames) + 0.5) * COLUMNS_PER_FRAME, np.arange(len(power)), power)


def neighbours(rows: np.ndarray, reach: int = 2) -> np.ndarray:
    """Each row with those up to `reach` before and after it, [F, (2 reach + 1) D]."""
    padded = np.pad(rows, ((reach, reach), (0, 0)), mode="edge")
    return np.concatenate([padded[i : i + len(rows)] for i in range(2 * reach + 1)], axis=1)


def readout(features: list[np.ndarray], talks: list[Talk], strength: float) -> list[np.ndarray]:
    """Ridge regression to the motions, for each clip trained on the other identities."""
    xs = [f - f.mean(axis=0) for f in features]
    ys = [(t.motion - t.motion.mean(axis=0)) / (t.motion.std(axis=0) + 1e-9) for t in talks]
    predicted = []
    for talk, x in zip(talks, xs):
        others = [i for i, other in enumerate(talks) if other.identity != talk.identity]
        a = np.concatenate([xs[i] for i in others])
        b = np.concatenate([ys[i] for i in others])
        deviation = a.std(axis=0) + 1e-3
        a = a / deviation
        weights = np.linalg.solve(a.T @ a + strength * len(a) * np.eye(a.shape[1]), a.T @ b)
        predicted.append(x / deviation @ weights)
    return predicted


def score(predicted: list[np.ndarray], talks: list[Talk]) -> dict[str, float]:
    """r of every motion and F1 of closed lips, means over the clips weighted by duration."""
    weights = np.array([t.frames for t in talks], dtype=float)
    r = np.array([[np.corrcoef(p[:, k], t.motion[:, k])[0, 1] for k in range(4)] for p, t in zip(predicted, talks)])
    f1 = np.array([closed_f1(p[:, 1], t.motion[:, 1]) for p, t in zip(predicted, talks)])
    has = ~np.isnan(f1)
    values = [
        *np.average(r, axis=0, weights=weights),
        np.average(f1[has], weights=weights[has]) if has.any() else np.nan,
    ]
    return {name: round(float(v), 3) for name, v in zip((*TRUE, "F1"), values)}


def closed_f1(predicted: np.ndarray, gap: np.ndarray) -> float:
    """F1 of the closed-lip frames when as many frames are called closed as are; NaN if hardly any are."""
    closed = gap < CLOSED
    count = int(closed.sum())
    if count < 5:
        return np.nan
    called = np.zeros(len(gap), bool)
    called[np.argsort(predicted)[:count]] = True
    return float((called & closed).sum() / count)


if __name__ == "__main__":
    tyro.cli(main)
