"""Where the weights of third-party speech features are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from vocalface.errors import AssetError


def find(name: str, path: str | Path | None, what: str) -> Path:
    """The file or folder at `path`, or called `name` among the assets; AssetError where there is none."""
    if path is not None:
        found = Path(path)
    else:
        found = Path(os.environ.get("VOCALFACE_ASSETS") or Path.home() / ".cache" / "vocalface") / name
    if not found.exists():
        raise AssetError(
            f"{what} is absent",
            found,
            f"put it there (vocalface fetch {name.split('/')[0]}), or use the default speech feature 'articulatory'",
        )
    return found
