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
from scipy.ndimage import gaussian_filter1d
from scipy.signal import argrelmax, argrelmin, welch

from vocalface import media
from vocalface.articulation import spoken
from vocalface.errors import VocalfaceError
from vocalface.metrics import sync
from vocalface.metrics.landmarks import correlation
from vocalface.observe import landmarks, pose, shots, watch
from vocalface.observe.indices import BLENDSHAPES
from vocalface.observe.speech.articulatory import MOTIONS, ArticulatoryFeature
from vocalface.observe.speech.mel import COLUMNS_PER_FRAME, mel_db
from vocalface.presenter import voice
from vocalface.sadtalker.motion import Sway, poses
from vocalface.sadtalker.open_corpus import head_motion
from vocalface.sadtalker.open_expnet import OpenExpNet
from vocalface.sadtalker.open_posevae import OpenPoseVAE
from vocalface.sadtalker.prosody import rows_of
from vocalface.types import FPS, SPEECH_RATE, Sound

SIZE = 512
TRUE = ("jaw", "gap", "width", "round")
COLUMNS = [MOTIONS.index(name) for name in TRUE]
BANDS = ((0.2, 0.4), (0.4, 0.8), (0.8, 1.6), (1.6, 3.2), (3.2, 6.4))  # Hz
REACH, LATE = 10, 15  # lags of `response`, frames
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
        "gap": gap, "width": width, "jaw": shapes[:, BLENDSHAPES.index("jawOpen")],
        "round": shapes[:, BLENDSHAPES.index("mouthPucker")], "head": head_motion(tracked.poses),
        "shot": np.array([start, stop]),
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- lips
def lips_table(talks: list[Talk]) -> dict:
    """r and lag of the opening per clip, r of the other motions, closure in silence."""
    feature, expnet = ArticulatoryFeature(), OpenExpNet()
    ways: dict[str, list[np.ndarray]] = {}
    rows, quiet = [], []
    for t in talks:
        n = len(t.gap)
        heard = feature(t.sound)[:n]
        ours = np.array([p.aperture for p in poses([t.sound.samples])])[:n]
        silent = rows_of(t.sound)[:n, 4] > 0.9
        quiet += (ours[silent] < 0.001).tolist()
        for name, values in {
            "energy 300-3500 Hz": np.tile(energy(t)[:, None], 4),
            "encoder's own motions": feature.network.motions(heard[:, : feature.network.hidden])[:, COLUMNS],
            "open ExpNet": expnet(heard)[:, COLUMNS],
            "open ExpNet, sound half a clip off": np.roll(expnet(heard)[:, COLUMNS], n // 2, axis=0),
        }.items():
            ways.setdefault(name, []).append(values)
        late, best = sync.lag(t.gap, ours)
        r = {name: correlation(values[-1][:, 1], t.gap) for name, values in ways.items()}
        rows.append({"clip": t.name, "s": n / FPS, **r, "drawn": correlation(ours, t.gap),
                     "lag": late, "r_at_lag": best, "true_p90_mm": 90 * np.percentile(t.gap, 90),
                     "ours_p90_mm": 1000 * np.percentile(ours, 90)})  # fmt: skip
    weights = np.array([len(t.gap) for t in talks], float)
    print(f"{'clip':12s} {'s':>5s} {'energy':>7s} {'encoder':>8s} {'ExpNet':>7s} {'drawn':>6s} {'null':>6s} {'lag':>6s}"
          f" {'p90 true':>9s} {'ours':>5s} mm")  # fmt: skip
    for row in rows:
        energy_r, encoder_r, ours_r, null_r = (row[name] for name in ways)
        print(f"{row['clip']:12s} {row['s']:5.1f} {energy_r:7.2f} {encoder_r:8.2f} {ours_r:7.2f} {row['drawn']:6.2f}"
              f" {null_r:6.2f} {row['lag']:+6.1f} {row['true_p90_mm']:9.1f} {row['ours_p90_mm']:5.1f}")  # fmt: skip
    figures = {}
    for name, values in ways.items():
        r = np.array([[correlation(v[:, k], getattr(t, TRUE[k])) for k in range(4)] for v, t in zip(values, talks)])
        figures[name] = {key: round(float(x), 3) for key, x in zip(TRUE, np.average(r, axis=0, weights=weights))}
        figures[name]["gap_unweighted"] = round(float(r[:, 1].mean()), 3)
        print(f"{name:36s}" + " ".join(f"{k} {v:.3f}" for k, v in figures[name].items()))
    figures["drawn gap"] = round(float(np.average([row["drawn"] for row in rows], weights=weights)), 3)
    # A lag means something where there is something to be late: r over .3, each clip by its duration.
    sure = sorted((row["lag"], row["s"]) for row in rows if row["r_at_lag"] > 0.3)
    half = np.searchsorted(np.cumsum([s for _, s in sure]), sum(s for _, s in sure) / 2)
    figures["median lag by duration, frames"] = round(float(sure[half][0]), 2)
    figures["closed in silence"] = round(float(np.mean(quiet)), 3)
    figures["closed: p b m, other phones"] = bilabials()
    print({k: v for k, v in figures.items() if not isinstance(v, dict)})
    return figures


def bilabials() -> list[float]:
    """Share of phones at which the drawn lips come within 1.5 mm, in the package's own voice through rooms and noise:
    /p b m/, and vowels, /k/, /s/ and /t/."""
    rng = np.random.default_rng(777)
    closed: dict[bool, list[bool]] = {True: [], False: []}
    for seed in range(10):
        said = voice.speak(voice.script(12, 900 + seed), voice=list(voice.VOICES)[seed % 6], seed=seed)
        heard = spoken.record(said.sound.samples.astype(float), rng).astype(np.float32)
        drawn = np.array([p.aperture for p in poses([heard])])
        middle = (np.arange(len(drawn)) + 0.5) / FPS
        for phone in said.phones:
            during = drawn[(middle > phone.start - 0.025) & (middle < phone.end + 0.025)]
            if len(during) and (phone.symbol in ("p", "b", "m") or phone.symbol[0] in "aeiouks"):
                closed[phone.symbol in ("p", "b", "m")].append(during.min() < 0.0015)
    return [round(float(np.mean(closed[k])), 3) for k in (True, False)]


def energy(talk: Talk) -> np.ndarray:
    """Log-energy between about 300 and 3500 Hz at the frames' centres, [F] dB."""
    power = 10 * np.log10((10 ** (mel_db(talk.sound.samples)[:, 7:50] / 10)).mean(axis=1))
    return np.interp((np.arange(len(talk.gap)) + 0.5) * COLUMNS_PER_FRAME, np.arange(len(power)), power)


def languages(folder: Path) -> dict:
    """Opening of the drawn mouth while somebody speaks, mm, for each recording."""
    figures = {}
    for path in sorted(folder.iterdir()):
        samples = np.concatenate([piece[:, 0] for piece in media.read_pieces(path, SPEECH_RATE, 1)])
        samples = samples[: 30 * SPEECH_RATE]
        drawn = 1000 * np.array([p.aperture for p in poses([samples])])
        silent = rows_of(Sound(samples, SPEECH_RATE))[: len(drawn), 4] > 0.5
        open_ = drawn[~silent]
        figures[path.stem] = {
            "p50": np.percentile(open_, 50), "p90": np.percentile(open_, 90), "std": open_.std(),
            "closed": (open_ < 1).mean(), "changes": np.abs(np.diff(open_)).mean(),
        }  # fmt: skip
        print(f"{path.stem:24s}" + " ".join(f"{k} {v:5.2f}" for k, v in figures[path.stem].items()))
    return {name: {k: round(float(v), 2) for k, v in row.items()} for name, row in figures.items()}


# ---------------------------------------------------------------------------------------------------------------- head
def head_table(talks: list[Talk]) -> dict:
    """Real heads, the bare generator and the PoseVAE on the same sounds."""
    sounds = [rows_of(t.sound)[: len(t.gap)] for t in talks]
    network = OpenPoseVAE()
    ways = {
        "real": [t.head for t in talks],
        "bare generator": [sway(p, k) for k, p in enumerate(sounds)],
        "bare generator, scaled": [1.9 * sway(p, k) for k, p in enumerate(sounds)],
        **{f"PoseVAE, style {s}": [network(p, s, k) for k, p in enumerate(sounds)] for s in (0, 3, 5, 7)},
        "PoseVAE, other sound": [network(np.roll(p, len(p) // 2, axis=0), 3, k) for k, p in enumerate(sounds)],
    }
    reference = spectrum(ways["real"])
    answer = response(ways["real"], sounds)
    figures = {}
    for name, heads in ways.items():
        power, own = spectrum(heads), response(heads, sounds)
        speed = np.concatenate([velocity(h) for h in heads])
        figures[name] = {
            "std of 4 s, deg": amplitude(heads).round(2).tolist(),
            "speed mean p10 p50 p90, deg/s": np.round([speed.mean(), *np.percentile(speed, [10, 50, 90])], 1).tolist(),
            "spectrum gap by band, dB": (power - reference).mean(0).round(1).tolist(),
            "its shape alone, dB": round(float(np.abs((power - reference) - (power - reference).mean()).mean()), 2),
            "beat score": round(beat_score(heads, sounds), 3),
            "beat score, sounds shifted": round(
                float(np.mean([beat_score(heads, [np.roll(p, k, axis=0) for p in sounds]) for k in (31, 47, 63, 79)])),
                3,
            ),
            "speed about peaks of loudness, least and most": peak_speed(heads, sounds).astype(float).round(2).tolist(),
            "r with loudness": round(float(own[np.abs(own).argmax()]), 2),
            "at lag": int(np.abs(own).argmax()) - REACH,
            "response gap": round(float(np.sqrt(((own - answer) ** 2).mean())), 3),
            "response like real, r": round(correlation(own, answer), 2),
        }
        print(f"{name:24s}" + " | ".join(f"{k} {v}" for k, v in figures[name].items()))
    long = max(talks, key=lambda t: len(t.gap))
    heard = rows_of(long.sound)[: len(long.gap)]
    for name, many in {
        "bare generator": [sway(heard, k) for k in range(12)],
        "PoseVAE, style 3": [network(heard, 3, k) for k in range(12)],
    }.items():
        angles = np.degrees(np.array(many)[:, :, :3])
        between = float(angles.std(0).mean())  # over seeds at one moment
        within = float(angles.std(1).mean())  # over time for one seed
        alike = np.corrcoef(angles[:, :, 1])[np.triu_indices(12, 1)].mean()
        figures[name]["diversity"] = {"over seeds, deg": round(between, 2), "over time, deg": round(within, 2),
                                      "r of pitch between seeds": round(float(alike), 2)}  # fmt: skip
        print(name, figures[name]["diversity"])
    return figures


def sway(prosody: np.ndarray, seed: int) -> np.ndarray:
    """The bare generator's head angles [F, 3]."""
    generator = Sway(np.random.default_rng([seed, 11]))
    return np.array([generator(float(row[0]))[0] for row in prosody])


def amplitude(heads: list[np.ndarray]) -> np.ndarray:
    """Deviation of yaw, pitch and roll within 4 s, deg, mean over windows and clips by duration."""
    values, weights = [], []
    for h in heads:
        windows = [h[a : a + 100, :3] for a in range(0, max(len(h) - 99, 1), 50)]
        values.append(np.mean([np.degrees(w).std(0) for w in windows], axis=0))
        weights.append(len(h))
    return np.average(values, axis=0, weights=weights)


def velocity(head: np.ndarray) -> np.ndarray:
    """Angular speed [F - 1], deg/s, lightly smoothed against the jitter of tracking."""
    smooth = gaussian_filter1d(np.degrees(head[:, :3]), 0.8, axis=0)
    return FPS * np.linalg.norm(np.diff(smooth, axis=0), axis=1)


def spectrum(heads: list[np.ndarray]) -> np.ndarray:
    """Power of yaw, pitch, roll in `BANDS`, dB, [3, bands]: mean of dB over clips by duration."""
    rows = []
    for h in heads:
        f, power = welch(np.degrees(h[:, :3]), FPS, nperseg=min(128, len(h)), axis=0)
        rows.append([[10 * np.log10(power[(f >= a) & (f < b)].mean(0) + 1e-9)] for a, b in BANDS])
    return np.average(np.array(rows)[:, :, 0], axis=0, weights=[len(h) for h in heads]).T


def response(heads: list[np.ndarray], sounds: list[np.ndarray]) -> np.ndarray:
    """r of the head's pitch (down) with the loudness, the head 0.4 s early to 0.6 s late, [lags]."""
    rows, weights = [], []
    for head, sound in zip(heads, sounds):
        n = min(len(head), len(sound))
        if n < 60:
            continue
        x, y = (v - gaussian_filter1d(v, FPS) for v in (head[:n, 1], gaussian_filter1d(sound[:n, 0], 1.0)))
        rows.append([correlation(*sync.shifted(y, x, k)) for k in range(-REACH, LATE + 1)])
        weights.append(n)
    return np.average(rows, axis=0, weights=weights)


def beat_score(heads: list[np.ndarray], sounds: list[np.ndarray], spread: float = 2.0) -> float:
    """Mean over loudness peaks of exp(-d^2 / 2 spread^2), d frames to the nearest moment of rest between movements."""
    rows, weights = [], []
    for head, sound in zip(heads, sounds):
        speed = gaussian_filter1d(velocity(head), 1.5)
        loud = gaussian_filter1d(sound[:, 0], 1.0)
        rests = argrelmin(speed)[0]
        peaks = [k for k in argrelmax(loud)[0] if loud[k] > 0.45 and k < len(head)]
        if len(rests) > 2 and len(peaks) > 2:
            away = np.abs(np.array(peaks)[:, None] - rests).min(1)
            rows.append(np.exp(-(away**2) / 2 / spread**2).mean())
            weights.append(len(head))
    return float(np.average(rows, weights=weights))


def peak_speed(heads: list[np.ndarray], sounds: list[np.ndarray], reach: int = 10) -> np.ndarray:
    """Least and most [2] of the mean speed, in the clip's own, from 0.4 s before to 0.4 s after peaks of loudness."""
    rows = []
    for head, sound in zip(heads, sounds):
        speed = velocity(head)
        speed, loud = speed / speed.mean(), gaussian_filter1d(sound[:, 0], 1.0)
        peaks = [k for k in argrelmax(loud)[0] if loud[k] > 0.45 and reach <= k < len(speed) - reach]
        rows += [speed[k - reach : k + reach + 1] for k in peaks]
    mean = np.mean(rows, axis=0)
    return np.array([mean.min(), mean.max()])


def main(cache: Path | None = None) -> None:
    """Measures lips and head on the material of $VOCALFACE_TEST_DATA.

    Args:
        cache: where what was seen in the clips is kept between runs.
    """
    root = os.environ.get("VOCALFACE_TEST_DATA")
    if not root:
        print("skipped: VOCALFACE_TEST_DATA names no folder with clips/ and speech/")
        return
    talks = list(load(Path(root) / "clips", cache))
    seconds = sum(len(t.gap) for t in talks) / FPS
    print(f"{len(talks)} clips, {seconds:.0f} s")
    figures = {"lips": lips_table(talks), "languages": languages(Path(root) / "speech"), "head": head_table(talks)}
    print(json.dumps({"clips": len(talks), "seconds": round(seconds), **figures}))


if __name__ == "__main__":
    tyro.cli(main)
