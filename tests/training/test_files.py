"""Scratch folders: gone with their process, however it ends; a living one's stays."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from vocalface.training import files

KILLED = """
import os, signal
from vocalface.training.files import scratch
with scratch() as folder:
    (folder / "layer.mp4").write_bytes(b"0" * 1000)
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def aged(folder: Path) -> Path:
    os.utime(folder, (0, 0))
    return folder


def test_it_goes_at_the_end_and_after_an_error(home):
    with files.scratch() as folder:
        (folder / "a").write_text("a")
    with pytest.raises(ValueError, match="oops"), files.scratch() as folder:
        raise ValueError("oops")
    assert not list(home.iterdir())


@pytest.mark.skipif(files.fcntl is None, reason="needs file locks")
def test_what_a_killed_process_left_is_swept_and_a_living_ones_stays(home):
    done = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, env={**os.environ, "TMPDIR": str(home)}
    )
    left = aged(Path(done.stdout.strip()))
    assert done.returncode == -9 and (left / "layer.mp4").exists()
    other = home / "vocalface-notes.txt"
    other.write_text("not ours to remove")
    with files.scratch() as living:
        assert not left.exists()
        aged(living)
        with files.scratch():
            assert living.exists() and other.exists()
    assert list(home.iterdir()) == [other]
