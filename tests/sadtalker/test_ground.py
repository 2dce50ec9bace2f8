"""The ground behind a head that turns: it stands still, and nothing tears."""

from dataclasses import replace

import cv2
import numpy as np
from test_animate import SIZE, portrait

from vocalface.observe.indices import FACE_OVAL
from vocalface.sadtalker import ground
from vocalface.sadtalker.drive import Puppet
from vocalface.sadtalker.motion import Pose

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


def test_the_ground_stands_still_while_the_head_turns():
    given, mask = striped()
    puppet = Puppet(given)
    puppet.ground = ground.build(puppet.rig, given.image, mask)
    turned, rest = puppet.draw(TURN).astype(int), puppet.draw(Pose()).astype(int)
    near = cv2.dilate(mask, np.ones((31, 31))) > 0
    assert np.abs(turned - given.image)[~near].max() <= 3
    assert np.abs(turned - rest)[mask > 0].max() > 20
    puppet.ground = None
    assert np.abs(puppet.draw(TURN).astype(int) - given.image)[~near].max() > 20  # without it the stripes bend


def test_what_the_head_uncovers_is_ground_not_a_hole():
    given, mask = striped()
    puppet = Puppet(given)
    puppet.ground = ground.build(puppet.rig, given.image, mask)
    plate = puppet.ground.plate
    assert plate[mask > 0].min() > 60 and plate[mask > 0].max() < 130  # stripes' colours, nothing of the face
    assert puppet.draw(TURN).min() > 50


def test_at_rest_the_portrait_is_itself_and_a_mask_beside_the_face_is_not_believed():
    given, mask = striped()
    puppet = Puppet(given)
    puppet.ground = ground.build(puppet.rig, given.image, mask)
    assert np.abs(puppet.draw(Pose()).astype(int) - given.image).mean() < 1.0
    assert ground.build(puppet.rig, given.image, np.zeros((SIZE, SIZE), np.float32)) is None
