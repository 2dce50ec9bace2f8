"""Where the weights of third-party speech features are looked for."""

from __future__ import annotations

from pathlib import Path

from vocalface import assets
from vocalface.errors import AssetError


def find(name: str, path: str | Path | None, what: str) -> Path:
    """The file at `path`, or called `name` among the assets; AssetError that says where to put it if absent."""
    found = Path(path) if path is not None else assets.find(name)
    if found is None or not found.exists():
        place = found or assets.cache_folder() / name
        raise AssetError(
            f"{what} is not here", place, "copy it to that place; the default feature of vocalface needs no such file"
        )
    return found
