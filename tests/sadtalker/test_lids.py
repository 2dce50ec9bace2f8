"""Lids close with skin over a drawn eye, and leave everything else alone."""

from dataclasses import replace

import cv2
import numpy as np
from test_animate import portrait

from vocalface.observe.indices import BROW_LEFT, BROW_RIGHT, EYE_LEFT, EYE_RIGHT
from vocalface.sadtalker.drive import Puppet
from vocalface.sadtalker.motion import Pose

IRIS = np.array([25, 30, 60])


def with_eyes():
    """The drawn portrait with white eyes and dark irises."""
    given = portrait()
    image = given.image.copy()
    for rim in (EYE_LEFT, EYE_RIGHT):
        points = given.landmarks[rim, :2]
        cv2.fillPoly(image, [cv2.convexHull(points.round().astype(np.int32))], (235, 235, 235))
        x, y = points.mean(0).round().astype(int)
        cv2.circle(image, (int(x), int(y)), 3, IRIS.tolist(), -1)
    return replace(given, image=image)


def test_closed_lids_hide_the_iris_under_skin_and_change_nothing_else():
    given = with_eyes()
    puppet = Puppet(given)
    opened, closed = (puppet.draw(Pose(blink=b)).astype(int) for b in (0.0, 1.0))
    far = np.ones(opened.shape[:2], bool)
    for rim in (EYE_LEFT, EYE_RIGHT):
        points = given.landmarks[rim, :2]
        x, y = points.mean(0).round().astype(int)
        assert np.abs(opened[y, x] - IRIS).max() < 40
        skin = portrait().image[y + 12, x].astype(int)
        assert np.abs(closed[y - 1, x] - skin).max() < 45
        (x0, y0), (x1, y1) = points.min(0).astype(int) - 16, points.max(0).astype(int) + 16
        far[y0:y1, x0:x1] = False
    assert np.abs(closed - opened)[far].max() <= 12  # the brows give a little


def test_a_blink_closes_from_above_step_by_step():
    given = with_eyes()
    puppet = Puppet(given)
    x = round(float(given.landmarks[EYE_LEFT, 0].mean()))
    span = slice(*np.round(given.landmarks[EYE_LEFT, 1][[0, 0]] + (-12, 12)).astype(int))
    white = [(puppet.draw(Pose(blink=b))[span, x - 4 : x + 5].min(-1) > 205).sum() for b in (0.0, 0.4, 0.8, 1.0)]
    assert white[0] > white[1] > white[2] >= white[3] and white[3] == 0


def test_lids_take_the_colours_about_them_and_leave_no_outline_of_the_lashes():
    given = with_eyes()
    image = given.image.copy()
    for rim in (EYE_LEFT, EYE_RIGHT):
        hull = cv2.convexHull(given.landmarks[rim, :2].round().astype(np.int32))
        cv2.polylines(image, [hull], True, (30, 22, 20), 2)
    skin = portrait().image.astype(int)
    closed = Puppet(replace(given, image=image)).draw(Pose(blink=1.0)).astype(int)
    for rim in (EYE_LEFT, EYE_RIGHT):
        points = given.landmarks[rim, :2]
        (x0, top), (x1, bottom) = points.min(0).round().astype(int), points.max(0).round().astype(int)
        columns = slice(x0 + 4, x1 - 4)
        over = slice(top - 5, (top + bottom) // 2 - 1)  # the lid, and where its lashes were while the eye was open
        assert np.abs(closed[over, columns] - skin[over, columns]).max() < 40
        rows = closed[over.stop : bottom + 4, columns].sum(-1)
        assert (rows.min(0) < 0.75 * skin[over.stop, columns].sum(-1)).all()  # below it a line of lashes, all along


def test_a_brow_close_above_an_eye_is_no_lash():
    given = with_eyes()
    points, image = given.landmarks.copy(), given.image.copy()
    over = np.zeros(image.shape[:2], np.uint8)
    for brow, rim in ((BROW_LEFT, EYE_LEFT), (BROW_RIGHT, EYE_RIGHT)):
        points[brow, 1] += points[rim, 1].min() - 3 - points[brow, 1].max()
        cv2.fillPoly(over, [cv2.convexHull(points[brow, :2].round().astype(np.int32))], 1)
    image[over > 0] = (50, 35, 25)
    healed = Puppet(replace(given, image=image, landmarks=points)).lids.texture[..., :3]
    within = cv2.erode(over, np.ones((3, 3))) > 0
    assert within.sum() > 60 and np.abs(healed.astype(int) - image)[within].max() <= 30  # else 107


def test_lashes_beside_an_eye_go_with_it_and_a_lock_of_hair_stays():
    given = with_eyes()
    rim = given.landmarks[EYE_LEFT, :2]
    corner, inner = rim[rim[:, 0].argmin()], rim[rim[:, 0].argmax()]
    width = inner[0] - corner[0]
    at = (corner - np.array([0.25 * width, 0.02 * width])).round().astype(int).tolist()
    for tall, kept in ((1, False), (200, True)):  # a stroke out of the corner; a strand past it
        image = given.image.copy()
        cv2.line(image, corner.round().astype(int).tolist(), at, (30, 22, 20), 2)
        cv2.line(image, (at[0], at[1] - tall), (at[0], at[1] + tall), (30, 22, 20), 2)
        closed = Puppet(replace(given, image=image)).lids.texture[at[1], at[0], :3].astype(int)
        away = np.abs(closed - portrait().image[at[1], at[0]].astype(int)).max()
        assert away > 80 if kept else away < 40, (tall, away)
