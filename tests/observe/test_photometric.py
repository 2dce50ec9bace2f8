"""Pose from pixels, on a drawn relief whose every pixel is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from test_track import poses, see

from vocalface.observe import photometric, pose
from vocalface.observe.indices import EYE_LEFT, EYE_RIGHT, FACE_OVAL, RIGID
from vocalface.types import Camera

SIZE, COUNT = 256, 36
CAMERA = Camera(512, 512, 128, 128, SIZE, SIZE)


def relief(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the drawn face, metres."""
    return 0.05 * np.sqrt(np.clip(1 - (x / 0.12) ** 2 - (y / 0.16) ** 2, 0, 1))


def face() -> np.ndarray:
    """478 landmarks on the relief, eyes and brows where they belong, [478, 3]."""
    flat = np.random.default_rng(0).uniform(-1, 1, (478, 2)) * [0.062, 0.09]
    turn = 2 * np.pi * np.arange(len(FACE_OVAL)) / len(FACE_OVAL)
    flat[FACE_OVAL] = np.stack([0.07 * np.sin(turn), 0.1 * np.cos(turn)], axis=1)
    for side, eye, brow in (
        (-1, EYE_LEFT, photometric.BROWS[:5]),
        (1, EYE_RIGHT, photometric.BROWS[5:10]),
    ):
        flat[eye] = np.stack([side * 0.03 + np.linspace(-0.012, 0.012, 16), np.full(16, 0.02)], axis=1)
        flat[brow] = np.stack([side * 0.03 + np.linspace(-0.015, 0.015, 5), np.full(5, 0.04)], axis=1)
    flat[photometric.BROWS[10:]] = flat[photometric.BROWS[:10]]
    flat[468:] = np.repeat([[-0.03, 0.02], [0.03, 0.02]], 5, axis=0)
    flat[[129, 358]], flat[6] = [[-0.02, -0.03], [0.02, -0.03]], [0, 0.015]
    return np.column_stack([flat, relief(*flat.T)])


PAINT = gaussian_filter(np.random.default_rng(3).normal(size=(300, 300)), 4)
PAINT /= np.abs(PAINT).max()


def drawn(w2c: np.ndarray, texture: bool = True) -> np.ndarray:
    """The relief seen from [4, 4], uint8 [S, S, 3]."""
    v, u = np.mgrid[:SIZE, :SIZE] + 0.5
    r, t = w2c[:3, :3], w2c[:3, 3]
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones_like(u)], axis=-1) @ r
    origin, z = -r.T @ t, np.zeros_like(u)
    for _ in range(12):
        p = origin + rays * ((z - origin[2]) / rays[..., 2])[..., None]
        z = relief(p[..., 0], p[..., 1])
    place = np.clip((p[..., :2] + 0.12) / 0.24 * 299, 0, 298.99)
    low, share = place.astype(int), place % 1
    corners = [
        PAINT[low[..., 1] + b, low[..., 0] + a]
        * np.abs(1 - a - share[..., 0])
        * np.abs(1 - b - share[..., 1])
        for a in (0, 1)
        for b in (0, 1)
    ]  # fmt: skip
    grey = 128 + 100 * sum(corners) * texture
    return np.repeat(np.rint(grey)[..., None], 3, axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def scene():
    truth = poses(COUNT)
    points = face()
    landmarks = see(points, truth, CAMERA)
    landmarks[..., :2] += np.random.default_rng(5).normal(0, 0.4, (COUNT, 478, 2)).astype(np.float32)
    shape = points[RIGID]
    camera = (CAMERA.fx, CAMERA.cx, CAMERA.cy)
    seen = landmarks[:, RIGID, :2].astype(np.float64)
    found = pose.solve_poses(seen, shape, pose.initial_poses(seen, shape, camera), camera, 0.75, 12)
    tracking = pose.Tracking(pose.to_matrices(found).astype(np.float32), CAMERA, shape, 0.0, 0.0)
    return truth, landmarks, tracking


def off(found: np.ndarray, truth: np.ndarray) -> float:
    """rms px by which points of the face are off once what is constant is taken away."""
    points = face()[::7]
    camera = (CAMERA.fx, CAMERA.cx, CAMERA.cy)
    error = pose.project(points, found[:, :3], camera)[0] - pose.project(points, truth[:, :3], camera)[0]
    return float(np.sqrt(((error - error.mean(0)) ** 2).sum(-1).mean()))


def refine(scene, images, valid=None):
    _, landmarks, tracking = scene
    valid = np.ones(COUNT, bool) if valid is None else valid
    refiner = photometric.prepare(lambda a, b: images[a:b], landmarks, valid, tracking)
    return refiner, np.stack([refiner(i, image, landmarks[i]) for i, image in enumerate(images)])


def test_pixels_steady_what_landmarks_jitter(scene):
    truth, _, tracking = scene
    valid = np.ones(COUNT, bool)
    valid[7] = False
    refiner, found = refine(scene, [drawn(p) for p in truth], valid)
    assert refiner.info["accepted"]
    assert off(found[valid], truth[valid]) < 0.75 * off(tracking.poses[valid].astype(float), truth[valid])
    assert (found[7] == tracking.poses[7, :3]).all(), "a frame without a face keeps its pose"


def test_a_face_without_texture_keeps_its_poses(scene):
    _, _, tracking = scene
    rng = np.random.default_rng(0)
    blank = [np.clip(drawn(p, texture=False) + rng.integers(-2, 3, (SIZE, SIZE, 1)), 0, 255) for p in scene[0]]
    refiner, found = refine(scene, [b.astype(np.uint8) for b in blank])
    if not refiner.info["accepted"]:
        assert (found == tracking.poses[:, :3].astype(np.float64)).all()
    assert off(found, scene[0]) < 1.2 * off(tracking.poses.astype(float), scene[0])


def test_alignment_finds_the_pose_from_pixels_alone(scene):
    truth, landmarks, tracking = scene
    points = photometric.surface(tracking, landmarks)[0]
    camera = (CAMERA.fx, CAMERA.cx, CAMERA.cy)
    look = photometric.Look(drawn(truth[4]), landmarks[4])
    mean = look.at(photometric.project(points, truth[4, :3], camera)[0])[:, 0] * 0.8 + 0.1  # another exposure
    start = pose.increment(truth[4:5, :3], np.array([[0.004, -0.006, 0.003, 0.001, 0.001, 0.002]]))[0]
    found = photometric.align(look, mean, points, start, np.zeros((6, 6)), camera, steps=8)
    assert np.abs(found - truth[4, :3]).max() < 2e-3 < np.abs(start - truth[4, :3]).max()


def test_runs_avoid_jumps():
    runs = photometric.blocks(200, [3, 150])
    assert len(runs) >= 5 and not any(a < j < b for a, b in runs for j in (3, 150))
    assert photometric.blocks(5, []) == [(0, 5)]
