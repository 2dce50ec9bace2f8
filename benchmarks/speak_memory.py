"""Peak memory of `speak` for speech of different lengths, each in a process of its own.

python benchmarks/speak_memory.py HEAD.vface --minutes 1 10
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def speech(path: Path, minutes: float) -> Path:
    """A modulated tone with pauses."""
    from vocalface import media
    from vocalface.types import Sound

    t = np.arange(int(minutes * 60 * 16_000)) / 16_000
    x = 0.2 * np.sin(2 * np.pi * 150 * t) * (1 + np.sin(19 * t)) * (np.sin(0.9 * t) > -0.6)
    return media.write_sound(path, Sound(x.astype(np.float32), 16_000))


CHILD = """
import sys
from vocalface.hmtalker.drive import speak
made = speak(sys.argv[1], sys.argv[2], sys.argv[3])
# not ru_maxrss: across exec it keeps the peak of the process that started this one
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(made.frames, int(peak.split()[1]) // 1024, round(made.fps, 1))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("head")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 10.0])
    a = parser.parse_args()
    print("minutes  frames  peak MB  frames a second")
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in a.minutes:
            wav = speech(Path(folder) / "s.wav", minutes)
            out = subprocess.run(
                [sys.executable, "-c", CHILD, a.head, str(wav), str(Path(folder) / "o.mp4")],
                capture_output=True, text=True, check=True,
            ).stdout.split()  # fmt: skip
            print(f"{minutes:7.1f}  {out[0]:>6}  {out[1]:>7}  {out[2]:>15}", flush=True)
            peaks.append(int(out[1]))
    print(f"longest against shortest: {100 * (peaks[-1] / peaks[0] - 1):+.1f} % (goal: within 10 %)")


if __name__ == "__main__":
    main()
