"""A user's own clips as training material of the open motion networks: what was observed, in the networks' terms.

Observations (`vocalface observe`) in a folder become pairs for the ExpNet and talks for the PoseVAE. How far somebody
opens the mouth is theirs, not the speech's: each motion is brought to the mean and deviation of the generated ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import ConfigError, ObservationsError
from vocalface.observe import store
from vocalface.observe.indices import BLENDSHAPES
from vocalface.observe.speech.articulatory import MOTIONS, ArticulatoryFeature
from vocalface.sadtalker.open_expnet import OpenExpNet
from vocalface.sadtalker.open_posevae import HEAD, STYLES
from vocalface.sadtalker.prosody import rows_of
from vocalface.types import FPS, SPEECH_RATE, FaceTrack, Sound

LEAST = 2 * FPS  # frames
CALM, LIVELY = 5.0, 14.0  # deg/s, mean speed of the head in the first and in the last style


@dataclass(frozen=True)
class Seen:
    """One continuous shot with its sound."""

    sound: Sound
    track: FaceTrack


def train(kind: str, folder: Path | str | None, output: Path | str, **options) -> dict:
    """Trains one of the open networks on generated speech and, beside it, on the observations in a folder.

    Args:
        kind: expnet or posevae.
        options: hours, seed, config, resume, progress; see `train_open_expnet` and `train_open_posevae`.

    Raises:
        ConfigError: another kind. ObservationsError: nothing to learn from in the folder. OutputError.
    """
    if kind not in ("expnet", "posevae"):
        raise ConfigError(f"there is no open network {kind!r}", "sadtalker", "say expnet or posevae")
    if kind == "expnet":
        from vocalface.sadtalker.open_expnet import train_open_expnet

        return train_open_expnet([pair(s) for s in read(folder)] if folder else None, output, **options)
    from vocalface.sadtalker.open_posevae_train import train_open_posevae

    return train_open_posevae([talk(s) for s in read(folder)] if folder else None, output, **options)


def settings(kind: str, pairs: Sequence[str]) -> dict:
    """`("hours=0.5", "steps=800")` -> options of `train`; hours, and the fields of the network's config.

    Raises:
        ConfigError: a name or a value that does not fit.
    """
    if kind == "expnet":
        from vocalface.sadtalker.open_expnet import ExpNetConfig as Config
    else:
        from vocalface.sadtalker.open_posevae_train import PoseVAEConfig as Config
    kinds = {"hours": float} | {f.name: type(f.default) for f in fields(Config)}
    values = {}
    for text in pairs:
        name, _, value = text.partition("=")
        if name not in kinds:
            raise ConfigError(f"no option is called {name!r}", f"--set {text}", f"use {', '.join(kinds)}")
        try:
            values[name] = kinds[name](value)
        except ValueError:
            raise ConfigError(f"{value!r} is no {kinds[name].__name__}", f"--set {text}", "give a number") from None
    hours = {"hours": values.pop("hours")} if "hours" in values else {}
    return hours | ({"config": Config(**values)} if values else {})


def read(folder: Path | str) -> Iterator[Seen]:
    """The shots of all observations (`*.obs`) in a folder that have sound and last 2 s.

    Raises:
        ObservationsError: there are none.
    """
    folder, found = Path(folder), False
    for path in sorted(p for p in folder.rglob("*.obs") if p.is_dir()):
        observed = store.load(path)
        clip = media.open_clip(observed.clip)
        if not clip.has_sound:
            continue
        hop, begin = SPEECH_RATE // FPS, int(observed.info.get("start_frame", 0))
        samples = clip.speech(SPEECH_RATE).samples
        for start, stop in observed.shots or [(0, len(observed))]:
            heard = samples[(begin + start) * hop : (begin + stop) * hop]
            frames = min(len(heard) // hop, stop - start)
            if frames >= LEAST:
                found = True
                part = slice(start, start + frames)
                track = FaceTrack(*(getattr(observed.track, name)[part] for name in FaceTrack.__dataclass_fields__))
                yield Seen(Sound(heard[: frames * hop], SPEECH_RATE), track)
    if not found:
        raise ObservationsError(
            "no observations of talking people here", folder, "vocalface observe CLIP.mp4 for each clip, with sound"
        )


def pair(seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """Articulatory feature [F, 176] and motions [F, 10]; NaN where landmarks do not tell a motion."""
    frames = len(seen.track)
    eyes = distance(seen.track.landmarks, 33, 263)
    measured = {
        "jaw": seen.track.blendshapes[:, BLENDSHAPES.index("jawOpen")],
        "gap": distance(seen.track.landmarks, 13, 14) / eyes,
        "width": distance(seen.track.landmarks, 61, 291) / eyes,
        "round": seen.track.blendshapes[:, BLENDSHAPES.index("mouthPucker")],
    }
    usual = OpenExpNet().tensors
    out = np.full((frames, len(MOTIONS)), np.nan, np.float32)
    for name, values in measured.items():
        k = MOTIONS.index(name)
        z = (values - values.mean()) / max(values.std(), 1e-6)
        out[:, k] = usual["motion_mean"][k] + usual["motion_std"][k] * np.clip(z, -3, 3)
    out[~seen.track.valid] = np.nan
    return ArticulatoryFeature()(seen.sound)[:frames], out


def talk(seen: Seen):
    """A `Talk` for the PoseVAE; its style is the one that moves about as fast."""
    from vocalface.sadtalker.open_posevae_train import Talk

    turned = head_motion(seen.track.head_pose)
    speed = FPS * np.linalg.norm(np.diff(np.degrees(turned[:, :3]), axis=0), axis=1).mean()
    style = int(np.clip(round((speed - CALM) / (LIVELY - CALM) * (STYLES - 1)), 0, STYLES - 1))
    brow = seen.track.blendshapes[:, BLENDSHAPES.index("browInnerUp")]
    out = np.full((len(seen.track), len(HEAD)), np.nan, np.float32)
    out[:, :5] = turned[:, :5]
    out[:, 5] = np.clip(brow - np.percentile(brow, 20), -0.2, 1)
    return Talk(rows_of(seen.sound)[: len(out)], out, style)


def distance(points: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.linalg.norm(points[:, a] - points[:, b], axis=1)


def head_motion(poses: np.ndarray) -> np.ndarray:
    """World-to-camera [T, 4, 4] -> [T, 6] about the mean pose: yaw to the image's right, pitch down, roll clockwise,
    rad; right, down, back, m."""
    from scipy.spatial.transform import Rotation

    turned = Rotation.from_matrix(poses[:, :3, :3])
    about = (turned * turned.mean().inv()).as_rotvec()  # camera axes: x right, y down, z away
    # The nose points to -z: turning about +x sends it down, about +y to the left.
    angles = np.stack([-about[:, 1], about[:, 0], about[:, 2]], axis=1)
    shift = poses[:, :3, 3] - np.median(poses[:, :3, 3], axis=0)
    return np.concatenate([angles, shift], axis=1).astype(np.float32)
