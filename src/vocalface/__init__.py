"""vocalface: speech to talking-head video.

The public API, loaded lazily so that `import vocalface` costs nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "observe": "vocalface.observe",
    "train": "vocalface.hmtalker.train",
    "Head": "vocalface.hmtalker.head",
    "speak": "vocalface.hmtalker.drive",
    "animate": "vocalface.sadtalker.drive",
    "evaluate": "vocalface.metrics.evaluate",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'vocalface' has no attribute {name!r}")
