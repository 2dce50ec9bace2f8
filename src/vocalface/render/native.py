"""Finds the compiled kernels and picks the variant that this processor runs."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from importlib import resources
from pathlib import Path

from vocalface.errors import DeviceError

VARIANTS = ("avx512", "avx2", "sse2", "generic")
_NEEDS = {
    "avx512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "avx2": {"avx2", "fma", "bmi1", "bmi2", "f16c"},
    "sse2": set(),
    "generic": set(),
}


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Feature flags of the first processor, by Linux's names; empty where they cannot be read."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def candidates() -> list[str]:
    """Variants to try, best first; `VOCALFACE_CPU` names one."""
    chosen = os.environ.get("VOCALFACE_CPU")
    if chosen:
        return [chosen]
    flags = cpu_flags()
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return [v for v in VARIANTS if _NEEDS[v] <= flags and (x86 or v == "generic")]


@functools.cache
def load(name: str) -> ctypes.CDLL:
    """The kernel library `name` ("gaussians" or "mesh"). Raises DeviceError when none is built for this machine."""
    folder = resources.files("vocalface.render")
    tried = []
    for variant in candidates():
        for suffix in (".so", ".dylib", ".dll"):
            path = Path(str(folder / f"_{name}_{variant}{suffix}"))
            if path.is_file():
                return ctypes.CDLL(str(path))
        tried.append(variant)
    raise DeviceError(
        f"the compiled {name} kernel is not installed",
        f"{folder} ({', '.join(tried)})",
        "pip install . (or make install)",
    )


def available(name: str = "gaussians") -> bool:
    try:
        load(name)
    except (DeviceError, OSError):
        return False
    return True


@functools.cache
def threads() -> int:
    """Threads to draw with: `VOCALFACE_THREADS`, else the processors this process may use."""
    chosen = os.environ.get("VOCALFACE_THREADS", "")
    if chosen.isdigit() and int(chosen) > 0:
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
