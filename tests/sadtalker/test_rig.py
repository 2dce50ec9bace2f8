"""The relief: it turns without folding, and its mouth opens to a point at either end."""

import numpy as np
from test_animate import SIZE, portrait

from vocalface.sadtalker import rig
from vocalface.sadtalker.direction import LARGEST_TURN
from vocalface.sadtalker.motion import Pose


def areas(px: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (px[faces[:, k]] for k in range(3))
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])


def turned_away(landmarks: np.ndarray, degrees: float) -> np.ndarray:
    """Landmarks of a head that looks past the camera: one cheek falls steeply."""
    middle = landmarks.mean(0)
    turn = rig.rotation(np.radians(degrees), 0, 0)
    return ((landmarks - middle) @ turn.T + middle).astype(np.float32)


def test_no_triangle_turns_its_back_within_the_angles_that_are_allowed():
    for away in (0, 30):
        built = rig.build(turned_away(portrait().landmarks, away), SIZE)
        rest = areas(built.project(built.deform(Pose())), built.faces)
        large = np.abs(rest) > 4  # px2; slivers about the lips have no side
        for name, sign in (("yaw", 1), ("yaw", -1), ("pitch", 1), ("pitch", -1)):
            angles = [0.0, 0.0, 0.0]
            angles[("yaw", "pitch").index(name)] = sign * np.radians(LARGEST_TURN[f"--{name}"])
            drawn = areas(built.project(built.deform(Pose(angles=tuple(angles)))), built.faces)
            assert (np.sign(drawn) == np.sign(rest))[large].mean() > 0.985, (away, name, sign)


def test_depths_become_gentle_and_gentle_ones_stay():
    x, y = np.meshgrid(np.arange(12.0), np.arange(12.0))
    slope, step = 0.5 * x, np.where(x > 5, 20.0, 0.0)
    for depth in (slope, step):
        points = np.stack([x, y, depth], -1).reshape(-1, 3)
        z = rig.gentle(points, 1.0)
        away = np.linalg.norm(points[:, None, :2] - points[None, :, :2], axis=-1)
        assert (np.abs(z[:, None] - z) <= away + 1e-9).all()
    assert np.allclose(rig.gentle(np.stack([x, y, slope], -1).reshape(-1, 3), 1.0), slope.ravel())


def test_an_open_mouth_narrows_towards_its_corners():
    built = rig.build(portrait().landmarks, SIZE)
    px = built.project(built.deform(Pose(jaw=0.012, aperture=0.014)))
    gap = px[rig.LIP_LOWER, 1] - px[rig.LIP_UPPER, 1]
    x = px[rig.LIP_UPPER, 0]
    u = np.abs(2 * (x - x[0]) / (x[-1] - x[0]) - 1)
    assert gap[5] > 8 and gap[0] < 0.5 and gap[-1] < 0.5
    assert (gap <= gap[5] * np.sqrt(1 - u**2) + 0.5).all()  # within an ellipse


def test_beside_teeth_of_the_portrait_nothing_sticks_out_of_pursed_lips():
    closed, landmarks = rig.build(portrait().landmarks, SIZE), portrait().landmarks.copy()
    landmarks[: rig.LANDMARKS, :2] = closed.project(closed.deform(Pose(aperture=0.006)))[: rig.LANDMARKS]
    built = rig.build(landmarks, SIZE)
    assert len(built.seam)
    px = built.project(built.deform(Pose(round=1.0, aperture=0.006)))
    lips = (built.uv[:, None] == built.uv[[*rig.LIP_UPPER, *rig.LIP_LOWER]]).all(-1).any(1)
    behind = np.flatnonzero(lips)[np.flatnonzero(lips) >= rig.LANDMARKS]
    left, right = px[rig.LIP_UPPER[0], 0], px[rig.LIP_UPPER[-1], 0]
    assert px[behind, 0].min() > left - 1 and px[behind, 0].max() < right + 1


def test_hair_before_a_ground_of_its_own_turns_wholly_and_only_cut_off_sides_stand_still():
    landmarks, turn = portrait().landmarks, Pose(angles=(0.0, 0.0, 0.2))
    below = np.array([False, False, False, True])
    dragged, apart = (rig.build(landmarks, SIZE, cut) for cut in (None, below))
    moved = {}
    for name, built in (("dragged", dragged), ("apart", apart)):
        rest, turned = (built.project(built.deform(pose)) for pose in (Pose(), turn))
        moved[name] = np.linalg.norm(turned - rest, axis=1)
    half = np.ptp(landmarks[[234, 454], 0]) / 2
    away = np.abs(apart.uv[:, 0] - landmarks[[234, 454], 0].mean()) / half
    beside = (away > 1.8) & (away < 2.2) & (apart.uv[:, 1] < landmarks[2, 1]) & (apart.uv[:, 1] > landmarks[10, 1])
    assert beside.any()
    assert apart.follow[beside].min() > 0.99 and dragged.follow[beside].max() < 1
    top, bottom = apart.uv[:, 1] < 1, apart.uv[:, 1] > SIZE - 1
    assert moved["dragged"][top | bottom].max() < 0.1 and moved["apart"][bottom].max() < 0.1
    assert moved["apart"][top].max() > 5
