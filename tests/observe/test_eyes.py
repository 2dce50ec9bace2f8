"""Each eye's lids and the gaze, from tracks whose truth is known."""

import numpy as np
import pytest
from test_track import CAMERA, face_points, poses, see

from vocalface.observe import action_units
from vocalface.observe.indices import BLENDSHAPES
from vocalface.types import AU_NAMES, FaceTrack

FRAMES = 120


def track(left: np.ndarray, right: np.ndarray, **shapes: np.ndarray) -> FaceTrack:
    """Lids of the image's left and right eye opened to `left`, `right` [T] mm under a moving head."""
    points = np.repeat(face_points()[None], FRAMES, axis=0)
    for pairs, gap in zip(action_units._LIDS, (left, right)):
        for upper, lower in pairs:
            points[:, upper, :2] = points[:, lower, :2]
            points[:, upper, 1] += gap / 1000
            points[:, upper, 2] = points[:, lower, 2]
    w2c = poses(FRAMES)
    blend = np.zeros((FRAMES, 52), np.float32)
    for name, value in shapes.items():
        blend[:, BLENDSHAPES.index(name)] = value
    units = np.zeros((FRAMES, 17), np.float32)
    return FaceTrack(np.ones(FRAMES, bool), see(points, w2c, CAMERA), blend, units, w2c.astype(np.float32))


def test_each_lid_follows_its_own_eye():
    left, right = np.full(FRAMES, 10.0), np.full(FRAMES, 8.0)
    left[30:36], right[80:86] = 1.0, 1.5
    found = action_units.eyes(track(left, right), CAMERA)
    assert found.shape == (FRAMES, len(action_units.EYES)) and found.dtype == np.float32
    for k, closed in ((0, slice(31, 35)), (1, slice(81, 85))):
        open_ = np.ones(FRAMES, bool)
        open_[closed.start - 1 : closed.stop + 1] = False
        assert found[closed, k].max() < 0.3
        assert np.abs(found[open_, k] - 4).max() < 0.3  # the other eye's wink and the turning head do not tell


def test_open_eyes_stay_open_where_nobody_blinks():
    gap = 9 + 0.3 * np.sin(np.arange(FRAMES))
    assert action_units.eyes(track(gap, gap), CAMERA)[:, :2].min() > 3.5


def test_gaze_has_its_sign_and_is_held_through_blinks():
    look = np.where(np.arange(FRAMES) < 60, 0.0, 0.5)
    gap = np.full(FRAMES, 9.0)
    gap[20:25] = 0.5
    down = np.where(gap < 1, 0.9, 0.0)  # lids that close look like eyes cast down
    seen = track(gap, gap, eyeLookInRight=look, eyeLookOutLeft=look, eyeLookDownLeft=down, eyeLookDownRight=down)
    found = action_units.eyes(seen, CAMERA)
    assert found[60:, 2].mean() - found[:60, 2].mean() == pytest.approx(0.5, abs=1e-5)  # to the image's right
    assert np.abs(found[:, 3]).max() < 1e-6


def test_tracks_without_blendshapes_or_eyes_have_no_gaze():
    flat = np.zeros(FRAMES)
    found = action_units.eyes(track(flat, flat), CAMERA)
    assert np.isfinite(found).all() and not found[:, 2:].any()


def test_a_frown_is_told_from_the_jaw():
    """AU15 comes from a fit of a whole face: the procedural one's own landmarks have a known truth."""
    from vocalface import faces

    model = faces.load("procedural")
    units = np.zeros((FRAMES, 17))
    units[:, AU_NAMES.index("AU15")] = np.clip(np.sin(np.arange(FRAMES) / 7), 0, None)
    units[:, AU_NAMES.index("AU26")] = np.clip(np.sin(np.arange(FRAMES) / 4 + 1), 0, None)
    points = np.zeros((FRAMES, 478, 3), np.float32)
    points[:, :468] = model.landmarks(model.neutral) + np.tensordot(units, model.landmarks(model.expression), axes=1)
    w2c = poses(FRAMES)
    found = action_units.from_landmarks(
        see(points, w2c, CAMERA), np.zeros((FRAMES, 52), np.float32), w2c, CAMERA, np.ones(FRAMES, bool)
    )
    frown = found[:, AU_NAMES.index("AU15")]
    assert np.corrcoef(frown, units[:, AU_NAMES.index("AU15")])[0, 1] > 0.9 and 2.5 < frown.max() <= 5
    assert abs(np.corrcoef(frown, units[:, AU_NAMES.index("AU26")])[0, 1]) < 0.35
