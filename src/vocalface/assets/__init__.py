"""Model files: where they are, and (only in `fetch`) how they come here. The one room that touches the network.

A file is looked for in `$VOCALFACE_ASSETS`, then in the user's cache; `vocalface fetch` downloads it, checked by hash.
`VOCALFACE_OFFLINE=1` forbids that.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from vocalface.errors import AssetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Asset:
    """One entry of registry.toml."""

    name: str  # also its place below an assets folder
    url: str
    sha256: str
    bytes: int
    licence: str
    commercial: bool
    verified: bool  # somebody downloaded this url and found this hash
    purpose: str


def registry() -> dict[str, Asset]:
    """Every known file by name."""
    with resources.files("vocalface.assets").joinpath("registry.toml").open("rb") as f:
        entries = tomllib.load(f)["asset"]
    return {e["name"]: Asset(**e) for e in entries}


def cache_folder() -> Path:
    """The user's cache: `$XDG_CACHE_HOME/vocalface`, or the platform's usual place."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "vocalface"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vocalface"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "vocalface"
    return Path.home() / ".cache" / "vocalface"


def find(name: str) -> Path | None:
    """Where the file is on this machine, or None."""
    folders = [Path(os.environ["VOCALFACE_ASSETS"])] if os.environ.get("VOCALFACE_ASSETS") else []
    for folder in (*folders, cache_folder()):
        if (folder / name).is_file():
            return folder / name
    return None


def path(name: str) -> Path:
    """Like `find`, but raises AssetError with the command that gets the file."""
    found = find(name)
    if found is None:
        raise AssetError(f"the model file {name} is not here", cache_folder(), f"vocalface fetch {name}")
    return found


def fetch(names: list[str], progress=None) -> list[Path]:
    """Get files, each checked by its hash (by its size where none is published).

    Args:
        names: of files, or of groups ("sadtalker" is every `sadtalker/…`); none: what real footage needs.

    Raises AssetError: an unknown name, no network, a file whose hash differs.
    """
    known = registry()
    wanted = [n for name in names for n in group(name, known)]
    if not names:  # what `observe` needs
        wanted = [n for n, a in known.items() if n.startswith("mediapipe/") and a.url]
    unknown = [n for n in wanted if n not in known]
    if unknown:
        raise AssetError(f"unknown: {', '.join(unknown)}", "vocalface fetch", f"one of: {', '.join(known)}")
    out = []
    for k, name in enumerate(wanted):
        out.append(find(name) or _download(known[name]))
        if progress is not None:
            progress(k + 1, len(wanted), "fetching")
    return out


def group(name: str, known: dict[str, Asset]) -> list[str]:
    """A file's own name, or the files of a group."""
    return [n for n in known if n.startswith(f"{name}/")] or [name]


def _download(asset: Asset) -> Path:
    if os.environ.get("VOCALFACE_OFFLINE") == "1":
        raise AssetError(
            f"{asset.name} is not here and VOCALFACE_OFFLINE=1", cache_folder(), "unset it, or copy the file"
        )
    if not asset.url:
        raise AssetError(
            f"{asset.name} has no download address", asset.licence, f"copy it to {cache_folder() / asset.name}"
        )
    import pooch

    target = cache_folder() / asset.name
    try:
        pooch.retrieve(
            asset.url, f"sha256:{asset.sha256}" if asset.sha256 else None, fname=target.name, path=target.parent
        )
    except Exception as error:  # requests' and pooch's many kinds: all are one thing to the user
        unsure = "" if asset.verified else " (the address is unverified)"
        raise AssetError(
            f"{asset.name} could not be fetched{unsure}: {type(error).__name__}", asset.url, f"copy it to {target}"
        ) from error
    if not asset.sha256 and asset.bytes and target.stat().st_size != asset.bytes:
        size = target.stat().st_size
        target.unlink()
        raise AssetError(f"{asset.name} has {size} bytes, expected {asset.bytes}", asset.url, "try again later")
    return target


def sha256(file: Path) -> str:
    """Hash of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
