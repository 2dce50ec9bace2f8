"""Judging a trained head on the held-out tail: numbers, the rows that must stand beside them, and the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from vocalface import media
from vocalface.hmtalker.config import Config
from vocalface.hmtalker.head import Head
from vocalface.hmtalker.state import STAGES, Run
from vocalface.metrics import image as image_metrics
from vocalface.metrics import landmarks as landmark_metrics
from vocalface.metrics import sync as sync_metrics
from vocalface.observe import store
from vocalface.training.report import strip
from vocalface.types import AU_NAMES, LOWER_AUS, CropBox, Observations

ROWS = ("audio", "true_aus", "mouth_frozen", "undeformed", "shuffled_audio")


@dataclass
class Validation:
    """Numbers by row, and what the report draws."""

    metrics: dict
    rows: dict[str, dict[str, float | None]]
    strips: list[np.ndarray] = field(default_factory=list)  # truth | result | difference
    au_curves: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    curves: np.ndarray | None = None
    gate: np.ndarray | None = None
    opening: tuple[np.ndarray, np.ndarray] | None = None
    along: dict[str, np.ndarray] = field(default_factory=dict)  # head PSNR of every held-out frame, by row
    drift: np.ndarray | None = None  # frames by which the lips are later than the sound


@torch.no_grad()
def controls(run: Run, rows: np.ndarray, row: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Control vectors c_f, mouth and upper AUs of frames `rows` for a comparison row."""
    used = rows
    if row == "shuffled_audio":
        used = np.random.default_rng(0).permutation(rows)
    windows = run.windows(used)
    path = "vanilla" if row == "true_aus" else "audio"
    motion = run.face_net.motion(windows, run.upper[rows], run.explicit[rows], path)
    c_f, mouth, upper = motion.c_f, run.mouth_net.speech(windows), run.upper[rows]
    train = run.trainable
    if row in ("mouth_frozen", "undeformed"):
        average = run.face_net.motion(run.windows(train), run.upper[train], run.explicit[train], "audio")
        c_f = average.c_f.mean(0).expand_as(c_f)
        mouth = run.mouth_net.speech(run.windows(train)).mean(0).expand_as(mouth)
    if row == "undeformed":
        upper = run.upper[train].median(0).values.expand_as(upper)
    return c_f, mouth, upper


def validate(run: Run, obs: Observations, head: Head, progress=None) -> Validation:
    """Render the held-out frames in every row and measure them against the true video.

    Protocol: true torso and background behind the head; true pose and true upper face (except the row "undeformed"),
    both refined through the rasteriser on pixels above the nose; frames compared raw, at the training size, before any
    codec.
    """
    from vocalface.hmtalker.drive import compose
    from vocalface.hmtalker.runtime import Runtime

    m = run.material
    rows = np.arange(m.train, m.frames)
    if not len(rows):
        return Validation({}, {})
    runtime = Runtime(head)
    size = run.config.size
    whole = CropBox(0, 0, obs.size)
    control = {name: controls(run, rows, name) for name in ROWS}
    values: dict[str, dict[str, list[float]]] = {name: {} for name in ROWS}
    images: dict[str, list[np.ndarray]] = {"truth": [], "audio": [], "mouth_frozen": []}
    strips = []
    shown = set(np.linspace(0, len(rows) - 1, 6).astype(int).tolist())
    bar = progress.start(len(rows), "validating") if progress is not None else None
    for k, frame in enumerate(store.frames(obs, m.train, m.frames)):
        truth = frame.image if obs.size == size else media.crop(frame.image, whole, size)
        behind = frame.behind if obs.size == size else media.crop(frame.behind, whole, size)
        alpha = frame.head_alpha if obs.size == size else media.crop(frame.head_alpha, whole, size)
        behind = np.where(alpha[..., None] == 0, truth, behind)  # true torso and background, as in the paper
        mouth_box = landmark_metrics.mouth_box(m.landmarks[rows[k]], size, size)
        for name in ROWS:
            c_f, mouth, upper = (v[k].numpy() for v in control[name])
            pose = head.arrays["track.pose"][rows[k]]
            image = compose(runtime, head.camera, m.box, c_f, upper, mouth, pose, behind, None, None, False)
            measured = {
                "psnr": image_metrics.psnr(image, truth),
                "psnr_head": image_metrics.psnr(image, truth, mask=alpha > 127),
                "psnr_mouth": image_metrics.psnr(image, truth, box=mouth_box),
            }
            if name == "audio":
                measured["ssim"] = image_metrics.ssim(image, truth)
            for key, value in measured.items():
                values[name].setdefault(key, []).append(float(value))
            if name in images:
                images[name].append(image)
        images["truth"].append(truth)
        if k in shown:
            strips.append(strip(truth, images["audio"][-1]))
        if bar is not None:
            bar.update(k + 1)
    table: dict[str, dict[str, float | None]] = {
        name: {key: float(np.mean(v)) for key, v in per.items()} for name, per in values.items()
    }
    along = {name: np.array(per["psnr_head"]) for name, per in values.items()}
    for name, part in (("spoken", ~m.silent[rows]), ("pauses", m.silent[rows])):
        if part.any() and not part.all():  # what lips do in a pause, speech cannot tell
            for row, head_psnr in along.items():
                table[row][f"psnr_head_{name}"] = float(head_psnr[part].mean())
    said, seen = predicted_units(run, rows)
    au_curves = {
        name: (seen[:, i], said[:, i]) for i, name in enumerate(LOWER_AUS) if name in ("AU25", "AU26", "AU12", "AU20")
    }
    if run.config.explicit == "au":
        for name in ("AU25", "AU26"):
            true, predicted = au_curves[name]
            r = landmark_metrics.correlation(true, predicted)
            table["audio"][f"{name.lower()}_corr"] = r if np.isfinite(r) else None
    opening = measure_lips(table, images, size)
    true26 = obs.track.action_units[rows][:, AU_NAMES.index("AU26")]
    if "lag" not in table["audio"] and run.config.explicit == "au":
        table["audio"]["lag"] = sync_metrics.lag(true26, au_curves["AU26"][1])[0]
    metrics = {"val": table["audio"], "rows": table, "protocol": protocol(run.config, len(rows))}
    with torch.no_grad():
        listening = run.face_net.listening(run.face_net.regions(run.face))
        alpha_mean = run.face_net.motion(run.windows(rows), run.upper[rows], run.explicit[rows], "audio").alpha.mean(0)
        gate = (listening @ alpha_mean / (listening.sum(1) + 1e-9)).numpy()
    return Validation(
        metrics, table, strips, au_curves, np.array(run.curves).reshape(-1, 4),
        gate_picture(runtime, head, gate, m, rows[0], control["audio"], size), opening, along, m.drift,
    )  # fmt: skip


def protocol(config: Config, frames: int) -> str:
    """What stands behind the numbers, in words."""
    refined = "pose and upper face" if config.upper_steps else "pose"
    upper = "" if config.upper_steps else ", true upper AUs"
    return (
        f"{frames} held-out frames at {config.size} px; true {refined}, refined on pixels above the nose{upper}; true "
        "torso and background pixels off the head; lower face from speech; PSNR is the mean over frames, in dB; mouth "
        "= square of 0.9 outer-eye distances around the lips; spoken and pauses = frames above and below the clip's "
        "silence threshold"
    )


@torch.no_grad()
def predicted_units(run: Run, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower AUs predicted from speech and seen, [T, 10] each."""
    motion = run.face_net.motion(run.windows(rows), run.upper[rows], run.explicit[rows], "audio")
    seen = run.explicit[rows].numpy()
    return motion.c_ea[:, -seen.shape[1] :].numpy(), seen


def measure_lips(table: dict, images: dict[str, list[np.ndarray]], size: int):
    """Landmark numbers of the audio row (and of the frozen mouth), with MediaPipe on all three videos at 512 px."""
    from vocalface.metrics.detect import detect_landmarks

    target = 512

    def enlarge(frames: list[np.ndarray]):
        whole = CropBox(0, 0, size)
        return (f if f.shape[0] == target else media.crop(f, whole, target) for f in frames)

    truth, reason = detect_landmarks(enlarge(images["truth"]))
    if truth is None:
        table["audio"].update(lmd=None, mouth_corr=None, lips_reason=reason)
        return None
    result = {name: detect_landmarks(enlarge(images[name])) for name in ("audio", "mouth_frozen")}
    for name, (points, reason) in result.items():
        if points is None:  # a head that came out badly: no face to measure, but the head is still the user's
            table[name].update(lmd=None, mouth_corr=None, lips_reason=reason)
            continue
        table[name].update(
            lmd=float(landmark_metrics.lmd(points, truth)),
            mouth_corr=float(landmark_metrics.mouth_correlation(points, truth)),
            amplitude=float(landmark_metrics.amplitude_ratio(points, truth)),
            jitter=float(landmark_metrics.jitter_ratio(points, truth)),
        )
    if result["audio"][0] is None:
        return None
    open_true = landmark_metrics.mouth_opening(truth)
    series = landmark_metrics.mouth_opening(result["audio"][0])
    both = np.isfinite(open_true) & np.isfinite(series)
    table["audio"]["lag"] = sync_metrics.lag(open_true[both], series[both])[0]
    return open_true, series


def gate_picture(runtime, head: Head, gate: np.ndarray, m, row: int, control, size: int) -> np.ndarray:
    """Where the face listens to action units (red) and where to the implicit feature (blue)."""
    from vocalface.render import rasterize
    from vocalface.types import Camera, Gaussians

    c_f, mouth, upper = (v[0].numpy() for v in control)
    face, _ = runtime.gaussians(c_f, upper, mouth, head.arrays["track.pose"][row])
    strength = runtime.lower_attention / (np.percentile(runtime.lower_attention, 98) + 1e-9)
    low, high = np.percentile(gate, [2, 98])
    t = np.clip((gate - low) / (high - low + 1e-9), 0, 1)
    rgb = np.stack([t, 0.15 * np.ones_like(t), 1 - t], axis=1) * np.clip(strength, 0.1, 1)[:, None]
    x0, y0, x1, y1 = m.box
    c = head.camera
    view = Camera(c.fx, c.fy, c.cx - x0, c.cy - y0, x1 - x0, y1 - y0, runtime.identity_pose)
    out = rasterize(Gaussians(face.means, face.quats, face.scales, face.opacities, rgb.astype(np.float32)), view)
    return np.clip(out.image * 255, 0, 255).astype(np.uint8)


def write_report(result: Validation, head: Head, path: Path) -> Path:
    """report.html of a training: numbers, curves, held-out frames, gate map."""
    from vocalface.training.report import Report

    report = Report(f"HM-Talker training: {path.stem.removesuffix('.report')}")
    report.text(result.metrics.get("protocol", "no frames were held out"))
    names = sorted({k for row in result.rows.values() for k in row if k != "lips_reason"})
    report.table(
        ["row", *names],
        [[row, *(_format(values.get(n)) for n in names)] for row, values in result.rows.items()],
    )
    for image in result.strips:
        report.images("truth | result | 4 x difference", [image])
    if result.gate is not None:
        report.images("gate: red listens to action units, blue to the implicit feature", [result.gate])
    for name, (true, said) in result.au_curves.items():
        report.curve(f"{name}: seen and predicted from speech", {"seen": true, "predicted": said})
    if result.along:
        shown = {"speech": "audio", "seen action units": "true_aus", "undeformed": "undeformed"}
        report.curve(
            "PSNR on the head along the held-out part, dB", {k: result.along[v] for k, v in shown.items()}
        )  # fmt: skip
    if result.opening is not None:
        report.curve("mouth opening, px at 512", {"truth": result.opening[0], "result": result.opening[1]})
    if result.drift is not None and np.ptp(result.drift) > 0.1:
        report.curve("footage: lips later than the sound, frames", {"lag": result.drift})
    if result.curves is not None and len(result.curves):
        for index, stage in enumerate(STAGES):
            part = result.curves[result.curves[:, 0] == index]
            if len(part) > 1:
                report.curve(f"loss, {stage} stage", {"loss": part[:, 2]}, x=part[:, 1])
        report.curve("face Gaussians", {"count": result.curves[:, 3]})
    report.text(f"Synthetic media. Consent: {head.provenance.get('consent', 'not recorded')}.")
    return report.write(path)


def _format(value: float | str | None) -> str:
    return "n/a" if value is None else value if isinstance(value, str) else f"{value:.3f}"
