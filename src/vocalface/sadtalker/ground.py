"""What lies behind the person: the ground, filled in where the person stands, so that a turn does not drag it along."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vocalface.errors import AssetError
from vocalface.observe.indices import FACE_OVAL
from vocalface.observe.masks import PersonSegmenter, disc
from vocalface.observe.plate import push_pull
from vocalface.render.mesh import render_mesh
from vocalface.sadtalker.rig import Rig
from vocalface.types import Camera

COARSE = 4  # px of the picture to one of the person's outline as it moves
FILLED, KEPT = 5, 11  # px at 512 about the person: so far the ground is invented, so far reaches the moving picture
SURE = 0.75  # share of the face that a person mask must hold to be believed: cartoons and statues often fail it


@dataclass(frozen=True)
class Ground:
    """A still ground and the person's outline, which goes with the head."""

    plate: np.ndarray  # [S, S, 3] float32 0..1
    outline: np.ndarray  # [s, s, 4] uint8, texture of the coverage, s = S / COARSE
    camera: Camera

    def behind(self, color: np.ndarray, rig: Rig, points: np.ndarray) -> np.ndarray:
        """The drawn picture [S, S, 3] float32, in place, with the still ground wherever the person is not."""
        cover = render_mesh(
            points, rig.faces, self.camera, uv=rig.uv / COARSE, texture=self.outline, samples=1,
            cutout=np.zeros(len(rig.faces), np.uint8),
        ).color[..., 0]  # fmt: skip
        cover = cv2.resize(cover, color.shape[1::-1], interpolation=cv2.INTER_LINEAR)[..., None]
        color -= self.plate
        color *= cover
        color += self.plate
        return color


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
    small = size // COARSE
    outline = cv2.GaussianBlur(kept.astype(np.float32), (0, 0), 2.0 * size / 512)
    outline = np.maximum(outline, filled)
    outline = cv2.resize(outline, (small, small), interpolation=cv2.INTER_AREA)
    c = rig.camera
    texture = np.repeat((outline * 255 + 0.5).astype(np.uint8)[..., None], 4, axis=2)
    camera = Camera(c.fx / COARSE, c.fy / COARSE, c.cx / COARSE, c.cy / COARSE, small, small)
    return Ground(plate, texture, camera)
