"""PEP 517 backend: scikit-build-core, with the C++ compiler of the `ziglang` wheel where the machine has none."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from scikit_build_core import build as _build

COMPILERS = ("c++", "g++", "clang++")

# Zig names processors in its own way, and without a name it takes the one it runs on.
WRAPPER = """#!/bin/sh
for option; do
  shift
  case "$option" in
    -march=x86-64) option=-mcpu=x86_64 ;;
    -march=x86-64-v3) option=-mcpu=x86_64_v3 ;;
    -march=x86-64-v4) option=-mcpu=x86_64_v4 ;;
  esac
  set -- "$@" "$option"
done
exec "{python}" -m ziglang {tool} "$@"
"""


def needs_zig() -> bool:
    """Whether no C++ compiler is on PATH and none is named by CXX."""
    return not os.environ.get("CXX") and not any(shutil.which(c) for c in COMPILERS)


@contextlib.contextmanager
def _compiler():
    if not needs_zig():
        yield
        return
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        for name, tool in (("CXX", "c++"), ("CC", "cc")):
            script = Path(folder) / f"zig-{tool}"
            script.write_text(WRAPPER.format(python=sys.executable, tool=tool))
            script.chmod(script.stat().st_mode | stat.S_IEXEC)
            os.environ[name] = str(script)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def get_requires_for_build_wheel(config_settings=None):
    return _build.get_requires_for_build_wheel(config_settings) + (["ziglang"] if needs_zig() else [])


def get_requires_for_build_editable(config_settings=None):
    return _build.get_requires_for_build_editable(config_settings) + (["ziglang"] if needs_zig() else [])


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with _compiler():
        return _build.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    with _compiler():
        return _build.build_editable(wheel_directory, config_settings, metadata_directory)


# What needs no compiler is scikit-build-core's own.
prepare_metadata_for_build_wheel = _build.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = _build.prepare_metadata_for_build_editable
get_requires_for_build_sdist = _build.get_requires_for_build_sdist
build_sdist = _build.build_sdist
