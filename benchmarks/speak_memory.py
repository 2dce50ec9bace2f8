"""Peak memory of `speak` for speech of different lengths, each in a process of its own.

python benchmarks/speak_memory.py HEAD.vface --minutes 1 10
"""

import argparse

from peak_memory import table

CHILD = """
import sys
from vocalface.hmtalker.drive import speak
made = speak(*sys.argv[1:])
frames, rate = made.frames, made.fps
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 10.0])
    a = parser.parse_args()
    table(CHILD, lambda wav, video: (a.head, wav, video), a.minutes)


if __name__ == "__main__":
    main()
