"""`evaluate`: a video measured against the true one, or by itself; every number with its region and its protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vocalface import assets, media
from vocalface.errors import ConfigError
from vocalface.metrics import action_units, image, landmarks, sync
from vocalface.metrics.detect import BACKEND, Detections, gather, open_detector
from vocalface.metrics.tables import SELF_RECONSTRUCTION
from vocalface.types import FPS, Sound

STRIPS = 6  # example frames kept for the report
PER_FRAME = "mean over frames, decoded frames at 25 fps"
LIPS = f"{BACKEND}; not comparable with FAN"
BLENDSHAPES = "stand-ins from MediaPipe's blendshapes, not OpenFace"
PROXY = "weight-free proxy, not Sync-C; natural speech lies at lags -4 .. 2 frames, > 0 is a late picture"

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Row:
    """One number. `value` is None where it cannot be had; `protocol` then says why."""

    name: str
    value: float | None
    region: str
    protocol: str


@dataclass
class Evaluation:
    """What was measured of one video."""

    video: Path
    reference: Path | None
    frames: int
    rows: list[Row]
    strips: list[np.ndarray] = field(default_factory=list)  # true | video | 4 x difference, or the video's frames
    series: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)  # chart -> label -> values over frames

    def __getitem__(self, name: str) -> float | None:
        """The value of the row called `name`."""
        return next(row.value for row in self.rows if row.name == name)

    def to_json(self) -> dict:
        return {
            "video": str(self.video),
            "reference": None if self.reference is None else str(self.reference),
            "frames": self.frames,
            "values": {row.name: row.value for row in self.rows},
            "rows": [vars(row) for row in self.rows],
        }


def evaluate(
    video: str | Path,
    reference: str | Path | None = None,
    *,
    speech: str | Path | Sound | None = None,
    masks: Iterable[np.ndarray] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measures `video` against the true video `reference`, frame by frame at 25 fps, or by itself without one.

    Regions: the full frame; the head (`masks` where given, else the box of the true frame's landmarks, 1.3 times
    enlarged); the mouth (square around the true frame's lips, side 0.9 outer-eye distances).

    Args:
        speech: the sound that the lips should follow; by default the video's own, or else the reference's.
        masks: [H, W] bool or uint8 a frame, where the head is.
        progress: called with (done, total, label).

    Raises:
        MediaError: a file that cannot be read.
        ConfigError: the two videos differ in size.
    """
    clip = media.open_clip(video)
    truth = None if reference is None else media.open_clip(reference)
    if truth is not None and (clip.width, clip.height) != (truth.width, truth.height):
        raise ConfigError(
            f"the video is {clip.width}x{clip.height}, the reference {truth.width}x{truth.height}",
            video,
            "compare videos of one frame: crop the reference alike, or paste the result back into its source",
        )
    sound, silence = _speech(speech, clip, truth)
    if truth is None:
        return _alone(clip, sound, silence, progress)
    return _against(clip, truth, sound, silence, masks, progress)


def write_report(evaluations: list[Evaluation], path: str | Path) -> Path:
    """report.html with every video's numbers side by side, their curves and example frames."""
    from vocalface.training.report import Report

    report = Report("Evaluation")
    names = list(dict.fromkeys(row.name for e in evaluations for row in e.rows))
    found = {name: next(row for e in evaluations for row in e.rows if row.name == name) for name in names}
    cells = [{row.name: row.value for row in e.rows} for e in evaluations]
    report.table(
        ["", *(e.video.name for e in evaluations), "region", "protocol"],
        [[n, *(c.get(n) for c in cells), found[n].region, found[n].protocol] for n in names],
    )
    for e in evaluations:
        report.heading(e.video.name)
        report.text(f"{e.frames} frames" + (f" against {e.reference.name}" if e.reference else ", no reference"))
        if e.strips:
            caption = "truth | video | 4 x difference" if e.reference else "frames"
            report.images(caption, e.strips, photo=True)
        for name, lines in e.series.items():
            report.curve(name, lines, np.arange(len(next(iter(lines.values())))) / FPS, x_label="seconds")
    if any(e.reference for e in evaluations):
        report.table(
            list(SELF_RECONSTRUCTION[0]), [list(row.values()) for row in SELF_RECONSTRUCTION],
            caption="Published numbers on other clips (HM-Talker, Table 1): alike in kind, not comparable in size",
        )  # fmt: skip
    return report.write(path)


def _against(clip, truth, sound, silence, masks, progress) -> Evaluation:
    total = min(len(clip.at(FPS)), len(truth.at(FPS)))
    left_out = abs(len(clip.at(FPS)) - len(truth.at(FPS)))
    per_frame: dict[str, list[float]] = {}
    lpips, no_lpips = _lpips()
    detector, no_face = open_detector()
    seen: list = []
    seen_true: list = []
    strips = []
    shown = set(np.linspace(0, total - 1, STRIPS).astype(int).tolist())
    head_masks = iter(masks) if masks is not None else None
    for i, (frame, true_frame) in enumerate(_tell(zip(clip.at(FPS), truth.at(FPS)), total, "comparing", progress)):
        numbers = {"psnr": image.psnr(frame, true_frame)}
        numbers["ssim"], numbers["ms_ssim"] = image.ssim_pair(frame, true_frame)
        if lpips is not None:
            numbers["lpips"] = lpips(frame, true_frame)
        mask = next(head_masks, None) if head_masks is not None else None
        if mask is not None:
            numbers["psnr_head"] = image.psnr(frame, true_frame, mask=mask > 127 if mask.dtype == np.uint8 else mask)
        if detector is not None:
            seen.append(detector(frame))
            seen_true.append(detector(true_frame))
            points = seen_true[-1][0]
            if np.isfinite(points[0, 0]):
                size = frame.shape[1], frame.shape[0]
                face, mouth = landmarks.face_box(points, *size), landmarks.mouth_box(points, *size)
                if head_masks is None:
                    numbers["psnr_head"] = image.psnr(frame, true_frame, box=face)
                numbers["ssim_head"] = image.ssim(frame, true_frame, box=face)
                numbers["psnr_mouth"] = image.psnr(frame, true_frame, box=mouth)
                numbers["tenengrad"] = image.tenengrad(frame, mouth)
                numbers["true_tenengrad"] = image.tenengrad(true_frame, mouth)
        for name, value in numbers.items():
            per_frame.setdefault(name, []).append(value)
        if i in shown:
            strips.append((true_frame, frame))
    if detector is not None:
        detector.close()

    head = "head mask" if masks is not None else "head box"
    extra = f"; {left_out} frames without a partner left out" if left_out else ""
    sharpness = _sum(per_frame, "tenengrad") / max(_sum(per_frame, "true_tenengrad"), 1e-12)
    rows = [
        _row("psnr", per_frame, "full frame", f"dB, {PER_FRAME}{extra}"),
        _row("psnr_head", per_frame, head, f"dB, {PER_FRAME}", no_face),
        _row("psnr_mouth", per_frame, "mouth box", f"dB, {PER_FRAME}", no_face),
        _row("ssim", per_frame, "full frame", f"11x11 Gaussian, {PER_FRAME}"),
        _row("ssim_head", per_frame, "head box", f"11x11 Gaussian, {PER_FRAME}", no_face),
        _row("ms_ssim", per_frame, "full frame", f"five scales, {PER_FRAME}", "the frame is under 176 px"),
        _row("lpips", per_frame, "full frame", f"AlexNet 0.1, {PER_FRAME}", no_lpips),
        _number("sharpness_mouth", sharpness, "mouth box", "Tenengrad over the truth's; < 1 is blurred", no_face),
    ]
    faces, why = gather(seen) if seen else (None, no_face)
    true_faces, why_true = gather(seen_true) if seen_true else (None, no_face)
    why = why or why_true
    series = {}
    if faces is not None and true_faces is not None:
        rows += _lip_rows(faces, true_faces)
        series["mouth opening, % of the outer-eye distance"] = {
            "true": 100 * landmarks.mouth_opening(true_faces.points, True),
            "video": 100 * landmarks.mouth_opening(faces.points, True),
        }
    else:
        rows += [Row(name, None, region, why) for name, region, _, _ in _LIP_NUMBERS]
    rows += _sync_rows(faces, sound, why or silence)
    rows += _sync_rows(true_faces, sound, why_true or silence, " of the reference", "reference_")
    return Evaluation(clip.path, truth.path, total, rows, [_strip(*pair) for pair in strips], series)


def _alone(clip, sound, silence, progress) -> Evaluation:
    total = len(clip.at(FPS))
    detector, why = open_detector()
    seen, strips = [], []
    per_frame: dict[str, list[float]] = {}
    shown = set(np.linspace(0, total - 1, STRIPS).astype(int).tolist())
    for i, frame in enumerate(_tell(clip.at(FPS), total, "measuring", progress)):
        if i in shown:
            strips.append(frame)
        if detector is None:
            continue
        seen.append(detector(frame))
        points = seen[-1][0]
        if np.isfinite(points[0, 0]):
            mouth = landmarks.mouth_box(points, frame.shape[1], frame.shape[0])
            per_frame.setdefault("tenengrad_mouth", []).append(image.tenengrad(frame, mouth))
            per_frame.setdefault("detail_mouth", []).append(image.laplacian_variance(frame, mouth))
    if detector is not None:
        detector.close()
    faces, why = gather(seen) if seen else (None, why)
    only = "comparable only between videos of one subject and size"
    rows = _sync_rows(faces, sound, why or silence)
    series = {}
    if faces is not None:
        rows += [
            Row("faces_found", float(faces.found.mean()), "full frame", f"share of frames; {BACKEND}"),
            _number(
                "jitter", landmarks.lip_jitter(faces.points), "lips",
                f"mean |2nd difference|, 1/1000 outer-eye distance; {only}",
            ),
        ]  # fmt: skip
        series["mouth opening, % of the outer-eye distance"] = {
            "video": 100 * landmarks.mouth_opening(faces.points, True)
        }
    else:
        rows += [Row("faces_found", None, "full frame", why), Row("jitter", None, "lips", why)]
    rows += [
        _row("tenengrad_mouth", per_frame, "mouth box", f"mean squared Sobel gradient; {only}", why),
        _row("detail_mouth", per_frame, "mouth box", f"variance of the Laplacian; {only}", why),
    ]
    return Evaluation(clip.path, None, total, rows, strips, series)


# name, region, protocol, function of (Detections, true Detections)
_LIP_NUMBERS: list[tuple[str, str, str, Callable[[Detections, Detections], float]]] = [
    ("lmd", "lips", f"px, points 48-67, each frame's mean removed; {LIPS}",
     lambda a, b: landmarks.lmd(a.points, b.points)),
    ("lmd_iod", "lips", f"% of the outer-eye distance; {LIPS}", lambda a, b: landmarks.lmd_iod(a.points, b.points)),
    ("lmd_face", "68 points", f"px, F-LMD; {LIPS}", lambda a, b: landmarks.lmd(a.points, b.points, "face")),
    ("mouth_corr", "inner lips", f"Pearson's r of the opening; {BACKEND}",
     lambda a, b: landmarks.mouth_correlation(a.points, b.points)),
    ("amplitude", "inner lips", f"spread of the opening over the truth's; {BACKEND}",
     lambda a, b: landmarks.amplitude_ratio(a.points, b.points)),
    ("closed_error", "inner lips", "excess opening where the true lips are closed, % of the outer-eye distance",
     lambda a, b: landmarks.closed_mouth_error(a.points, b.points)),
    ("closure_recall", "inner lips", "share of the true closures that are closed within one frame",
     lambda a, b: landmarks.closure_recall(a.points, b.points)),
    ("au25_corr", "face", f"Pearson's r; {BLENDSHAPES}", lambda a, b: _unit(a, b, "AU25")),
    ("au26_corr", "face", f"Pearson's r; {BLENDSHAPES}", lambda a, b: _unit(a, b, "AU26")),
    ("aue_bs_l", "lower face", f"squared error summed over 9 units; {BLENDSHAPES}",
     lambda a, b: action_units.aue_bs(a.blendshapes, b.blendshapes)[0]),
    ("aue_bs_u", "upper face", f"squared error summed over 8 units; {BLENDSHAPES}",
     lambda a, b: action_units.aue_bs(a.blendshapes, b.blendshapes)[1]),
    ("jitter", "lips", f"mean |2nd difference| over the truth's; {BACKEND}",
     lambda a, b: landmarks.jitter_ratio(a.points, b.points)),
    ("excess_jitter", "lips", "rms 2nd difference of (lips - true lips), 1/1000 outer-eye distance",
     lambda a, b: landmarks.excess_jitter(a.points, b.points)),
    ("lag", "inner lips", "frames between the openings, > 0 is a late picture",
     lambda a, b: sync.lag(landmarks.mouth_opening(b.points, True), landmarks.mouth_opening(a.points, True))[0]),
]  # fmt: skip


def _lip_rows(faces: Detections, true_faces: Detections) -> list[Row]:
    missed = int((~faces.found | ~true_faces.found).sum())
    extra = f"; {missed} frames without a face left out" if missed else ""
    return [_number(n, f(faces, true_faces), region, protocol + extra) for n, region, protocol, f in _LIP_NUMBERS]


def _unit(faces: Detections, true_faces: Detections, name: str) -> float:
    both = faces.found & true_faces.found
    if not both.any():
        return float("nan")
    baseline = action_units.rest(true_faces.blendshapes[both])
    a, b = (action_units.from_blendshapes(d.blendshapes[both], baseline) for d in (faces, true_faces))
    return action_units.unit_correlation(a, b, name)


def _sync_rows(faces: Detections | None, sound: Sound | None, why: str, of: str = "", prefix: str = "") -> list[Row]:
    found = sync.proxy(faces.points, sound) if faces is not None and sound is not None else None
    protocol = PROXY if found else why or "under 5 s, or lips or sound that never change"
    values = (None, None) if found is None else (found.lag, found.confidence)
    return [Row(prefix + name, value, f"lips and speech{of}", protocol)
            for name, value in zip(("sync_lag", "sync_confidence"), values)]  # fmt: skip


def _speech(speech, clip: media.Clip, truth: media.Clip | None) -> tuple[Sound | None, str]:
    if isinstance(speech, Sound):
        return speech, ""
    if speech is not None:
        return media.read_sound(speech), ""
    source = next((c for c in (clip, truth) if c is not None and c.has_sound), None)
    return (None, "no sound track") if source is None else (source.speech(), "")


def _lpips() -> tuple[Callable[[np.ndarray, np.ndarray], float] | None, str]:
    trunk, heads = (assets.find(f"lpips/{n}") for n in ("alexnet-owt-7be5be79.pth", "lpips_lin_v0.1_alex.pth"))
    if trunk is None or heads is None:
        return None, "the weights of AlexNet or LPIPS's heads are not here: vocalface fetch"
    import torch

    from vocalface.nn.lpips import load

    model, why = load(trunk, heads)

    def measure(frame: np.ndarray, true_frame: np.ndarray) -> float:
        with torch.no_grad():
            return model(*(torch.from_numpy(f).float() / 255 for f in (frame, true_frame))).item()

    return (measure if model is not None else None), why


def _row(name: str, per_frame: dict[str, list[float]], region: str, protocol: str, why: str = "") -> Row:
    values = np.array(per_frame.get(name, []))
    values = values[np.isfinite(values)]
    return _number(name, values.mean() if values.size else float("nan"), region, protocol, why)


def _sum(per_frame: dict[str, list[float]], name: str) -> float:
    return sum(per_frame[name]) if name in per_frame else float("nan")


def _number(name: str, value: float, region: str, protocol: str, why: str = "") -> Row:
    if math.isfinite(value):
        return Row(name, float(value), region, protocol)
    return Row(name, None, region, why or f"nothing to measure ({protocol})")


def _strip(true_frame: np.ndarray, frame: np.ndarray) -> np.ndarray:
    from vocalface.training.report import strip

    return strip(true_frame, frame)


def _tell(frames: Iterable, total: int, label: str, progress: Progress | None) -> Iterator:
    for i, item in enumerate(frames):
        yield item
        if progress is not None:
            progress(i + 1, total, label)
