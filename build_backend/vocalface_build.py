"""PEP 517 backend: scikit-build-core, with the C++ compiler of the `ziglang` wheel where the machine has none."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from scikit_build_core import build as _build

COMPILERS = ("c++", "g++", "clang++", "cl")


def needs_zig() -> bool:
    """Whether no C++ compiler is on PATH and none is named by CXX."""
    return not os.environ.get("CXX") and not any(shutil.which(c) for c in COMPILERS)


def _requires(inner, settings) -> list[str]:
    return inner(settings) + (["ziglang"] if needs_zig() else [])


def _with_compiler(inner, *args):
    if not needs_zig():
        return inner(*args)
    with tempfile.TemporaryDirectory() as folder:
        for name, tool in (("CXX", "c++"), ("CC", "cc")):
            script = Path(folder) / f"zig-{tool.replace('+', 'x')}"
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang {tool} "$@"\n')
            script.chmod(script.stat().st_mode | stat.S_IEXEC)
            os.environ[name] = str(script)
        try:
            return inner(*args)
        finally:
            del os.environ["CXX"], os.environ["CC"]


def get_requires_for_build_wheel(config_settings=None):
    return _requires(_build.get_requires_for_build_wheel, config_settings)


def get_requires_for_build_editable(config_settings=None):
    return _requires(_build.get_requires_for_build_editable, config_settings)


def get_requires_for_build_sdist(config_settings=None):
    return _build.get_requires_for_build_sdist(config_settings)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _with_compiler(_build.build_wheel, wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _with_compiler(_build.build_editable, wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    return _build.build_sdist(sdist_directory, config_settings)
