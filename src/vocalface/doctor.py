"""What is here, what is missing, and the exact command that mends it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass

from vocalface import __version__, assets
from vocalface.render import native


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: str  # ok | weak | missing
    detail: str
    mend: str = ""


CODECS = {
    "libx264": "MP4",
    "aac": "sound in MP4",
    "ffv1": "layers",
    "prores_ks": "alpha in .mov",
    "libvpx-vp9": "alpha in .webm",
}
LIBRARIES = {"libEGL.so.1": "libegl1", "libGLESv2.so.2": "libgles2", "libGL.so.1": "libgl1"}
NEEDED = {
    "mediapipe/face_landmarker.task": "observe and evaluate real footage",
    "mediapipe/selfie_segmentation_256.tflite": "observe real footage",
}


def check() -> list[Finding]:
    """Every finding; prints nothing."""
    return [_python(), _torch(), *_kernels(), *_codecs(), _mediapipe(), *_libraries(), *_files(), _disk(), _cores()]


def _python() -> Finding:
    return Finding("vocalface", "ok", f"{__version__} on Python {platform.python_version()}, {platform.machine()}")


def _torch() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("PyTorch", "missing", "needed to train, not to speak", "pip install torch")
    import torch

    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no CUDA device"
    return Finding("PyTorch", "ok", f"{torch.__version__}, {cuda}")


def _kernels() -> list[Finding]:
    out = []
    for name in ("gaussians", "mesh"):
        if native.available(name):
            out.append(Finding(f"CPU kernel: {name}", "ok", native.candidates()[0]))
        else:
            out.append(
                Finding(
                    f"CPU kernel: {name}",
                    "missing",
                    "drawing falls back to slow PyTorch",
                    "pip install --force-reinstall .",
                )
            )
    return out


def _codecs() -> list[Finding]:
    import av

    out = []
    for codec, purpose in CODECS.items():
        there = codec in av.codecs_available
        out.append(
            Finding(f"codec {codec}", "ok" if there else "missing", purpose, "" if there else "pip install -U av")
        )
    return out


def _mediapipe() -> Finding:
    if importlib.util.find_spec("mediapipe") is None:
        return Finding("MediaPipe", "missing", "needed to observe real footage", "pip install mediapipe")
    return Finding("MediaPipe", "ok", "installed")


def _libraries() -> list[Finding]:
    if platform.system() != "Linux":
        return []
    out = []
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
            out.append(Finding(library, "ok", "for MediaPipe"))
        except OSError:
            out.append(Finding(library, "missing", "MediaPipe needs it", f"apt-get install {package}"))
    return out


def _files() -> list[Finding]:
    out = []
    for name, purpose in NEEDED.items():
        found = assets.find(name)
        out.append(Finding(name, "ok" if found else "missing", purpose, "" if found else f"vocalface fetch {name}"))
    return out


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 1e9
    return Finding(
        "disk",
        "ok" if free > 5 else "weak",
        f"{free:.0f} GB free here",
        "" if free > 5 else "training needs about 5 GB",
    )


def _cores() -> Finding:
    cores = native.threads()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0
    return Finding("processors", "ok" if cores >= 2 else "weak", f"{cores}, {memory:.0f} GB of memory")
