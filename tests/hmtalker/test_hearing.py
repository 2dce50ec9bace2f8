"""The teacher of CMDM and the clock of a clip, on speech whose lips are known."""

import numpy as np
import pytest
import torch

from vocalface.hmtalker.hearing import MOST, SMOOTH, Teacher, at_time, drift, window


def speech(frames: int, seed: int = 0, channels: int = 12):
    """Features [T, D] that wander as speech does, and two units [T, 2] that are a function of them."""
    draw = np.random.default_rng(seed)
    noise = draw.normal(size=(frames + 4, channels))
    smooth = (noise[:-4] + 2 * noise[1:-3] + 3 * noise[2:-2] + 2 * noise[3:-1] + noise[4:]) / 4.4
    opening = np.maximum(smooth[:, 0] + 0.7 * smooth[:, 1], 0) + 0.2 * smooth[:, 2]
    units = np.stack([opening, np.tanh(smooth[:, 0] - smooth[:, 3])], 1)
    return smooth.astype(np.float32), units.astype(np.float32)


def correlation(a, b):
    return [np.corrcoef(x, y)[0, 1] for x, y in zip(np.asarray(a).T, np.asarray(b).T)]


def windows(features, rows):
    return window(torch.from_numpy(features), rows)


def test_windows_repeat_the_edges():
    features = np.arange(5.0)[:, None]
    np.testing.assert_array_equal(
        window(features, np.array([0, 4]))[..., 0], [[0, 0, 0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 4, 4, 4, 4]]
    )


def test_the_teacher_foretells_what_it_was_not_shown():
    features, units = speech(1200)
    teacher = Teacher(windows(features, np.arange(1000)), torch.from_numpy(units[:1000]))
    said = teacher(windows(features, np.arange(1010, 1200)).view(19, 10, 8, 12))
    assert said.shape == (19, 10, 2)
    assert min(correlation(said.reshape(-1, 2), units[1010:])) > 0.8


def test_far_from_all_it_knows_the_teacher_says_the_mean():
    features, units = speech(300)
    teacher = Teacher(windows(features, np.arange(300)), torch.from_numpy(units))
    torch.testing.assert_close(teacher(torch.full((1, 8, 12), 50.0))[0], torch.from_numpy(units.mean(0)))


def test_long_clips_are_thinned():
    teacher = Teacher(torch.randn(2 * MOST, 8, 2), torch.randn(2 * MOST, 1))
    assert len(teacher.known) == MOST


@pytest.mark.parametrize("depth", [0.0, 0.6])
def test_a_clock_that_runs_off_is_found(depth):
    features, units = speech(1500, seed=3)
    late = depth * np.sin(2 * np.pi * np.arange(1500) / 900)
    lips = at_time(units, late) + 0.3 * np.random.default_rng(1).normal(size=units.shape).astype(np.float32)
    found = drift(features, lips)
    inside = slice(SMOOTH, -SMOOTH)
    assert np.abs(found - (late - late.mean()))[inside].max() < 0.25
    heard = at_time(features, found)
    assert np.abs(heard - features).max() > 0.1 or depth == 0


def test_no_clock_without_lips_that_follow_or_in_a_short_clip():
    features, units = speech(1000)
    assert not drift(features, np.random.default_rng(5).normal(size=units.shape).astype(np.float32)).any()
    assert not drift(features, np.zeros_like(units)).any()
    assert not drift(features[:200], units[:200]).any()


def test_time_is_read_between_frames_and_stops_at_the_ends():
    ramp = np.arange(6, dtype=np.float32)[:, None]
    np.testing.assert_allclose(at_time(ramp, np.full(6, 0.25))[:, 0], [0, 0.75, 1.75, 2.75, 3.75, 4.75])
    np.testing.assert_allclose(at_time(ramp, np.full(6, -2.0))[:, 0], [2, 3, 4, 5, 5, 5])
