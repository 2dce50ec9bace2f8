import math

import pytest

from vocalface.training import schedule


def test_learning_rate_of_means():  # HM-Talker: 1.6e-4 -> 1.6e-6 over 45,000 steps
    at = lambda step: schedule.log_linear(step, 1.6e-4, 1.6e-6, 45_000)  # noqa: E731
    assert at(0) == pytest.approx(1.6e-4)
    assert at(22_500) == pytest.approx(1.6e-5)
    assert at(45_000) == at(50_000) == pytest.approx(1.6e-6)


@pytest.mark.parametrize("step, factor", [(0, 1), (20_000, 0.7071), (39_999, 0.5), (40_000, 0.1585), (50_000, 0.1)])
def test_motion_factor(step, factor):
    assert schedule.motion_factor(step) == pytest.approx(factor, abs=5e-5)


def test_motion_factor_of_the_mouth():
    assert schedule.motion_factor(38_999, 39_000, 49_000) == pytest.approx(0.5, abs=1e-4)
    assert schedule.motion_factor(49_000, 39_000, 49_000) == pytest.approx(0.1)


def test_pruning_opacity():
    assert schedule.linear(24_500, 0.05, 0.30, 49_000) == pytest.approx(0.175)
    assert schedule.linear(60_000, 0.05, 0.30, 49_000) == pytest.approx(0.30)


def test_sh_degree():
    assert [schedule.sh_degree(s) for s in (0, 999, 1000, 2000, 9000)] == [0, 0, 1, 2, 2]


def test_cosine():
    at = lambda step: schedule.cosine(step, 1.0, 0.1, 110, warmup=10)  # noqa: E731
    assert at(0) == pytest.approx(0.1) and at(9) == at(10) == pytest.approx(1.0)
    assert at(60) == pytest.approx(0.55) and at(110) == at(500) == pytest.approx(0.1)
    assert math.isfinite(schedule.cosine(0, 1, 0, 0))
