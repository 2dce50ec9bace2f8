"""Every portrait with every voice, as a user would run it: length, sync and speed of what `animate` writes.

python benchmarks/animate_portraits.py --portraits FOLDER --speech A.wav B.wav C.wav [--seconds 4] [--sheet sheet.png]

length: frames of the video against the speech's, and the sound's length in it. lag: of the lips that MediaPipe finds in
the written video against the opening that was asked for, frames, and their correlation. ms: processor time a frame of
drawing and encoding together. The sheet holds six frames of each video.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import VocalfaceError
from vocalface.metrics.detect import detect_landmarks
from vocalface.metrics.landmarks import correlation, mouth_opening
from vocalface.metrics.sync import lag
from vocalface.observe.speech.intake import pieces
from vocalface.sadtalker.drive import animate
from vocalface.sadtalker.motion import poses
from vocalface.sadtalker.portrait import load
from vocalface.types import Sound

PICTURES = {".png", ".jpg", ".jpeg", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--speech", type=Path, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--sheet", type=Path)
    a = parser.parse_args()
    rows, lags, costs, rates = [], [], [], []
    print("portrait             voice                frames  sound s   lag     r   ms   frames a second")
    with tempfile.TemporaryDirectory() as folder:
        for picture in sorted(p for p in a.portraits.iterdir() if p.suffix.lower() in PICTURES):
            try:
                portrait = load(picture)
            except VocalfaceError as error:
                print(f"{picture.name:20} {error.what}")
                continue
            for voice in a.speech:
                sound = media.read_sound(voice)
                sound = Sound(sound.samples[: int(a.seconds * sound.rate)], sound.rate)
                out = Path(folder) / "out.mp4"
                before = time.process_time()
                made = animate(portrait, sound, out)
                cost = 1e3 * (time.process_time() - before) / made.frames
                clip = media.open_clip(out)
                shown = list(clip.at(25))
                asked = np.array([p.aperture or 0.0 for p in poses(pieces(sound.samples))])
                points, _ = detect_landmarks(shown)
                delay = r = float("nan")
                if points is not None:
                    seen = mouth_opening(points, normalized=True)[: len(asked)]
                    both = np.isfinite(seen)
                    delay, r = lag(asked[both], seen[both])[0], correlation(asked[both], seen[both])
                heard = media.sound_seconds(out)
                print(
                    f"{picture.name:20} {voice.name:20} {len(shown):3d}/{-(-len(sound.samples) * 25 // sound.rate):3d}"
                    f"  {heard:6.2f}  {delay:+5.1f}  {r:4.2f}  {cost:4.1f}  {made.fps:6.1f}", flush=True,
                )  # fmt: skip
                lags.append(delay)
                costs.append(cost)
                rates.append(made.fps)
                if a.sheet:
                    chosen = [shown[int(i)] for i in np.linspace(0, len(shown) - 1, 6)]
                    rows.append(np.concatenate([media.resize(f, 192, 192) for f in chosen], axis=1))
    print(f"median: lag {np.nanmedian(lags):+.2f}, {np.median(costs):.1f} ms a frame, {np.median(rates):.1f} a second")
    if a.sheet:
        media.write_image(a.sheet, np.concatenate(rows))


if __name__ == "__main__":
    main()
