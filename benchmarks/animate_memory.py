"""Peak memory of `animate` for speech of different lengths, each in a process of its own.

python benchmarks/animate_memory.py PORTRAIT --minutes 1 10
python benchmarks/animate_memory.py PORTRAIT --minutes 1 10 60 --motion   (all but the drawing)
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from speak_memory import speech

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
PEAK = """
# not ru_maxrss: across exec it keeps the peak of the process that started this one
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(frames, int(peak.split()[1]) // 1024, round(rate, 1))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portrait")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--size", type=int, default=512, help="side of the picture, px")
    parser.add_argument("--motion", action="store_true", help="speech to poses, without drawing")
    a = parser.parse_args()
    print("minutes  frames  peak MB  frames a second")
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in a.minutes:
            wav = speech(Path(folder) / "s.wav", minutes)
            out = subprocess.run(
                [sys.executable, "-c", (MOTION if a.motion else DRAWN) + PEAK, a.portrait, str(wav),
                 str(Path(folder) / "o.mp4"), str(a.size)],
                capture_output=True, text=True, check=True,
            ).stdout.split()  # fmt: skip
            print(f"{minutes:7.1f}  {out[-3]:>6}  {out[-2]:>7}  {out[-1]:>15}", flush=True)
            peaks.append(int(out[-2]))
    print(f"longest against shortest: {100 * (peaks[-1] / peaks[0] - 1):+.1f} % (goal: within 10 %)")


if __name__ == "__main__":
    main()
