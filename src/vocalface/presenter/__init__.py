"""A synthetic speaker whose every truth is known: script and seed in, video and exact Observations out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vocalface.types import Observations


def make(
    folder: Path | str, seconds: float = 30.0, *, seed: int = 0, size: int = 256, voice: str = "ada",
    progress: Callable[[int, int, str], None] | None = None,
) -> Observations:  # fmt: skip
    """Writes folder/presenter.mp4 and folder/presenter.obs; the same pixels and truths for the same arguments.

    Args:
        folder: made when it is not there.
        seconds: length of the clip.
        seed: who it is (even: long hair, odd: short), how they move, and what they say.
        size: side of the square picture, px.
        voice: a name of `presenter.voice.VOICES`.
        progress: called with (frames done, frames in all, label).

    Returns:
        Observations whose landmarks are points of the drawn surface, whose action units and poses are those that
        moved it, and whose layers are renderings; `info["phones"]` holds [symbol, start s, end s].

    Raises:
        ConfigError: an unknown voice, a size or length that makes no sense. OutputError: the folder cannot be written.
    """
    from vocalface.presenter.film import film

    return film(Path(folder), seconds, seed=seed, size=size, voice=voice, progress=progress)
