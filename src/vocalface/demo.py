"""The whole way on a synthetic person: footage, training, held-out speech, side-by-side video and numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vocalface import media, presenter
from vocalface.hmtalker.config import preset as preset_of
from vocalface.hmtalker.drive import Options, drive, speak
from vocalface.hmtalker.train import train
from vocalface.observe import store
from vocalface.training.progress import Reporter
from vocalface.types import FPS, SPEECH_RATE, CropBox, Sound


@dataclass
class Made:
    """What the demo leaves behind."""

    video: Path
    numbers: dict
    lines: list[str] = field(default_factory=list)


def run(folder: Path | str, *, seconds: float = 40.0, preset: str = "demo", seed: int = 0, progress=None) -> Made:
    """Make the presenter, train a head on it, let it say what it never heard; write everything under `folder`.

    Files: presenter.mp4, presenter.vface and its report, side_by_side.mp4 (truth left, result right, on the held-out
    tail), speech.wav and speaking.mp4 (a new sentence in another voice), preview.png.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    progress = progress or Reporter(enabled=False)
    config = preset_of(preset).replace(seed=seed)
    obs = presenter.make(folder, seconds, seed=seed, size=256, progress=progress.count)
    head_path = folder / "presenter.vface"
    head = train(obs, head_path, config=config, consent="a synthetic person, made by this program", progress=progress)
    from vocalface.presenter import voice

    said = voice.speak(voice.script(8.0, seed + 101), voice="ben", seed=seed + 1, rate=SPEECH_RATE)
    media.write_sound(folder / "speech.wav", said.sound)
    spoken = speak(head_path, folder / "speech.wav", folder / "speaking.mp4", options=Options(), progress=progress)
    side = side_by_side(head, obs, folder / "side_by_side.mp4", folder / "preview.png")
    progress.close()
    rows = head.metrics["rows"]
    audio, still = rows["audio"], rows["undeformed"]
    numbers = {
        "val": audio,
        "rows": rows,
        "speak_fps": round(spoken.fps, 1),
        "head": str(head_path),
        "folder": str(folder),
    }
    lines = [
        "held-out frames, PSNR in dB: "
        f"{audio['psnr']:.2f} full, {audio['psnr_head']:.2f} head, {audio['psnr_mouth']:.2f} mouth",
        f"the same head undeformed: {still['psnr_head']:.2f} head, {still['psnr_mouth']:.2f} mouth",
        f"AU26 predicted from speech against the truth: r = {audio.get('au26_corr', float('nan')):.3f}",
        f"lag {audio.get('lag', 0):+.1f} frames; speaks at {spoken.fps:.0f} frames a second on this machine",
        f"{spoken.video}  (a new sentence in another voice)",
        f"{head_path.with_suffix('.report.html')}",
    ]
    return Made(side, numbers, lines)


def side_by_side(head, obs, video: Path, picture: Path) -> Path:
    """Truth and result on the held-out tail, driven by its speech alone from its first frame on."""
    start = int(np.floor(len(obs) * (1 - head.config.val_fraction) + 1e-9))
    sound = media.open_clip(obs.clip).speech(SPEECH_RATE)
    tail = Sound(sound.samples[start * SPEECH_RATE // FPS :], SPEECH_RATE)
    size = head.camera.width
    whole = CropBox(0, 0, obs.size)
    frames = drive(head, tail, Options(start=start))
    pictures = []
    with media.VideoWriter(video, 2 * size, size, fps=FPS, sound=tail, metadata={"comment": "left: truth"}) as out:
        for true, made in zip(store.frames(obs, start), frames):
            truth = true.image if obs.size == size else media.crop(true.image, whole, size)
            pair = np.concatenate([truth, made.image], axis=1)
            out.write(pair)
            pictures.append(pair)
    rows = np.linspace(0, len(pictures) - 1, 5).astype(int)[1:4]
    media.write_image(picture, np.concatenate([pictures[k] for k in rows], axis=1))
    return video
