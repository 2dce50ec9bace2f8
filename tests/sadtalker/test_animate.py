"""The built-in renderer on a drawn face with landmarks of its own: no model files."""

from dataclasses import replace
from functools import cache

import av
import numpy as np
import pytest

from vocalface import media
from vocalface.errors import FaceError
from vocalface.observe.landmarks import Face
from vocalface.presenter import landmarks as places
from vocalface.presenter.scene import rest_pose
from vocalface.sadtalker.drive import Puppet, animate, frames
from vocalface.sadtalker.motion import Pose
from vocalface.sadtalker.portrait import Portrait, cut
from vocalface.types import Camera, CropBox, Sound

SIZE = 256


@cache
def portrait() -> Portrait:
    """The presenter's landmarks over a smooth picture of skin."""
    from vocalface.presenter.face import topology

    camera = Camera(SIZE * 2.5, SIZE * 2.5, SIZE / 2, SIZE / 2, SIZE, SIZE)
    points = places.project(places.on_surface(topology().rest, np.zeros(2)), rest_pose(), camera)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    image = np.stack([190 + 25 * np.sin(5 * x), 140 + 20 * np.cos(4 * y), 120 + 15 * np.sin(3 * x + 2 * y)], -1)
    return Portrait(image.astype(np.uint8), points.astype(np.float32), CropBox(0, 0, SIZE), 1)


def speech(seconds=0.6) -> Sound:
    t = np.arange(int(seconds * 16_000)) / 16_000
    return Sound((0.3 * np.sin(2 * np.pi * 160 * t) * (1 + np.sin(25 * t))).astype(np.float32), 16_000)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b) ** 2).mean(), 1e-9)))


def test_without_motion_the_portrait_stays_itself():
    assert psnr(Puppet(portrait()).draw(Pose()), portrait().image) > 35


def test_an_open_mouth_shows_its_interior_and_leaves_the_border_alone():
    puppet = Puppet(portrait())
    still, moved = puppet.draw(Pose()).astype(int), puppet.draw(replace(Pose(), jaw=0.01, aperture=0.012)).astype(int)
    change = np.abs(moved - still).sum(-1)
    lips = portrait().landmarks[[13, 14], :2].mean(0).astype(int)
    assert change[lips[1] : lips[1] + 6, lips[0] - 2 : lips[0] + 2].max() > 60
    assert max(change[:3].max(), change[:, :3].max(), change[:, -3:].max()) <= 6


def test_no_ground_is_seen_between_lips_that_are_shut():
    puppet = Puppet(portrait())
    x, y = (puppet.rig.uv[[61, 291, 0, 17], k].astype(int) for k in (0, 1))
    lips = slice(y.min() - 12, y.max() + 12), slice(x.min() - 30, x.max() + 30)
    angles = np.random.default_rng(2).uniform(-0.5, 0.5, (140, 3)) * (1, 0.5, 0.2)
    for i in (35, 62, 70, 82, 137, 139):  # in which a pixel's centre lies between the lips
        pose, seen = Pose(angles=tuple(angles[i]), aperture=0.0, width=0.004 * np.sin(i)), []
        for under in (0, 255):
            puppet.under = np.full((SIZE, SIZE, 3), under, np.uint8)
            seen.append(puppet.draw(pose)[lips])
        assert np.array_equal(*seen)


def test_frames_cover_the_speech_and_a_seed_decides():
    sound = speech()
    one, two = list(frames(portrait(), sound)), list(frames(portrait(), sound))
    assert len(one) == 15 and all(np.array_equal(a, b) for a, b in zip(one, two))
    pieces = [sound.samples[k : k + 3_000] for k in range(0, len(sound.samples), 3_000)]
    streamed = list(frames(portrait(), pieces))
    assert len(streamed) == 15 and all(psnr(a, b) > 45 for a, b in zip(one, streamed))


def test_the_video_has_sound_and_says_that_it_is_synthetic(tmp_path):
    picture = media.write_image(tmp_path / "p.png", portrait().image)
    made = animate(
        picture, speech(), tmp_path / "o.mp4",
        search=lambda image: [Face(portrait().landmarks * (len(image) / SIZE), np.zeros(52, np.float32))],
    )  # fmt: skip
    clip = media.open_clip(tmp_path / "o.mp4")
    assert made.frames == len(clip.at(25)) == 15 and clip.has_sound
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert container.metadata["vocalface_synthetic"] == "true"


def test_no_face_is_said_in_three_lines():
    with pytest.raises(FaceError) as error:
        cut(portrait().image, lambda image: [], SIZE, "p.png")
    assert len(str(error.value).splitlines()) == 3
