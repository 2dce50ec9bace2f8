"""What the benchmarks of peak memory share: speech of any length, and the peak of a process that hears it (Linux)."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

RATE = 16_000
TELL = """
# not ru_maxrss: across exec it keeps the peak of the process that started this one
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(frames, int(peak.split()[1]) // 1024, round(rate, 1))
"""


def speech(path: Path, minutes: float) -> Path:
    """A modulated tone with pauses, the same minute over and over."""
    from vocalface import media
    from vocalface.types import Sound

    t = np.arange(60 * RATE) / RATE
    minute = 0.2 * np.sin(2 * np.pi * 150 * t) * (1 + np.sin(19 * t)) * (np.sin(0.9 * t) > -0.6)
    return media.write_sound(path, Sound(np.resize(minute.astype(np.float32), int(minutes * 60 * RATE)), RATE))


def table(code: str, arguments: Callable[[str, str], Sequence[str]], minutes: Sequence[float]) -> None:
    """Run `code` once for each length, in a process of its own, and print what it took.

    Args:
        code: Python that takes `arguments` from sys.argv and leaves `frames` and `rate` (frames a second).
        arguments: (sound file, video to be written) -> the process' arguments.
    """
    print("minutes  frames  peak MB  frames a second")
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for length in minutes:
            wav = speech(Path(folder) / "speech.wav", length)
            command = [sys.executable, "-c", code + TELL, *arguments(str(wav), str(Path(folder) / "made.mp4"))]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            frames, peak, rate = out.splitlines()[-1].split()
            print(f"{length:7.1f}  {frames:>6}  {peak:>7}  {rate:>15}", flush=True)
            peaks.append(int(peak))
    print(f"longest against shortest: {100 * (peaks[-1] / peaks[0] - 1):+.1f} % (goal: within 10 %)")
