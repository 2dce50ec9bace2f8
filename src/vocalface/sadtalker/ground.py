"""What lies behind the person: the ground, filled in where the person stands, so that a turn does not drag it along."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vocalface.errors import AssetError
from vocalface.observe.indices import FACE_OVAL
from vocalface.observe.masks import PersonSegmenter, disc
from vocalface.observe.plate import push_pull
from vocalface.sadtalker.rig import Rig

FILLED, KEPT = 5, 7  # px at 512 about the person: so far the ground is invented, so far reaches the moving picture
UNCOVERED = 26  # px at 512 that a turn may bare: there lines of the ground are continued, deeper it is only smooth
GRAIN = 10  # of 255, most that a filled-in pixel differs from the smooth ground
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
    plate = push_pull(image.astype(np.float32) / 255, 1 - filled.astype(np.float32))
    plate = continued((np.clip(plate, 0, 1) * 255 + 0.5).astype(np.uint8), filled, max(UNCOVERED * size // 512, 2))
    plate = grained(plate, image, filled)
    outline = np.maximum(cv2.GaussianBlur(kept.astype(np.float32), (0, 0), 2.0 * size / 512), filled)
    return Ground(plate, (outline * 255 + 0.5).astype(np.uint8))


def grained(plate: np.ndarray, image: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """The ground [S, S, 3] uint8 with canvas or film grain where it was filled in (`filled` [S, S], 0 or 1).

    The grain of the portrait's own ground `image`, mirrored at the filled part's border.
    """
    known = (1 - filled).astype(np.float32)
    seen = image.astype(np.float32)
    sigma = max(1.5 * len(image) / 512, 1.0)  # leaves and lines are no grain
    share = np.maximum(cv2.GaussianBlur(known, (0, 0), sigma), 1e-3)[..., None]
    grain = np.clip(seen - cv2.GaussianBlur(seen * known[..., None], (0, 0), sigma) / share, -GRAIN, GRAIN)
    _, labels = cv2.distanceTransformWithLabels(filled, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    y, x = np.nonzero(filled)
    ys, xs = np.nonzero(filled == 0)
    if not len(ys) or not len(y):
        return plate
    place = np.zeros((labels.max() + 1, 2), int)
    place[labels[ys, xs]] = np.stack([ys, xs], 1)
    near = place[labels[y, x]]
    mirrored = 2 * near - np.stack([y, x], 1)
    within = ((mirrored > 0) & (mirrored < len(image) - 1)).all(1)
    mirrored = np.where(within[:, None], mirrored, near)
    usable = (within & (filled[mirrored[:, 0], mirrored[:, 1]] == 0))[:, None]
    out = plate.astype(np.float32)
    out[y, x] += np.where(usable, grain[mirrored[:, 0], mirrored[:, 1]], 0)
    return np.rint(np.clip(out, 0, 255)).astype(np.uint8)


def continued(plate: np.ndarray, filled: np.ndarray, depth: int) -> np.ndarray:
    """A smoothly filled ground [S, S, 3] uint8 whose lines go on for `depth` px into the filled part [S, S], 0 or 1.

    After "An image inpainting technique based on the fast marching method" (Telea, 2004), faded into the smooth one.
    """
    within = cv2.distanceTransform(filled, cv2.DIST_L2, 5)
    ring = ((within > 0) & (within <= depth)).astype(np.uint8)
    lines = cv2.inpaint(plate, ring, 3, cv2.INPAINT_TELEA)
    fade = np.clip(within / depth, 0, 1)[..., None]
    fade = fade * fade * (3 - 2 * fade)
    return np.rint(lines + fade * (plate.astype(np.float32) - lines)).astype(np.uint8)
