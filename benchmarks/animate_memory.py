"""Peak memory of `animate` for speech of different lengths, each in a process of its own.

python benchmarks/animate_memory.py PORTRAIT --minutes 1 10
python benchmarks/animate_memory.py PORTRAIT --minutes 1 10 60 --motion   (all but the drawing)
"""

import argparse

from peak_memory import table

DRAWN = """
import sys
from vocalface.sadtalker.drive import animate
from vocalface.sadtalker.portrait import load
made = animate(load(sys.argv[1], size=int(sys.argv[4])), sys.argv[2], sys.argv[3])
frames, rate = made.frames, made.fps
"""
MOTION = """
import sys, time
from vocalface.sadtalker.drive import heard
from vocalface.sadtalker.motion import poses
began = time.perf_counter()
frames = sum(1 for _ in poses(heard(sys.argv[2], 0.0)[0]))
rate = frames / (time.perf_counter() - began)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portrait")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--size", type=int, default=512, help="side of the picture, px")
    parser.add_argument("--motion", action="store_true", help="speech to poses, without drawing")
    a = parser.parse_args()
    table(
        MOTION if a.motion else DRAWN, lambda wav, video: (a.portrait, wav, video, str(a.size)), a.minutes
    )  # fmt: skip


if __name__ == "__main__":
    main()
