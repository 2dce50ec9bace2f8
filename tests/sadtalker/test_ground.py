"""The ground behind a head that turns: it stands still, and nothing tears."""

from copy import copy
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
from test_animate import SIZE, portrait, speech

from vocalface.observe.indices import FACE_OVAL
from vocalface.sadtalker import ground
from vocalface.sadtalker.drive import Puppet
from vocalface.sadtalker.motion import Pose, Style, poses

TURN = Pose(angles=(0.18, 0.05, 0.05))


def striped() -> tuple:
    """The drawn face before vertical stripes, and its mask."""
    given = portrait()
    mask = np.zeros((SIZE, SIZE), np.float32)
    cv2.fillPoly(mask, [given.landmarks[FACE_OVAL, :2].round().astype(np.int32)], 1)
    mask = cv2.dilate(mask, np.ones((9, 9)))
    image = given.image.copy()
    stripes = np.where(np.arange(SIZE)[None, :, None] // 8 % 2, 70, 110) * np.ones((SIZE, 1, 3))
    image[mask == 0] = stripes[mask == 0]
    return replace(given, image=image), mask


@cache
def before_stripes() -> tuple:
    """The same, and its puppet before a ground of its own. Only a copy of it may be changed."""
    given, mask = striped()
    puppet = Puppet(given)
    puppet.ground = ground.build(puppet.rig, given.image, mask)
    return given, mask, puppet


def test_the_ground_stands_still_while_the_head_turns():
    given, mask, puppet = before_stripes()
    turned, rest = puppet.draw(TURN).astype(int), puppet.draw(Pose()).astype(int)
    near = cv2.dilate(mask, np.ones((31, 31))) > 0
    assert np.abs(turned - given.image)[~near].max() <= 3
    assert np.abs(turned - rest)[mask > 0].max() > 20
    puppet = copy(puppet)
    puppet.ground = None
    assert np.abs(puppet.draw(TURN).astype(int) - given.image)[~near].max() > 20  # without it the stripes bend


def test_far_from_a_head_that_speaks_and_turns_nothing_of_the_ground_changes():
    given, mask, puppet = before_stripes()
    puppet = copy(puppet)
    puppet.rig = puppet.rig.cut_off(puppet.ground.cut)
    spoken = list(poses(iter([speech(0.4).samples]), Style(seed=3)))[::2]
    spoken += [
        replace(TURN, angles=(yaw, pitch, roll)) for yaw, pitch, roll in np.random.default_rng(5).normal(0, 0.1, (4, 3))
    ]
    shown = np.stack([puppet.draw(pose) for pose in spoken])
    far = cv2.dilate(mask, np.ones((81, 81))) == 0
    assert far.mean() > 0.1 and (shown == shown[0])[:, far].all()
    assert np.array_equal(shown[0][far], given.image[far])


def test_what_the_head_uncovers_is_ground_not_a_hole():
    _, mask, puppet = before_stripes()
    plate = puppet.ground.plate
    assert plate[mask > 0].min() > 60 and plate[mask > 0].max() < 130  # stripes' colours, nothing of the face
    assert puppet.draw(TURN).min() > 50


def test_at_rest_the_portrait_is_itself_and_a_mask_beside_the_face_is_not_believed():
    given, _, puppet = before_stripes()
    assert np.abs(puppet.draw(Pose()).astype(int) - given.image).mean() < 1.0
    assert ground.build(puppet.rig, given.image, np.zeros((SIZE, SIZE), np.float32)) is None
