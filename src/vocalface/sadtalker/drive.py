"""A portrait and speech in, a talking video out: the built-in renderer, on a CPU, faster than it plays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from vocalface import media
from vocalface.errors import ConfigError
from vocalface.media.synthetic import Made, record
from vocalface.observe.speech.intake import SHORTEST, at_least, listen, pieces
from vocalface.render.mesh import render_mesh, warp
from vocalface.sadtalker import ground, interior, rig
from vocalface.sadtalker.ahead import ahead
from vocalface.sadtalker.direction import Direction
from vocalface.sadtalker.enhance import Enhancer
from vocalface.sadtalker.gaze import check as check_gaze
from vocalface.sadtalker.gaze import look
from vocalface.sadtalker.lids import Lids
from vocalface.sadtalker.lips import Lips
from vocalface.sadtalker.motion import Pose, Style, poses
from vocalface.sadtalker.portrait import Portrait, Search, load
from vocalface.sadtalker.rig import window
from vocalface.types import SPEECH_RATE, Camera, Sound, frames_for

FINE, EDGE = 2, 3  # samples an axis about the mouth; of lips that part


class Puppet:
    """A portrait that takes poses."""

    def __init__(self, portrait: Portrait) -> None:
        self.portrait, self.threads = portrait, 1
        self.rig = rig.build(portrait.landmarks, portrait.image.shape[0])
        self.ground = ground.build(self.rig, portrait.image)
        if self.ground is not None:
            self.rig = self.rig.cut_off(self.ground.cut)
        self.interior = interior.build(self.rig, portrait.image)
        self.lids = Lids(self.rig, portrait.image)
        self.lips = Lips(self.rig, portrait.image)
        corners = portrait.landmarks[[rig.LIP_UPPER[0], rig.LIP_UPPER[-1]], :2]
        self.soft = max(0.02 * float(np.linalg.norm(corners[1] - corners[0])), 0.3)  # px, blur of the mouth's inside
        self.texture = np.concatenate([portrait.image, np.full_like(portrait.image[..., :1], 255)], axis=2)

    @property
    def ground(self) -> ground.Ground | None:
        return self._ground

    @ground.setter
    def ground(self, value: ground.Ground | None) -> None:
        self._ground = value
        image = self.portrait.image
        opaque = np.full(image.shape[:2], 255, np.uint8) if value is None else value.outline
        self.cutting = np.dstack([image, opaque])  # [S, S, 4], the portrait and what of it hides the ground
        self.under = image if value is None else value.plate

    def draw(self, pose: Pose) -> np.ndarray:
        """One frame [S, S, 3] uint8."""
        points = self.rig.deform(pose)
        px = self.rig.project(points)
        parted = self.lips.parted(px)
        for texture in (self.cutting, self.texture):
            texture[self.lips.spot][..., :3] = self.lips.seen if parted is None else parted
        out = warp(
            points, self.rig.faces, self.rig.camera, uv=self.rig.uv, texture=self.cutting, under=self.under,
            threads=self.threads,
        )  # fmt: skip
        self._mouth(out, points, px, pose, FINE if parted is None else EDGE)
        if pose.blink > 0:
            self.lids.paint(out, points, px, pose.blink)
        return out

    def _skin(self, points: np.ndarray, camera: Camera, samples: int, light: np.ndarray | None = None):
        return render_mesh(
            points, self.rig.faces, camera, uv=self.rig.uv, texture=self.texture, samples=samples, light=light,
            cutout=np.zeros(len(self.rig.faces), np.uint8), threads=1,
        )  # fmt: skip

    def _mouth(self, out: np.ndarray, points: np.ndarray, px: np.ndarray, pose: Pose, samples: int) -> None:
        rim = px[[*rig.LIP_UPPER, *rig.LIP_LOWER[::-1]]]
        view = window(rim, self.rig.camera, 4)
        if view is None:
            return
        x, y, camera = view
        spot = out[y : y + camera.height, x : x + camera.width]
        light = None
        if len(self.rig.seam):
            wider = max((pose.aperture or 0.0) - self.rig.mouth.gap, 0.0) + pose.jaw
            light = np.ones((len(points), 3), np.float32)
            light[self.rig.seam] = 1 - 0.65 * rig.smoothstep(0, 0.004, np.float64(wider))
        skin = self._skin(points, camera, samples, light)
        color = skin.color  # of shut lips too: a pixel's centre may lie between them, and shows the ground
        if skin.alpha.min() < 1:
            inner = render_mesh(
                self.interior.placed(self.rig, pose), self.interior.faces, camera, light=self.interior.light(pose),
                samples=FINE, threads=1,
            )  # fmt: skip
            # A camera that is sharp on the skin is not on the teeth behind it, and modelled edges look cut out.
            inside = inner.color + (1 - inner.alpha)[..., None] * self.interior.dark
            soft = cv2.GaussianBlur(inside, (0, 0), self.soft)
            # The lips shade what lies just behind them; a narrow shadow would line their edge with dashes.
            shade = 0.8 * cv2.GaussianBlur(skin.alpha, (0, 0), 1.4 * self.soft)[..., None] ** 2
            soft += shade * (self.interior.dark - soft)
            color = color + (1 - skin.alpha)[..., None] * soft
        within = np.zeros(skin.alpha.shape, np.uint8)  # the lips themselves are drawn already, and sharper
        cv2.fillPoly(within, [np.round(rim - (x, y) - 0.5).astype(np.int32)], 255)
        cv2.copyTo(to_bytes(color), cv2.dilate(within, np.ones((3, 3), np.uint8)), spot)


def to_bytes(color: np.ndarray) -> np.ndarray:
    return (color * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def frames(
    portrait: Portrait, sound: Sound | Iterable[np.ndarray], style: Style | None = None,
    direction: Direction | None = None, count: int = 1,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Frames [S, S, 3] uint8 of a portrait that says `sound` (16 kHz, whole or in pieces).

    Args:
        direction: laid over the motion; its schedules are spread over `count` frames.
    """
    puppet = Puppet(portrait)
    parts = pieces(sound.samples) if isinstance(sound, Sound) else sound
    motion = poses(at_least(parts), style)
    for pose in direction(motion, count) if direction else motion:
        yield puppet.draw(pose.sized(puppet.rig.mouth.size))


@dataclass(frozen=True)
class Result(Made):
    """What `animate` made."""

    faces: int  # faces found in the picture
    face: str  # which of them speaks


def animate(
    portrait: Portrait | Path | str, speech: Sound | Path | str | None, output: Path | str, *,
    style: Style | None = None, direction: Direction | None = None, idle: float = 0.0, face: str = "largest",
    whole: bool = False, search: Search | None = None, gaze: tuple[float, float] | None = None,
    enhance: Enhancer | None = None, progress=None,
) -> Result:  # fmt: skip
    """Write a video of a portrait saying `speech`, its own sound muxed unchanged, to `output`.

    Args:
        portrait: a picture, or a video, whose best frame is taken.
        style: how lively the motion is.
        direction: turning schedules, another video's head or blinks.
        idle: seconds of a silent video in which the portrait only lives; `speech` is None then.
        face: which one of several speaks: "largest", a number from the left, or "x,y,w,h" px about it.
        whole: put the moving square back into the uncropped picture.
        search: finds faces; MediaPipe's landmarker by default.
        gaze: where the eyes look, degrees to the image's right and down.
        enhance: betters each drawn square.

    Raises:
        MediaError, FaceError, AssetError, ConfigError, OutputError.
    """
    style = style or Style()
    check_scales(style.expression_scale, style.head_scale)
    spoken, count = heard(speech, idle)
    picked = portrait if isinstance(portrait, Portrait) else load(portrait, search=search, face=face, keep=whole)
    if whole and picked.source is None:
        raise ConfigError("the whole picture was not kept", "whole", "load the portrait with keep=True")
    if gaze is not None:
        picked = replace(picked, image=look(picked.image, picked.landmarks, check_gaze(gaze)))
    height, width = picked.source.shape[:2] if whole else picked.image.shape[:2]

    def images() -> Iterator[np.ndarray]:
        for image in frames(picked, spoken, style, direction, count):
            image = enhance(image) if enhance is not None else image
            yield media.paste_back(picked.source, image, picked.box) if whole else image

    chosen = (picked.faces, face)
    return written(ahead(images()), output, (width, height), speech, count, "built-in renderer", chosen, progress)


def check_scales(expression: float, head: float) -> None:
    """Raises ConfigError."""
    for name, value in (("--expression-scale", expression), ("--head-scale", head)):
        if not 0 <= value <= 3:
            raise ConfigError(f"{value} is out of range", name, "give a number from 0 to 3")


def written(
    images: Iterable[np.ndarray], output: Path | str, size: tuple[int, int], speech: Sound | Path | str | None,
    count: int, renderer: str, chosen: tuple[int, str], progress=None,
) -> Result:  # fmt: skip
    """Frames [H, W, 3] uint8 of `size` (width, height) into a video with the speech's own sound, unchanged.

    Args:
        chosen: how many faces the picture has, and which of them speaks.

    Raises:
        OutputError, ConfigError.
    """
    made = record(
        images, output, *size, speech, method=f"SadTalker {renderer}", copy_sound=not isinstance(speech, Sound | None),
        doing="animating", frames=count, progress=progress,
    )  # fmt: skip
    return Result(made.video, made.frames, made.seconds, made.fps, *chosen)


def heard(speech: Sound | Path | str | None, idle: float) -> tuple[Iterator[np.ndarray], int]:
    """What is spoken at 16 kHz, in pieces, silence where there is no speech; and how many frames it should last.

    Raises MediaError (no sound, an empty one), ConfigError (neither or both).
    """
    if (speech is None) == (idle <= 0):
        raise ConfigError("speech or --idle, one of the two", "animate", "give a sound file, or --idle SECONDS")
    if speech is not None:
        return listen(speech)
    left = round(idle * SPEECH_RATE)
    parts = (np.zeros(min(SPEECH_RATE, left - at), np.float32) for at in range(0, left, SPEECH_RATE))
    return parts, frames_for(max(left, SHORTEST))
