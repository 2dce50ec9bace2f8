"""Files that appear whole or not at all, where they may go, and folders that do not stay."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on this system: what a killed process leaves there stays
    fcntl = None

from vocalface.errors import OutputError

YOUNG = 5.0  # s


def check_writable(path: Path) -> None:
    """Raises OutputError early, before hours of work, when no file can be written to `path`."""
    if not path.parent.is_dir():
        raise OutputError("the output folder does not exist", path.parent, f"mkdir -p {path.parent}")
    if path.is_dir():
        raise OutputError("a folder has this name", path, "choose another name with -o")
    try:  # rights and a read-only disk show only when something is written
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OutputError(
            f"the output folder is not writable ({error.strerror})", path.parent, "choose another with -o"
        ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Writes `data` to `path` so that a crash leaves the old file or the new one, never a part."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself has to reach the disk too
    finally:
        os.close(folder)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder; also sweeps away those whose process was killed.

    A lock that dies with its process tells the dead from the living, also where process numbers are not shared.
    """
    home = Path(tempfile.gettempdir())
    for folder in home.glob("vocalface-*.tmp"):
        _sweep(folder)
    folder = Path(tempfile.mkdtemp(prefix="vocalface-", suffix=".tmp", dir=home))
    lock = os.open(folder, os.O_RDONLY)
    try:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(folder: Path) -> None:
    """Remove a scratch folder that nobody holds. One that was made this very second may not be locked yet."""
    if not fcntl:
        return
    with contextlib.suppress(OSError):
        if time.time() - folder.stat().st_mtime < YOUNG:
            return
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
