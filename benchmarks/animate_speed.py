"""Frames a second of `animate` from speech to H.264 at 512x512, and where the time goes.

python benchmarks/animate_speed.py PORTRAIT SPEECH [--seconds 8] [--repeats 5]
python benchmarks/animate_speed.py --presenter            (a portrait and a voice of the project's own)

Frames a second as a user sees them; ms of processor time a frame, by thread: drawing (speech to motion to picture),
writing (colour conversion, muxing), codec (x264's own threads). In turn: the same without overlap, beside it in one
run. Medians over the repeats; `load` is what else the machine does.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.sadtalker import drive
from vocalface.sadtalker.portrait import Portrait, load
from vocalface.types import SPEECH_RATE, CropBox, Sound


def own() -> tuple[Portrait, Sound]:
    """The presenter's first frame, its landmarks as it knows them, and its voice."""
    from vocalface import presenter

    with tempfile.TemporaryDirectory() as folder:
        seen = presenter.make(Path(folder), seconds=10, size=512, seed=0, voice="ada")
        clip = Path(folder) / "presenter.mp4"
        image = next(iter(media.open_clip(clip).at(25)))
        points = np.asarray(seen.track.landmarks[0], np.float32)
        return Portrait(image, points, CropBox(0, 0, 512), 1), media.read_sound(clip, rate=SPEECH_RATE)


def once(portrait: Portrait, sound: Sound, folder: Path, overlapped: bool) -> dict[str, float]:
    """One video: wall seconds and processor seconds of the threads, a frame."""
    drawing = []
    ahead, images = drive.ahead, drive.frames

    def timed(*given, **named):
        spent, made = 0.0, images(*given, **named)
        while True:
            before = time.thread_time()
            image = next(made, None)
            spent += time.thread_time() - before
            if image is None:
                break
            yield image
        drawing.append(spent)

    drive.frames = timed
    drive.ahead = ahead if overlapped else lambda items: items
    wall, every, here = time.perf_counter(), time.process_time(), time.thread_time()
    try:
        made = drive.animate(portrait, sound, folder / "o.mp4")
    finally:
        drive.ahead, drive.frames = ahead, images
    wall, every, here = time.perf_counter() - wall, time.process_time() - every, time.thread_time() - here
    writing = here if overlapped else here - drawing[0]
    parts = {"drawing": drawing[0], "writing": writing, "codec": every - drawing[0] - writing}
    return {"fps": made.frames / wall, **{k: 1e3 * v / made.frames for k, v in parts.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portrait", type=Path, nargs="?")
    parser.add_argument("speech", type=Path, nargs="?")
    parser.add_argument("--presenter", action="store_true")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=5)
    a = parser.parse_args()
    if not a.presenter and a.speech is None:
        parser.error("give PORTRAIT and SPEECH, or --presenter")
    portrait, sound = own() if a.presenter else (load(a.portrait), media.read_sound(a.speech, rate=SPEECH_RATE))
    sound = Sound(sound.samples[: int(a.seconds * sound.rate)], sound.rate)
    rows: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        once(portrait, sound, Path(folder), True)  # what is loaded once
        for _ in range(a.repeats):
            for overlapped in rows:
                rows[overlapped].append(once(portrait, sound, Path(folder), overlapped))
    print(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}")
    print("              frames a second   best   ms: drawing  writing  codec    all")
    for overlapped, found in rows.items():
        middle = {k: float(np.median([row[k] for row in found])) for k in found[0]}
        parts = [middle[k] for k in ("drawing", "writing", "codec")]
        name = "two threads" if overlapped else "in turn"
        print(
            f"{name:12}  {middle['fps']:15.1f}  {max(row['fps'] for row in found):5.1f}  {parts[0]:11.1f}"
            f"  {parts[1]:7.1f}  {parts[2]:5.1f}  {sum(parts):5.1f}"
        )


if __name__ == "__main__":
    main()
