"""What an opening mouth shows: teeth, tongue and the dark behind, in the light of the portrait."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vocalface.observe.indices import EYE_LEFT, EYE_RIGHT
from vocalface.presenter import body
from vocalface.sadtalker.motion import Pose
from vocalface.sadtalker.rig import GREY, PARTED, Rig, smoothstep

FRONT, LEVEL, HALF = 0.0890, body.MOUTH_LEVEL, 0.026  # of the modelled mouth: incisors' z, y of the lips, half width
BEHIND = 0.0045  # m, incisors behind the lips' contact
CHEEKS = (50, 280, 101, 330, 36, 266, 205, 425)
LIPS = ((37, 267, 84, 314), (82, 312, 87, 317))  # outer and inner edges
DOWN = {"teeth_upper": 0.0022, "teeth_lower": 0.0035}  # m, under where the model has them
TONE = {"teeth_lower": 0.62, "tongue": 1.5, "cavity": 1.3}
CARRIERS = {"head": 0.0, "jaw": 1.0, "jaw_half": 0.5}


@dataclass(frozen=True)
class Interior:
    """Vertices in head coordinates."""

    rest: np.ndarray  # [N, 3]
    faces: np.ndarray  # [F, 3]
    color: np.ndarray  # [N, 3] linear
    jaw: np.ndarray  # [N] share of the jaw's drop
    tongue: np.ndarray  # [N] bool
    dark: np.ndarray  # [3] gamma 2, beyond everything

    def placed(self, rig: Rig, pose: Pose) -> np.ndarray:
        """Vertices [N, 3], camera coordinates."""
        local = self.rest.copy()
        local[:, 1] += self.jaw * pose.jaw * 0.95
        local[:, 2] += self.jaw * pose.jaw * 0.25
        local[self.tongue, 1] -= 0.0035 * pose.tongue
        local[self.tongue, 2] -= 0.0040 * pose.tongue
        return rig.posed(local, pose)

    def light(self, pose: Pose) -> np.ndarray:
        """Colours [N, 3], linear: little light enters a narrow mouth."""
        opened = float(smoothstep(0.0, 0.011, np.array(pose.aperture or 0.0)))
        return self.color * np.float32(0.20 + 0.80 * opened)


def build(rig: Rig, image: np.ndarray) -> Interior:
    """The interior for a rig, toned after the portrait [S, S, 3] uint8."""
    mouth = rig.mouth
    scale = float(np.clip((mouth.right - mouth.left) / 2 / HALF, 0.75, 1.3))
    middle = (mouth.left + mouth.right) / 2
    parts = [body.cavity(), body.teeth(False), body.tongue(), body.teeth(True)]
    rest, faces, color, jaw, tongue, total = [], [], [], [], [], 0
    for part in parts:
        v = part.vertices
        carried = CARRIERS[part.carrier]
        down = DOWN.get(part.name, 0.0)
        level = mouth.upper[5] if part.name == "teeth_upper" else mouth.upper[5] + 0.6 * carried * mouth.gap
        if mouth.gap <= PARTED:
            level = (mouth.upper[5] + mouth.lower[5]) / 2
        level += down
        placed = np.stack(
            [
                middle + scale * v[:, 0],
                level - scale * (v[:, 1] - LEVEL),
                mouth.depth + BEHIND - scale * (v[:, 2] - FRONT),
            ],
            axis=1,
        )
        rest.append(placed)
        faces.append(part.faces + total)
        color.append(part.tint * TONE.get(part.name, 1.0))
        jaw.append(np.full(len(v), carried))
        tongue.append(np.full(len(v), part.name == "tongue"))
        total += len(v)
    lit = toned(np.concatenate(color), rig, image)
    return Interior(
        np.concatenate(rest).astype(np.float32), np.concatenate(faces).astype(np.int32), lit.astype(np.float32),
        np.concatenate(jaw).astype(np.float32), np.concatenate(tongue),
        np.sqrt(np.median(lit[: len(rest[0])], axis=0)).astype(np.float32),
    )  # fmt: skip


def toned(color: np.ndarray, rig: Rig, image: np.ndarray) -> np.ndarray:
    """Linear colours brought to the portrait's light: as bright as its cheeks, as colourful as they or its lips are.

    Pale skin alone does not make a grey mouth; a drawing in pencil does.
    """
    skin, lips = linear(rig.uv[list(CHEEKS)], image), linear((rig.uv[list(LIPS[0])] + rig.uv[list(LIPS[1])]) / 2, image)
    bright = float(skin.max())
    red = (lips[0] - lips[1:].max()) / max(lips.max(), 1e-3)
    vivid = float(np.clip(max((bright - skin.min()) / max(bright, 1e-3), red) / 0.45, 0, 1))
    grey = color @ GREY
    color = grey[:, None] + vivid * (color - grey[:, None])
    cast = np.minimum((skin / max(bright, 1e-3)) ** 0.25, light_of(rig, image))
    return np.clip(color * cast * np.clip(1.15 * bright + 0.12, 0.15, 1.1), 0, 1)


def light_of(rig: Rig, image: np.ndarray) -> np.ndarray:
    """Colour [3] of the light on a picture [S, S, 3] uint8, red 1: old varnish is yellow, and so are its whites.

    Its brightest spots, or the whites of the eyes, whichever are whiter. Blue light, or a blue sky, counts as white:
    skin is what tells of it.
    """
    eyes = np.zeros(image.shape[:2], np.uint8)
    for rim in (EYE_LEFT, EYE_RIGHT):
        cv2.fillPoly(eyes, [cv2.convexHull(rig.uv[rim].round().astype(np.int32))], 1)
    spots = [np.percentile(image[::4, ::4].reshape(-1, 3), 98, axis=0)]
    if eyes.any():
        spots.append(np.percentile(image[eyes > 0], 90, axis=0))
    return np.minimum(np.max([(spot / max(spot[0], 1)) ** 2 for spot in spots], axis=0), 1)


def linear(px: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Mean linear colour [3] about points [N, 2] of a picture [S, S, 3] uint8."""
    spots = np.clip(px.astype(int), 2, image.shape[0] - 3)
    around = [image[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).mean(0) / 255 for x, y in spots]
    return np.mean(around, axis=0) ** 2
