"""What is here, what is missing, and the exact command that mends it. Nothing is printed here."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from vocalface import __version__, assets
from vocalface.errors import VocalfaceError
from vocalface.render import native

OLDEST_PYTHON = (3, 10)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: str  # ok | weak (works, less well or not everything) | missing
    detail: str
    mend: str = ""  # a command, or what to do; empty where all is well


CODECS = {  # name -> (what for, whether the default path needs it)
    "libx264": ("video in .mp4", True),
    "aac": ("sound in .mp4", True),
    "ffv1": ("masks and layers", True),
    "png": ("pictures", True),
    "mjpeg": ("pictures in reports", True),
    "prores_ks": ("alpha in .mov", False),
    "libvpx-vp9": ("alpha in .webm", False),
    "libopus": ("sound in .webm", False),
}
MODULES = {  # import name -> (package, what for)
    "scipy": ("scipy", "fitting and resampling"),
    "safetensors": ("safetensors", "head files"),
    "mediapipe": ("mediapipe", "observe and evaluate real footage"),
    "ai_edge_litert.interpreter": ("ai-edge-litert", "person masks of real footage"),
    "pooch": ("pooch", "vocalface fetch"),
}
LIBRARIES = {"libEGL.so.1": "libegl1", "libGLESv2.so.2": "libgles2", "libGL.so.1": "libgl1"}
NEEDED = {
    "mediapipe/face_landmarker.task": "observe and evaluate real footage",
    "mediapipe/selfie_segmentation_256.tflite": "observe real footage",
}
OPTIONAL = {  # what works without them, or not at all
    "lpips": "LPIPS in training and evaluate (without: a gradient term, null)",
    "sync": "Sync-C and Sync-D in evaluate (without: null)",
    "metrics": "FID and identity in evaluate (without: null)",
    "sadtalker": "the published SadTalker networks for animate",
    "wav2lip": "the published Wav2Lip networks",
}
DISK, MEMORY = 5.0, 4.0  # GB that a training run may need


def check() -> list[Finding]:
    """Every finding, in the order in which to mend them. Never raises for what it looks at."""
    out = []
    for look in (
        _python, _torch, _kernels, _pyav, _codecs, _modules, _libraries, _needed_files, _optional_files, _network,
        _disk, _cores, _memory,
    ):  # fmt: skip
        try:
            out += look()
        except VocalfaceError as error:
            out.append(Finding(look.__name__.strip("_"), "missing", error.what, error.fix))
        except Exception as error:  # a broken part must not hide the others
            what = f"could not be looked at: {type(error).__name__}: {error}"
            out.append(Finding(look.__name__.strip("_"), "weak", what, "report this line"))
    return out


# ------------------------------------------------------------------------------------------------------------ software
def _python() -> list[Finding]:
    detail = f"{__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < OLDEST_PYTHON:
        return [Finding("vocalface", "weak", detail, "install Python 3.10 or newer")]
    return [Finding("vocalface", "ok", detail)]


def _torch() -> list[Finding]:
    try:
        import torch
    except ImportError as error:
        return [Finding("PyTorch", "missing", f"needed to train, not to speak ({error})", "pip install torch")]
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        detail = f"{torch.__version__}, {card.name}, {card.total_memory / 1e9:.0f} GB"
        return [Finding("PyTorch", "ok", detail)]
    if Path("/proc/driver/nvidia/version").exists():
        what = f"{torch.__version__} does not see the NVIDIA card of this machine"
        index = "https://download.pytorch.org/whl/cu128"
        return [Finding("PyTorch", "weak", what, f"pip install --force-reinstall torch --index-url {index}")]
    return [Finding("PyTorch", "ok", f"{torch.__version__}, no CUDA device: everything runs on the CPU")]


def _kernels() -> list[Finding]:
    out = []
    for name in ("gaussians", "mesh"):
        label = f"CPU kernel: {name}"
        if not native.available(name):
            slow = "drawing falls back to slow PyTorch"
            out.append(Finding(label, "missing", slow, "pip install --force-reinstall --no-deps ."))
            continue
        file = Path(native.load(name)._name).stem
        out.append(Finding(label, "ok", f"{file.rsplit('_', 1)[-1]}, {native.threads()} threads"))
    return out


def _pyav() -> list[Finding]:
    import av

    needed = 17
    major = int(re.match(r"\d+", av.__version__).group())
    libraries = ", ".join(f"{k} {v[0]}" for k, v in av.library_versions.items() if k in ("libavcodec", "libswscale"))
    if major < needed:
        return [Finding("PyAV", "weak", f"{av.__version__}: colours may be off", f"pip install 'av>={needed}'")]
    return [Finding("PyAV", "ok", f"{av.__version__} ({libraries})")]


def _codecs() -> list[Finding]:
    import av

    out = []
    for name, (purpose, needed) in CODECS.items():
        try:
            av.codec.Codec(name, "w")
            out.append(Finding(f"codec {name}", "ok", purpose))
        except ValueError:  # PyAV's UnknownCodecError is one
            mend = "pip install --force-reinstall --only-binary av av"  # a home-made FFmpeg lacks it, the wheel has it
            out.append(Finding(f"codec {name}", "missing" if needed else "weak", f"not built in: {purpose}", mend))
    return out


def _modules() -> list[Finding]:
    out = []
    for module, (package, purpose) in MODULES.items():
        try:
            importlib.import_module(module)
            out.append(Finding(package, "ok", f"{importlib.metadata.version(package)}, {purpose}"))
        except ImportError as error:
            out.append(Finding(package, "missing", f"{purpose} ({error})", f"pip install {package}"))
        except OSError as error:  # a shared library that it loads, see the next findings
            out.append(Finding(package, "missing", f"{purpose} ({error})", _apt()))
    return out


def _apt(absent: list[str] | None = None) -> str:
    packages = " ".join(absent or LIBRARIES.values())
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    sudo = "" if root else "sudo "
    return f"{sudo}apt-get update && {sudo}apt-get install -y {packages}"


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _libraries() -> list[Finding]:
    if platform.system() != "Linux":
        return []
    absent = {library: package for library, package in LIBRARIES.items() if not _loads(library)}
    if absent:
        return [Finding("libraries of MediaPipe", "missing", ", ".join(absent), _apt(list(absent.values())))]
    return [Finding("libraries of MediaPipe", "ok", ", ".join(LIBRARIES))]


# --------------------------------------------------------------------------------------------------------------- files
def _needed_files() -> list[Finding]:
    out = []
    for name, purpose in NEEDED.items():
        found = assets.find(name)
        if found is None:
            out.append(Finding(name, "missing", purpose, f"vocalface fetch {name}"))
        elif assets.intact(name) is False:
            out.append(
                Finding(name, "missing", f"{found} is damaged or another file", f"rm {found} && vocalface fetch {name}")
            )
        else:
            out.append(Finding(name, "ok", purpose))
    return out


def _optional_files() -> list[Finding]:
    out, known = [], assets.registry()
    for group, purpose in OPTIONAL.items():
        names = assets.group(group, known)
        here = [n for n in names if assets.find(n)]
        free = "" if all(known[n].commercial for n in names) else "; not all for commercial use"
        detail = f"{len(here)} of {len(names)} files: {purpose}{free}"
        if len(here) == len(names):
            out.append(Finding(f"optional: {group}", "ok", detail))
            continue
        absent = next(n for n in names if n not in here)
        mend = (
            f"vocalface fetch {group}" if known[absent].url else f"{known[absent].get}: {assets.cache_folder() / group}"
        )
        out.append(Finding(f"optional: {group}", "weak", detail, mend))
    return out


def _network() -> list[Finding]:
    if os.environ.get("VOCALFACE_OFFLINE") == "1":
        return [Finding("network", "weak", "VOCALFACE_OFFLINE=1: nothing is downloaded", "unset VOCALFACE_OFFLINE")]
    return []


# ------------------------------------------------------------------------------------------------------------- machine
def _disk() -> list[Finding]:
    out = []
    for label, folder in (("disk here", Path.cwd()), ("disk of the cache", assets.cache_folder())):
        there = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(there).free / 1e9
        enough = free > DISK
        mend = "" if enough else f"free some space: a training run may need {DISK:.0f} GB"
        out.append(Finding(label, "ok" if enough else "weak", f"{free:.0f} GB free at {there}", mend))
        if not os.access(there, os.W_OK):
            out.append(Finding(label, "missing", f"{there} cannot be written", "work in a folder of your own"))
    return out


def _cores() -> list[Finding]:
    count = native.threads()
    mend = "" if count >= 2 else "a second core halves the training time"
    return [Finding("processors", "ok" if count >= 2 else "weak", str(count), mend)]


def _memory() -> list[Finding]:
    if not hasattr(os, "sysconf"):
        return []
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # a container's share
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    enough = total / 1e9 >= MEMORY
    mend = "" if enough else f"train with --size 256: 512 needs {MEMORY:.0f} GB"
    return [Finding("memory", "ok" if enough else "weak", f"{total / 1e9:.0f} GB", mend)]
