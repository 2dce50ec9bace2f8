"""Lips that part show their own colour, not the line in which they met."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from test_animate import portrait

from vocalface.observe.indices import LIPS_OUTER
from vocalface.sadtalker import rig
from vocalface.sadtalker.drive import Puppet
from vocalface.sadtalker.motion import Pose

LIP, LINE = (200, 110, 105), (40, 12, 10)


def with_lips(line=LINE):
    """The drawn portrait with lips of one colour, which meet in a line."""
    given = portrait()
    image = given.image.copy()
    places = given.landmarks[:, :2]
    cv2.fillPoly(image, [np.round((places[LIPS_OUTER] - 0.5) * 16).astype(np.int32)], LIP, cv2.LINE_AA, shift=4)
    between = (places[rig.LIP_UPPER] + places[rig.LIP_LOWER]) / 2
    cv2.polylines(image, [np.round((between - 0.5) * 16).astype(np.int32)], False, line, 2, cv2.LINE_AA, shift=4)
    return replace(given, image=image)


@pytest.fixture(scope="module")
def puppet() -> Puppet:
    return Puppet(with_lips())


@pytest.fixture(scope="module")
def lined() -> Puppet:
    """One that keeps the line."""
    puppet = Puppet(with_lips())
    puppet.lips.change[:] = 0
    return puppet


def below(puppet: Puppet, pose: Pose) -> np.ndarray:
    """Columns of pixels from the lower lip's inner edge on, into it [5, n, 3]."""
    px = puppet.rig.project(puppet.rig.deform(pose))[rig.LIP_LOWER[3:-3]]
    x = np.arange(int(px[0, 0]) + 1, int(px[-1, 0]))
    y = np.round(np.interp(x + 0.5, px[:, 0], px[:, 1])).astype(int)
    return puppet.draw(pose)[y + np.arange(5)[:, None], x].astype(int)


def test_lips_at_rest_and_lips_shut_are_the_portraits_own(puppet, lined):
    puppet.draw(Pose(jaw=0.01, aperture=0.012))  # of which nothing stays
    for pose in (Pose(), Pose(aperture=0.0), Pose(angles=(0.3, 0.1, 0.0)), Pose(brow=0.003, blink=0.5)):
        assert np.array_equal(puppet.draw(pose), lined.draw(pose))
    image, places = puppet.portrait.image, puppet.portrait.landmarks[LIPS_OUTER, :2]
    (x0, y0), (x1, y1) = places.min(0).astype(int), places.max(0).astype(int) + 1
    off = np.abs(puppet.draw(Pose())[y0:y1, x0:x1].astype(int) - image[y0:y1, x0:x1])
    assert np.median(off) <= 1 and off.mean() < 2  # it is drawn finer than the line is sharp


def test_no_line_is_left_along_the_edge_of_a_lip_that_is_down(puppet, lined):
    for pose in (Pose(jaw=0.004, aperture=0.006), Pose(jaw=0.010, aperture=0.013)):
        least = 0.7 * np.array(LIP).sum()
        assert below(puppet, pose)[1:].sum(-1).min() > least > below(lined, pose)[1:].sum(-1).min()


def test_the_line_goes_step_by_step_and_stays_in_corners_that_touch(puppet):
    px = [puppet.rig.project(puppet.rig.deform(Pose(aperture=a))) for a in np.linspace(0.0, 0.006, 13)]
    parted = [puppet.lips.parted(place) for place in px]
    gone = [0 if image is None else (image.astype(int) - puppet.lips.seen).sum() for image in parted]
    assert gone[0] == 0 < gone[-1] and (np.diff(gone) >= 0).all() and np.diff(gone).max() < 0.5 * gone[-1]
    corner = slice(0, round(puppet.rig.uv[78, 0]) - puppet.lips.spot[1].start)
    assert np.array_equal(parted[-1][:, corner], puppet.lips.seen[:, corner])


def test_lips_without_a_line_keep_every_pixel():
    puppet = Puppet(with_lips(LIP))
    assert np.abs(puppet.lips.change).max() <= 12
