"""What lies behind the person: the ground, filled in where the person stands, so that a turn does not drag it along."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vocalface.errors import AssetError
from vocalface.observe.indices import FACE_OVAL
from vocalface.observe.masks import PersonSegmenter, disc
from vocalface.sadtalker import texture
from vocalface.sadtalker.rig import Rig

FILLED, KEPT = 5, 7  # px at 512 about the person: so far the ground is invented, so far reaches the moving picture
STRAY = 8  # px at 512 beyond what is filled in: hair that the mask missed is no ground to copy
SURE = 0.75  # share of the face that a person mask must hold to be believed: cartoons and statues often fail it


@dataclass(frozen=True)
class Ground:
    """A still ground and the person's outline, which goes with the head."""

    plate: np.ndarray  # [S, S, 3] uint8
    outline: np.ndarray  # [S, S] uint8, how far a pixel of the portrait hides the ground

    @property
    def cut(self) -> np.ndarray:
        """At which sides (left, top, right, bottom) the person reaches the picture's border [4] bool."""
        o = self.outline
        return np.array([o[:, 0].max(), o[0].max(), o[:, -1].max(), o[-1].max()]) > 127


def build(rig: Rig, image: np.ndarray, person: np.ndarray | None = None) -> Ground | None:
    """The ground of a portrait [S, S, 3] uint8, or None where no person mask can be had or believed.

    Args:
        person: [h, w] probability; by default MediaPipe's selfie segmentation, when its model file is here.
    """
    if person is None:
        try:
            person = PersonSegmenter()(image)
        except AssetError:
            return None
    size = rig.size
    solid = (cv2.resize(person, (size, size), interpolation=cv2.INTER_LINEAR) > 0.3).astype(np.uint8)
    face = np.zeros_like(solid)
    cv2.fillPoly(face, [rig.uv[FACE_OVAL].round().astype(np.int32)], 1)
    if (solid & face).sum() < SURE * face.sum():
        return None
    solid |= face
    _, parts = cv2.connectedComponents(solid)
    own = (parts == np.bincount(parts[face > 0]).argmax()).astype(np.uint8)
    filled, kept = (cv2.dilate(own, disc(max(round(r * size / 512), 1))) for r in (FILLED, KEPT))
    theirs = cv2.dilate(filled, disc(max(round(STRAY * size / 512), 1)))
    plate = texture.fill(image, filled > 0, theirs == 0)
    outline = np.maximum(cv2.GaussianBlur(kept.astype(np.float32), (0, 0), 2.0 * size / 512), filled)
    return Ground(plate, (outline * 255 + 0.5).astype(np.uint8))
