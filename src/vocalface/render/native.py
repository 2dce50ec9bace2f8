"""Finds the compiled kernels and picks the variant that this processor runs."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from vocalface.errors import ConfigError, DeviceError

VARIANTS = ("avx512", "avx2", "sse2", "generic")
_V3 = {"avx2", "fma", "bmi1", "bmi2", "f16c", "abm", "movbe"}  # x86-64-v3 and -v4, by Linux's names
_V4 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_NEEDS = {"avx512": _V3 | _V4, "avx2": _V3, "sse2": set(), "generic": set()}


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
    """Variants to try, best first; `VOCALFACE_CPU` names one. Raises ConfigError when that one cannot be."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    able = [v for v in VARIANTS if _NEEDS[v] <= cpu_flags() and (x86 or v == "generic")]
    chosen = os.environ.get("VOCALFACE_CPU")
    if not chosen:
        return able
    if chosen not in VARIANTS:
        raise ConfigError(f"VOCALFACE_CPU={chosen} is no variant", "environment", f"use one of {', '.join(VARIANTS)}")
    if chosen not in able:
        raise ConfigError(
            f"this processor does not run {chosen} code", "VOCALFACE_CPU", f"unset it, or use one of {', '.join(able)}"
        )
    return [chosen]


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


_users = 1


def threads() -> int:
    """Threads to draw with: `VOCALFACE_THREADS`, else the processors this process may use, at most 16; of `shared` ones
    this user's part."""
    chosen = os.environ.get("VOCALFACE_THREADS", "")
    count = int(chosen) if chosen.isdigit() and int(chosen) > 0 else min(_processors(), 16)
    return max(1, count // _users)


@contextlib.contextmanager
def shared(users: int) -> Iterator[None]:
    """While several threads of this process draw at the same time."""
    global _users
    before, _users = _users, users
    try:
        yield
    finally:
        _users = before


@functools.cache
def _processors() -> int:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:  # a container's share of the machine
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return count
