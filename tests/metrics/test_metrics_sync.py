import numpy as np
import pytest
from faces import face, moved
from scipy.ndimage import gaussian_filter1d

from vocalface.metrics import sync
from vocalface.types import Sound


def syllables(frames, seed=0):
    rng = np.random.default_rng(seed)
    return np.maximum(gaussian_filter1d(rng.standard_normal(frames), 2), 0) * 30


def voice(envelope, seed=0):
    """Speech-like sound whose loudness follows `envelope`, one value a frame."""
    rng = np.random.default_rng(seed)
    n = len(envelope) * 640
    loudness = np.interp((np.arange(n) + 0.5) / 640 - 0.5, np.arange(len(envelope)), envelope)
    carrier = sum(np.sin(2 * np.pi * 120 * h * np.arange(n) / 16000) / h for h in range(1, 30))
    return Sound((0.02 * loudness * carrier + 0.001 * rng.standard_normal(n)).astype(np.float32), 16_000)


@pytest.mark.parametrize("late", [-7, 0, 3, 12])
def test_lag_has_the_right_sign_and_size(late):
    series = syllables(300)
    truth, video = (
        series[20:-20],
        series[20 - late : len(series) - 20 - late],
    )  # video shows at t what was due at t - late
    found, height = sync.lag(truth, video)
    assert found == pytest.approx(late, abs=0.1) and height > 0.99


def test_fraction_of_a_frame():
    t = np.arange(300.0)
    wave = lambda t: np.sin(t / 3) + np.sin(t / 5.3)  # noqa: E731
    assert sync.lag(wave(t), wave(t - 2.4))[0] == pytest.approx(2.4, abs=0.1)


def test_lag_of_nothing():
    assert all(np.isnan(sync.lag(np.zeros(100), syllables(100))))
    assert sync.lag(syllables(10), syllables(10))[0] == 0


def test_sync_c_d_from_distances():
    distances = np.tile(10.0 + np.abs(np.arange(31) - 18) * 0.1, (50, 1))
    distances[::2] += 1  # averaged over time first
    c, d, offset = sync.sync_c_d(distances)
    mean = distances.mean(0)
    assert d == pytest.approx(mean.min()) == pytest.approx(10.5)
    assert c == pytest.approx(np.sort(mean)[15] - mean.min()) and offset == -3


def test_sync_c_of_flat_distances_is_zero():
    assert sync.sync_c_d(np.ones((9, 31)))[:2] == (0, 1)


@pytest.fixture(scope="module")
def talking():
    opening = syllables(250)
    points = face(opening + 2)
    points[..., :2] += np.random.default_rng(3).normal(0, 0.2, points[..., :2].shape)
    return opening, points


def test_proxy_finds_true_sound(talking):
    opening, points = talking
    found = sync.proxy(points, voice(opening))
    assert found.lag == pytest.approx(0, abs=0.5) and found.confidence > 0.45


@pytest.mark.parametrize("late", [-5, 4])
def test_proxy_moves_with_the_video(talking, late):
    opening, points = talking
    found = sync.proxy(np.roll(points, late, 0), voice(opening))
    assert found.lag == pytest.approx(late, abs=0.5)


def test_proxy_is_blind_to_head_motion(talking):
    opening, points = talking
    shaking = np.concatenate(
        [moved(points[i : i + 1], 0.05 * np.sin(i / 4), 1, (5 * np.cos(i / 3), 0)) for i in range(250)]
    )
    assert sync.proxy(shaking, voice(opening)).confidence == pytest.approx(
        sync.proxy(points, voice(opening)).confidence, abs=0.02
    )


def test_proxy_doubts_other_sound(talking):
    _, points = talking
    own = sync.proxy(points, voice(talking[0])).confidence
    assert sync.proxy(points, voice(syllables(250, seed=9))).confidence < 0.5 * own


def test_proxy_says_nothing_where_it_cannot(talking):
    opening, points = talking
    assert sync.proxy(face(np.full(250, 5.0)), voice(opening)) is None  # a still face
    assert sync.proxy(points, Sound(np.zeros(160_000, np.float32), 16_000)) is None
    assert sync.proxy(points[:100], voice(opening)) is None  # 4 s
    assert sync.proxy(np.full_like(points, np.nan), voice(opening)) is None
    with pytest.raises(ValueError, match="16000"):
        sync.proxy(points, Sound(np.zeros(9), 48_000))


def test_proxy_bridges_missing_frames(talking):
    opening, points = talking
    holes = points.copy()
    holes[[3, 50, 51, 120]] = np.nan
    assert sync.proxy(holes, voice(opening)).lag == pytest.approx(0, abs=0.5)
