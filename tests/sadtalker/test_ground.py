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


def test_lines_of_the_ground_go_on_behind_the_person():
    plate = np.full((64, 64, 3), 120, np.uint8)
    plate[30:34] = 20
    person = np.zeros((64, 64), np.uint8)
    person[:, 24:] = 1
    hidden = plate.copy()
    hidden[person > 0] = 120
    seen = ground.continued(hidden, person, 20).astype(int)
    assert (seen[31:33, 24:28] < 70).all() and (seen[:28, 24:] > 100).all()
    assert np.array_equal(seen[:, :24], plate[:, :24]) and (seen[:, 50:] == 120).all()


def test_what_is_filled_in_has_the_grain_of_the_ground():
    rng = np.random.default_rng(1)
    image = np.clip(120 + rng.normal(0, 6, (64, 64, 3)), 0, 255).astype(np.uint8)
    person = np.zeros((64, 64), np.uint8)
    person[:, 30:] = 1
    image[person > 0] = (30, 200, 30)
    seen = ground.grained(np.full((64, 64, 3), 120, np.uint8), image, person).astype(float)
    inside = seen[4:-4, 32:56]
    assert 3 < inside.std() < 9 and np.abs(inside - 120).max() <= ground.GRAIN
    assert (seen[:, :30] == 120).all()
