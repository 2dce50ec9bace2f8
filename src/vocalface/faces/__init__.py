"""Morphable faces behind one interface: neutral + identity + expression, with MediaPipe's landmarks on each.

`procedural` is the presenter's own face and always at hand; `ict` is ICT-FaceKit (MIT), read from the asset
`ict_facekit/ict_facekit.npz`. Both are in the head's frame, metres: +x to the image's right, +y up, +z out of the face.
`fit` finds expressions in a clip's landmarks; `heads` brings both models to one small layout with the same names, which
`portrait` fits to a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from vocalface.errors import ConfigError

NAMES = ("procedural", "ict")


@dataclass(frozen=True)
class FaceModel:
    """A linear face: vertices = neutral + a . identity + e . expression."""

    name: str
    neutral: np.ndarray  # [V, 3] float32 metres
    identity: np.ndarray  # [K, V, 3] float32, of unit variance where the source says
    expression: np.ndarray  # [E, V, 3] float32, at 1
    expressions: tuple[str, ...]  # [E] names
    faces: np.ndarray  # [F, 3] int
    anchors: np.ndarray  # [468, 3] int, vertices whose weighted sum is a landmark of MediaPipe
    weights: np.ndarray  # [468, 3] float32

    def vertices(self, identity: np.ndarray | None = None, expression: np.ndarray | None = None) -> np.ndarray:
        """Vertices [..., V, 3] of coefficients [..., K] (or fewer) and [..., E]; neither given: the neutral face."""
        out = self.neutral
        for basis, values in ((self.identity, identity), (self.expression, expression)):
            if values is not None:
                values = np.asarray(values, np.float32)
                out = out + np.tensordot(values, basis[: values.shape[-1]], axes=1)
        return out

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        """The first 468 landmarks [..., 468, 3] on vertices (or displacements) [..., V, 3]."""
        return np.einsum("...nkc,nk->...nc", vertices[..., self.anchors, :], self.weights)


@cache
def load(name: str) -> FaceModel:
    """A model by name.

    Raises:
        ConfigError: no such model. AssetError: the files of `ict` are not here.
    """
    if name == "procedural":
        from vocalface.faces.procedural import model
    elif name == "ict":
        from vocalface.faces.ict import model
    else:
        raise ConfigError(f"no face model {name!r}", "faces.load", f"one of: {', '.join(NAMES)}")
    return model()


__all__ = ["NAMES", "FaceModel", "load"]
