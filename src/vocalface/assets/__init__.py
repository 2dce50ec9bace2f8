"""Model files: where they are, and (only in `fetch`) how they come here. The one room that touches the network.

A file is looked for in `$VOCALFACE_ASSETS`, then in the user's cache; `vocalface fetch` downloads it, checked by hash.
`VOCALFACE_OFFLINE=1` forbids that. What each file is, whose, and for what, stands in `registry.toml`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from vocalface.errors import AssetError, OutputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Asset:
    """One entry of registry.toml."""

    name: str  # also its place below an assets folder
    url: str  # "" where it must be brought by the user
    sha256: str  # "" where none is published
    bytes: int  # 0 where unknown
    licence: str
    commercial: bool  # whether licence and training data allow commercial use
    verified: bool  # somebody downloaded this url and found this hash
    purpose: str
    mirrors: tuple[str, ...] = ()  # other addresses of the same bytes
    get: str = ""  # how to come by it where there is no url


@functools.cache
def registry() -> dict[str, Asset]:
    """Every known file by name."""
    with resources.files("vocalface.assets").joinpath("registry.toml").open("rb") as f:
        entries = tomllib.load(f)["asset"]
    return {e["name"]: Asset(**{**e, "mirrors": tuple(e.get("mirrors", ()))}) for e in entries}


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
    """Like `find`, but raises AssetError with the way to get the file when it is absent or of another size."""
    found, asset = find(name), registry().get(name)
    if found is None:
        if asset is not None and not asset.url:
            raise AssetError(f"the model file {name} is not here", cache_folder() / name, _by_hand(asset))
        raise AssetError(f"the model file {name} is not here", cache_folder(), f"vocalface fetch {name}")
    if asset is not None and not _fits(found, asset):
        size = f"{found.stat().st_size} bytes, expected {asset.bytes}"
        what = f"the model file {name} is cut short or another one ({size})"
        raise AssetError(what, found, f"rm {found} && vocalface fetch {name}")
    return found


def intact(name: str) -> bool | None:
    """Whether the file here has the registry's hash; None where it is absent or no hash is published."""
    found, asset = find(name), registry().get(name)
    if found is None or asset is None or not asset.sha256:
        return None
    return sha256(found) == asset.sha256


def fetch(names: list[str], progress: Progress | None = None) -> list[Path]:
    """Get files, each checked by its hash (by its size where none is published).

    Args:
        names: of files, or of groups ("sadtalker" is every `sadtalker/…`); none: what real footage needs.
        progress: told (bytes, bytes in all, "fetching NAME") while a file comes, (files, files in all, "fetching")
            after each.

    Raises AssetError: an unknown name, no network, a file whose hash differs. OutputError: the cache cannot be written.
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
        found = find(name)
        out.append(found if found and _fits(found, known[name]) else _download(known[name], progress))
        if progress is not None:
            progress(k + 1, len(wanted), "fetching")
    return out


def group(name: str, known: dict[str, Asset]) -> list[str]:
    """A file's own name, or the files of a group."""
    return [n for n in known if n.startswith(f"{name}/")] or [name]


def _fits(file: Path, asset: Asset) -> bool:
    return not asset.bytes or file.stat().st_size == asset.bytes


def sha256(file: Path) -> str:
    """Hash of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------------- download
def _by_hand(asset: Asset) -> str:
    return f"{asset.get or 'get it from its authors'}, then copy it to {cache_folder() / asset.name}"


def _download(asset: Asset, progress: Progress | None) -> Path:
    target = cache_folder() / asset.name
    if os.environ.get("VOCALFACE_OFFLINE") == "1":
        raise AssetError(f"{asset.name} is not here and VOCALFACE_OFFLINE=1", target, "unset it, or copy the file")
    if not asset.url:
        raise AssetError(f"{asset.name} is not published for download ({asset.licence})", target, _by_hand(asset))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the cache cannot be written ({error.strerror})", target.parent, "set XDG_CACHE_HOME"
        ) from error
    failures = []
    for url in (asset.url, *asset.mirrors):
        try:
            return _retrieve(asset, url, target, progress)
        except Exception as error:  # requests' and pooch's many kinds: all are one thing to the user
            failures.append(
                f"{url}: {'its hash or size differs' if isinstance(error, ValueError) else type(error).__name__}"
            )
    unsure = "" if asset.verified else " (the address was never checked)"
    raise AssetError(f"{asset.name} could not be fetched{unsure}", "; ".join(failures), f"copy it to {target}")


def _retrieve(asset: Asset, url: str, target: Path, progress: Progress | None) -> Path:
    import pooch

    pooch.get_logger().setLevel("ERROR")  # it prints the hashes of files that have none
    bar = _Bar(asset, progress) if progress is not None else False
    pooch.retrieve(
        url, f"sha256:{asset.sha256}" if asset.sha256 else None, fname=target.name, path=target.parent,
        downloader=pooch.HTTPDownloader(progressbar=bar, timeout=30),
    )  # fmt: skip
    if not _fits(target, asset):
        target.unlink()
        raise ValueError("size")
    return target


class _Bar:
    """pooch's idea of a progress bar, told to `progress`."""

    def __init__(self, asset: Asset, progress: Progress) -> None:
        self.total, self.done, self.label, self.progress = asset.bytes, 0, f"fetching {asset.name}", progress

    def update(self, count: int) -> None:
        self.done += count
        self.progress(min(self.done, self.total or self.done), self.total or self.done, self.label)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass
