"""Where a portrait looks and how it feels, in what each face model can do."""

import numpy as np
import pytest
from test_animate import SIZE, portrait

from vocalface.errors import ConfigError
from vocalface.observe.indices import EYE_LEFT, EYE_RIGHT, IRIS_LEFT, IRIS_RIGHT
from vocalface.sadtalker.coefficients import read_expression
from vocalface.sadtalker.direction import Direction
from vocalface.sadtalker.emotion import MOODS, parse
from vocalface.sadtalker.gaze import check, look
from vocalface.sadtalker.motion import Pose, style_of


def eyes(points: np.ndarray, size: int) -> np.ndarray:
    """Bright eyes with dark irises on grey."""
    y, x = np.mgrid[:size, :size] + 0.5
    image = np.full((size, size, 3), 128, np.uint8)
    for rim, iris in ((EYE_LEFT, IRIS_LEFT), (EYE_RIGHT, IRIS_RIGHT)):
        middle, half = points[rim, :2].mean(0), np.ptp(points[rim, :2], axis=0) / 2
        opened = ((x - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2 < 1.2
        image[opened] = 230
        radius = np.linalg.norm(points[iris[1:], :2] - points[iris[0], :2], axis=1).mean()
        image[opened & (np.hypot(x - points[iris[0], 0], y - points[iris[0], 1]) < radius)] = 20
    return image


def dark(image: np.ndarray, points: np.ndarray, rim: list[int]) -> np.ndarray:
    x0, y0 = np.floor(points[rim, :2].min(0)).astype(int)
    x1, y1 = np.ceil(points[rim, :2].max(0)).astype(int)
    weight = np.clip(120.0 - image[y0:y1, x0:x1, 0], 0, None)
    y, x = np.mgrid[y0:y1, x0:x1]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def test_both_eyes_look_where_they_are_told_and_nothing_else_changes():
    points = portrait().landmarks * 3
    for rim, iris in ((EYE_LEFT, IRIS_LEFT), (EYE_RIGHT, IRIS_RIGHT)):
        low, high = points[rim, :2].min(0), points[rim, :2].max(0)
        round_ = np.array([(0, 0), (1, 0), (0, -1), (-1, 0), (0, 1)]) * 0.18 * (high - low)[0]
        points[iris, :2] = (low + high) / 2 + round_
    image = eyes(points, SIZE * 3)
    right, left = look(image, points, (12, 0)), look(image, points, (-12, 0))
    away = np.ones(image.shape[:2], bool)
    for rim in (EYE_LEFT, EYE_RIGHT):
        wide = np.ptp(points[rim, 0])
        assert dark(right, points, rim)[0] - dark(image, points, rim)[0] > 0.04 * wide
        assert dark(left, points, rim)[0] - dark(image, points, rim)[0] < -0.04 * wide
        low, high = points[rim, :2].min(0).astype(int) - 4, points[rim, :2].max(0).astype(int) + 6
        away[low[1] : high[1], low[0] : high[0]] = False
    np.testing.assert_array_equal(right[away], image[away])
    np.testing.assert_array_equal(look(image, points, (0, 0)), image)


def test_a_gaze_needs_two_angles_that_eyes_can_turn():
    assert check((10, -5)) == (10, -5)
    for wrong in ((), (5,), (1, 2, 3), (40, 0), (float("nan"), 0)):
        with pytest.raises(ConfigError, match="--gaze"):
            check(wrong)


def test_moods_are_laid_over_speech_and_those_that_do_not_exist_refused():
    said = Pose(jaw=0.005, aperture=0.006, width=0.001, blink=0.0)
    (happy,) = Direction(mood=parse("happy"))([said], 1)
    (half,) = Direction(mood=parse("happy=0.5"))([said], 1)
    assert happy.smile > half.smile > said.smile and happy.jaw == said.jaw and happy.width == said.width
    (surprised,) = Direction(mood=parse("surprised"))([Pose(aperture=0.0)], 1)
    assert surprised.brow > 0 and surprised.aperture == 0  # lips that are shut stay shut
    (angry,) = Direction(mood=parse("angry"))([Pose()], 1)
    assert angry.brow < 0 and angry.aperture is None
    (sad,) = Direction(mood=parse("sad"))([Pose()], 1)
    assert sad.inner > 0 and sad.frown > 0
    assert parse("") is None and set(MOODS) > {"happy", "sad", "surprised", "angry", "disgusted", "afraid"}
    for wrong in ("bored", "happy=2", "happy=much", "happy=nan"):
        with pytest.raises(ConfigError, match="--emotion"):
            parse(wrong)


def test_an_expression_is_64_numbers(tmp_path):
    np.save(tmp_path / "e.npy", np.arange(64.0))
    assert read_expression(tmp_path / "e.npy").dtype == np.float32
    np.save(tmp_path / "short.npy", np.zeros(3))
    np.save(tmp_path / "nan.npy", np.full(64, np.nan))
    (tmp_path / "text.npy").write_text("no numbers")
    for name in ("short.npy", "nan.npy", "text.npy", "none.npy"):
        with pytest.raises(ConfigError) as error:
            read_expression(tmp_path / name)
        assert len(str(error.value).splitlines()) == 3


def test_published_styles_go_from_calm_to_lively():
    assert style_of(None, None) == 3 and style_of(None, 5) == 5 and style_of(0, None) == 0 and style_of(45, None) == 7
    for wrong in ((46, None), (-1, None), (3, 2.0)):
        with pytest.raises(ConfigError, match="--pose-style"):
            style_of(*wrong)
    for wrong in (-0.5, 7.5, float("nan")):
        with pytest.raises(ConfigError) as error:
            style_of(None, wrong)
        assert error.value.where == "--head-style" and "0 (calm) to 7 (lively)" in error.value.fix
