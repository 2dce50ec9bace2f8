"""Wall and processor seconds of making the presenter's footage with its observations, sound and encoding included.

python benchmarks/presenter_speed.py                     60 s at 256 px
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time

CHILD = """
import sys
from pathlib import Path
from vocalface import presenter
presenter.make(Path(sys.argv[1]), float(sys.argv[2]), size=int(sys.argv[3]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", type=int, default=256)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", CHILD, folder, str(a.seconds), str(a.size)], check=True)
        wall = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = len(os.sched_getaffinity(0))
    print(
        f"{a.seconds:g} s at {a.size} px on {cores} cores, load {os.getloadavg()[0]:.1f} from everything that runs here"
    )
    print(f"wall {wall:.1f} s   processor {used.ru_utime + used.ru_stime:.1f} s   peak {used.ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
