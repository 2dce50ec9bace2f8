"""From a trained state to a head: what speaking needs, gathered once."""

from __future__ import annotations

import time

import numpy as np
import torch
from scipy.ndimage import binary_opening

from vocalface import __version__, media
from vocalface.hmtalker.head import GOP, Head
from vocalface.hmtalker.state import Run
from vocalface.observe import store
from vocalface.training.files import scratch
from vocalface.types import CropBox, Observations


def head_of(run: Run, obs: Observations, *, consent: str | None, seconds: float, progress=None) -> Head:
    """Collect a trained head; the torso layer is encoded from the observations."""
    m, c = run.material, run.config
    arrays: dict[str, np.ndarray] = {}
    for name in ("face", "mouth"):
        for key, value in getattr(run, name).state_dict().items():
            kind = np.float16 if key == "basis" else np.float32  # blendshapes are most of the file
            arrays[f"{name}.{key}"] = value.numpy().astype(kind)
        for key, value in getattr(run, f"{name}_net").state_dict().items():
            arrays[f"{name}_net.{key}"] = value.numpy().astype(np.float32)
    if (swing := run.face_net.swing) is not None:
        arrays["swing.gain"], arrays["swing.centre"] = np.array([swing.gain], np.float32), swing.centre.numpy()
    with torch.no_grad():
        c_f, c_m = closed_mouth(run)
    arrays["closed.c_f"], arrays["closed.mouth"] = c_f, c_m
    arrays.update(trained_voice(run))
    arrays["feature_mean"], arrays["feature_std"] = run.feature_mean, run.feature_std
    arrays["track.pose"] = run.poses.matrices()
    arrays["track.upper"] = run.upper.cpu().numpy()
    arrays["track.segments"] = played(obs.shots or [(0, m.frames)], m.train)
    arrays["box"] = np.array(m.box, np.int32)
    arrays.update(encode_layers(obs, c.size, progress))
    provenance = {
        "tool": "vocalface", "version": __version__, "method": "HM-Talker", "synthetic": True,
        "consent": consent or "not recorded", "source_sha256": obs.clip_hash, "frames": m.frames,
        "start_frame": int(obs.info.get("start_frame", 0)),
        "action_units": obs.info.get("action_units", "unknown"), "train_seconds": round(seconds, 1),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip
    return Head(c, arrays, m.camera, obs.crop, m.feature_name, {}, provenance)


def played(shots: list[tuple[int, int]], train: int) -> np.ndarray:
    """Runs [R, 2] of the reference track that `speak` plays: shots, those that go on into the held-out part in two.

    There the head may be turned as no frame has taught it.
    """
    parts = [(a, b) for first, last in shots for a, b in ((first, min(last, train)), (max(first, train), last))]
    return np.array([(a, b) for a, b in parts if a < b], np.int32)


def encode_layers(obs: Observations, size: int, progress=None) -> dict[str, np.ndarray]:
    """The plate, and the torso layer as two small videos (colour, alpha) at `size` px."""
    whole = CropBox(0, 0, obs.size)

    def fit(a: np.ndarray) -> np.ndarray:
        return a if a.shape[0] == size else media.crop(a, whole, size)

    with scratch() as folder:
        rgb_path, alpha_path = folder / "torso.mp4", folder / "alpha.mp4"
        with (
            media.VideoWriter(rgb_path, size, size, crf=20, preset="medium", gop=GOP) as rgb,
            media.VideoWriter(alpha_path, size, size, crf=20, preset="medium", gop=GOP) as alpha,
        ):
            for i, (torso, torso_alpha) in enumerate(store.torsos(obs)):
                if progress is not None:
                    progress(i + 1, len(obs), "packing")
                behind, weight = media.over(torso, obs.plate_at(i), torso_alpha), fit(torso_alpha)
                # Colour bleeds over the plate outside the torso, so that the codec wastes nothing on an edge.
                rgb.write(media.over(fit(torso), fit(behind), weight))
                alpha.write(np.repeat(weight[..., None], 3, axis=-1))
        return {
            "plate": fit(obs.plate),
            "torso.rgb": np.frombuffer(rgb_path.read_bytes(), np.uint8),
            "torso.alpha": np.frombuffer(alpha_path.read_bytes(), np.uint8),
        }


@torch.no_grad()
def closed_mouth(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Control vectors of a closed mouth: means over the training frames whose lips are nearest, [32] and [32].

    The face's comes from seen action units, so that a pause closes the lips even where speech alone would not.
    """
    m = run.material
    rows = run.trainable
    rows = rows[m.gap[rows] <= np.percentile(m.gap[rows], 10)]
    windows = run.windows(rows)
    motion = run.face_net.motion(windows, run.upper[rows], run.explicit[rows], "vanilla")
    return motion.c_f.mean(0).numpy(), run.mouth_net.speech(windows).mean(0).numpy()


@torch.no_grad()
def trained_voice(run: Run) -> dict[str, np.ndarray]:
    """What the controls of the trained voice are while it speaks: mean [32] of each, spread [2] (root of the summed
    variance). Pauses too short for the silence rule count as speech, as they do when the head is driven."""
    m = run.material
    rows = run.trainable
    speaks = ~binary_opening(m.silent, np.ones(5))[rows]
    rows = rows[speaks] if speaks.any() else rows
    windows = run.windows(rows)
    motion = run.face_net.motion(windows, run.upper[rows], run.explicit[rows], "audio")
    said = {"voice.c_f": motion.c_f.numpy(), "voice.mouth": run.mouth_net.speech(windows).numpy()}
    spread = np.array([np.sqrt(x.var(0).sum()) for x in said.values()], np.float32)
    return {k: x.mean(0) for k, x in said.items()} | {"voice.spread": spread}
