"""The grade of the footage before any training: what is good, weak or fatal for a head, each with advice."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import MediaError
from vocalface.observe import store
from vocalface.observe.speech.articulatory import MOTIONS, ArticulatoryFeature
from vocalface.types import AU_NAMES, FPS, SPEECH_RATE, Observations, Sound

HEARD = 0.25  # correlation of heard and seen mouths under which their lag means nothing


@dataclass(frozen=True)
class Finding:
    """One judged property."""

    name: str
    status: str  # pass | weak | fail
    value: str
    advice: str = ""


def judge(
    name: str, number: float, weak: float, fail: float, unit: str, advice: str, more_is_better: bool = True
) -> Finding:
    """`pass` on the good side of `weak`, `fail` beyond `fail`."""
    sign = 1 if more_is_better else -1
    status = "pass" if sign * number >= sign * weak else "weak" if sign * number >= sign * fail else "fail"
    return Finding(name, status, f"{number:.3g}{unit}", "" if status == "pass" else advice)


def grade(obs: Observations) -> list[Finding]:
    """All findings, in the order of the report."""
    track = obs.track
    points = track.landmarks[track.valid]
    source = obs.crop.side / obs.size
    height = float(np.median(np.ptp(points[:, :, 1], axis=1)) * source)
    seconds = len(obs) / FPS
    yaw, pitch = np.degrees(angles(track.head_pose[track.valid]))[:, :2].T
    out = [
        judge("length", seconds, 60, 10, " s", "one to five minutes of speech give the best lips"),
        judge("face size", height, 200, 90, " px", "film closer, or at a higher resolution"),
        judge("frame rate", float(obs.info.get("source_rate", FPS)), 24.5, 15, " fps", "film at 25 fps or more"),
        judge("face seen", 100 * float(track.valid.mean()), 99, 90, " %", "cut out the parts where the face is hidden"),
        judge("pose error", float(obs.info.get("pose", {}).get("rmse_px", 0)), 1.6, 4, " px",
              "less turning, sharper light", more_is_better=False),
        judge("head turn (5-95 %)", float(np.ptp(np.percentile(yaw, [5, 95]))), 60, 90, " deg",
              "profiles are learnt badly from few frames", more_is_better=False),
        Finding("head nod (5-95 %)", "pass", f"{np.ptp(np.percentile(pitch, [5, 95])):.3g} deg"),
        judge("sharpness", sharpness(obs), 25, 6, "", "film sharper: no motion blur, no upscaling"),
        judge("lips part (AU25, 95 %)", percentile(obs, "AU25"), 1.5, 0.6, "", "the person hardly opens the lips"),
        judge("jaw drops (AU26, 95 %)", percentile(obs, "AU26"), 1.0, 0.4, "", "the person hardly moves the jaw"),
        judge("lids close (AU45, 99 %)", percentile(obs, "AU45", 99), 1.0, 0.3, "", "no blink seen: use --upper still"),
    ]  # fmt: skip
    cuts = obs.info.get("all_shots", [])
    if len(cuts) > 1:
        total = max(b for _, b in cuts) / FPS
        out.append(Finding("cuts", "weak", f"{len(cuts)} shots; {seconds:.3g} of {total:.3g} s are used",
                           "only the shot that shows the face longest is used"))  # fmt: skip
    return out + hearing(obs)


def hearing(obs: Observations) -> list[Finding]:
    """Findings about the sound; one `fail` when there is none."""
    try:
        sound = media.open_clip(obs.clip).speech(SPEECH_RATE)
    except MediaError:
        return [Finding("sound", "fail", "no sound track", "training needs the person's own speech")]
    hop = SPEECH_RATE // FPS
    start = int(obs.info.get("start_frame", 0)) * hop
    samples = sound.samples[start : start + len(obs) * hop]
    blocks = np.zeros(len(obs) * hop, np.float32)
    blocks[: len(samples)] = samples
    level = 10 * np.log10((blocks.reshape(-1, hop) ** 2).mean(1) + 1e-10)
    loud, floor = np.percentile(level, 90), np.percentile(level, 3)
    out = [
        judge("speech level", float(loud), -35, -50, " dBFS", "record louder, or normalise the sound"),
        judge("noise under speech", float(loud - floor), 20, 10, " dB", "less noise or music under the speech"),
        judge("clipping", 100 * float((np.abs(samples) > 0.995).mean()) if len(samples) else 0.0, 0.1, 1, " %",
              "the sound is clipped: record lower", more_is_better=False),
        judge("silence", 100 * float((level < floor + 0.3 * (loud - floor)).mean()), 45, 75, " %",
              "cut the long pauses out", more_is_better=False),
    ]  # fmt: skip
    frames, strength = lag(obs, Sound(blocks, SPEECH_RATE))
    if strength < HEARD:
        out.append(Finding("sound against lips", "weak", f"r = {strength:.2f}",
                           "is this the person who speaks, without music?"))  # fmt: skip
    else:
        found = judge("sound against lips", abs(frames), 3, 6, "",
                      "the sound is shifted: mend it before training", more_is_better=False)  # fmt: skip
        out.append(replace(found, value=f"{frames:+d} frames (r = {strength:.2f})"))
    return out


def lag(obs: Observations, sound: Sound, reach: int = 12) -> tuple[int, float]:
    """Frames by which the lips are later than the sound (> 0: the video is late), and how well they agree there.

    Agreement is the mean correlation of opening and jaw drop, as the articulatory encoder hears them and as the
    landmarks show them, between 0.5 and 6 Hz. Over seven real clips in sync it was 0.2 to 0.5, at -2 to +2 frames.
    """
    from scipy.signal import butter, sosfiltfilt

    p = obs.track.landmarks[..., :2]
    eyes = np.linalg.norm(p[:, 263] - p[:, 33], axis=1)
    seen = {
        "gap": (p[:, [87, 14, 317], 1] - p[:, [82, 13, 312], 1]).mean(1) / eyes,
        "jaw": (p[:, 17, 1] - p[:, 168, 1]) / eyes,
    }
    heard = ArticulatoryFeature().motions(sound)
    n = min(len(heard), len(obs))
    if n < 2 * FPS:
        return 0, 0.0
    band = butter(2, [0.5, 6], "band", fs=FPS, output="sos")
    curve = np.zeros(2 * reach + 1)
    for name, series in seen.items():
        a, b = sosfiltfilt(band, heard[:n, MOTIONS.index(name)]), sosfiltfilt(band, series[:n])
        if min(a.std(), b.std()) < 1e-6:
            continue
        curve += [
            np.corrcoef(a[max(0, -k) : n - max(0, k)], b[max(0, k) : n - max(0, -k)])[0, 1] / len(seen)
            for k in range(-reach, reach + 1)
        ]
    best = int(np.argmax(curve))
    return best - reach, float(curve[best])


def percentile(obs: Observations, unit: str, q: float = 95) -> float:
    return float(np.percentile(obs.track.action_units[obs.track.valid, AU_NAMES.index(unit)], q))


def angles(poses: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll of world-to-camera poses [T, 4, 4], radians [T, 3]; zero when facing the camera."""
    r = poses[:, :3, :3] * np.array([1, -1, -1])[:, None]  # camera axes turned to the head's: y up, z towards us
    return np.stack([np.arctan2(r[:, 0, 2], r[:, 2, 2]), np.arcsin(np.clip(-r[:, 1, 2], -1, 1)),
                     np.arctan2(r[:, 1, 0], r[:, 1, 1])], axis=1)  # fmt: skip


def sharpness(obs: Observations) -> float:
    """Variance of the Laplacian in the face's box, 8-bit levels squared, median of nine frames."""
    values = []
    view = media.open_clip(obs.clip).at(FPS)
    start = int(obs.info.get("start_frame", 0))
    for k in np.linspace(0, len(obs) - 1, 9).astype(int):
        image = next(view.iterate(start + k, start + k + 1), None)
        if image is None:
            continue
        gray = media.crop(image, obs.crop, obs.size).astype(np.float32).mean(-1)
        low, high = obs.track.landmarks[k, :, :2].min(0).astype(int), obs.track.landmarks[k, :, :2].max(0).astype(int)
        g = gray[max(low[1], 0) : high[1], max(low[0], 0) : high[0]]
        if min(g.shape) > 8:
            laplace = 4 * g[1:-1, 1:-1] - g[:-2, 1:-1] - g[2:, 1:-1] - g[1:-1, :-2] - g[1:-1, 2:]
            values.append(float(laplace.var()))
    return float(np.median(values)) if values else 0.0


def contact_sheet(obs: Observations, columns: int = 6, side: int = 192) -> np.ndarray:
    """Frames with landmarks above, their labels below, over the length of the clip."""
    colors = np.array(
        [[40, 40, 40], [230, 170, 140], [90, 60, 30], [220, 40, 40], [60, 160, 60], [50, 70, 190]], np.uint8
    )
    tops, bottoms = [], []
    for k in np.linspace(0, len(obs) - 1, columns).astype(int):
        frame = next(store.frames(obs, k, k + 1))
        image = frame.image.copy()
        for x, y in obs.track.landmarks[k, :, :2].astype(int):
            image[max(y - 1, 0) : y + 1, max(x - 1, 0) : x + 1] = (80, 255, 120)
        tops.append(media.resize(image, side, side))
        mixed = (frame.image // 2 + colors[frame.labels] // 2).astype(np.uint8)
        bottoms.append(media.resize(mixed, side, side))
    return np.concatenate([np.concatenate(tops, axis=1), np.concatenate(bottoms, axis=1)])


def write_report(obs: Observations, findings: list[Finding], path: Path) -> Path:
    """One self-contained page: the table and a contact sheet."""
    import base64

    sheet = base64.b64encode(media.encode_image(contact_sheet(obs), ".jpg")).decode()
    tint = {"pass": "#2a7", "weak": "#c80", "fail": "#c33"}
    rows = "".join(
        f'<tr><td>{html.escape(f.name)}</td><td style="color:{tint[f.status]}">{f.status}</td>'
        f"<td>{html.escape(f.value)}</td><td>{html.escape(f.advice)}</td></tr>"
        for f in findings
    )
    path.write_text(
        "<!doctype html><meta charset=utf-8><title>Footage</title>"
        "<style>body{font:15px system-ui;margin:2em auto;max-width:72em}"
        "td{padding:.2em .8em;border-bottom:1px solid #ddd}"
        f"img{{max-width:100%}}</style><h1>{html.escape(Path(obs.clip).name)}</h1><table>{rows}</table>"
        f'<h2>Contact sheet</h2><img src="data:image/jpeg;base64,{sheet}">'
    )
    return path
