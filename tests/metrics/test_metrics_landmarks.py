import numpy as np
import pytest
from faces import face, moved

from vocalface.metrics import landmarks as lm

T = 60
TIME = np.arange(T) / 25
TALK = 8 + 7 * np.sin(2 * np.pi * 2 * TIME)


def test_lmd_of_a_known_change():
    truth = face(np.zeros(5))
    assert lm.lmd(truth, truth) == 0
    wider = truth.copy()
    wider[:, [61]] += [3, 4, 0]  # one of 20 points by 5 px
    moved_mean = 5 / 20
    expected = (np.hypot(3 - 0.15, 4 - 0.2) + 19 * moved_mean) / 20
    assert lm.lmd(wider, truth) == pytest.approx(expected)


def test_lmd_is_blind_to_translation_alone():
    truth, other = face(TALK), face(TALK[::-1])
    base = lm.lmd(other, truth)
    assert base > 1
    assert lm.lmd(moved(other, 0, 1, (31, -17)), truth) == pytest.approx(base)
    assert lm.lmd(moved(other, 0.1, 1, (0, 0)), truth) != pytest.approx(base)
    assert lm.lmd(2 * other, 2 * truth) == pytest.approx(2 * base)


def test_lmd_relatives():
    truth, other = face(TALK), face(TALK[::-1])
    assert lm.lmd_iod(2 * other, 2 * truth) == pytest.approx(lm.lmd_iod(other, truth))
    assert lm.lmd_iod(other, truth) == pytest.approx(100 * lm.lmd(other, truth) / 150)
    turned = moved(truth)
    assert lm.lmd_stabilized(turned, truth) == pytest.approx(0, abs=1e-6)
    assert lm.lmd(other, truth, "face") < lm.lmd(other, truth, "mouth")
    with pytest.raises(KeyError):
        lm.lmd(other, truth, "nose")


def test_missing_frames_are_left_out():
    truth, other = face(TALK), face(TALK[::-1])
    expected = lm.lmd_frames(other, truth)
    other[10:20] = np.nan
    assert lm.lmd(other, truth) == pytest.approx(np.delete(expected, range(10, 20)).mean())
    assert np.isfinite([lm.lip_jitter(other), lm.mouth_correlation(other, truth), lm.amplitude_ratio(other, truth),
                        lm.excess_jitter(other, truth), lm.closed_mouth_error(other, truth)]).all()  # fmt: skip
    assert np.isnan(lm.lmd(np.full_like(truth, np.nan), truth))


def test_mouth_opening():
    points = face(TALK)
    np.testing.assert_allclose(lm.mouth_opening(points), TALK, atol=1e-9)
    np.testing.assert_allclose(lm.mouth_opening(moved(points), True), TALK / 150, atol=1e-9)
    assert lm.mouth_correlation(face(3 * TALK), points) == pytest.approx(1)
    assert lm.amplitude_ratio(face(0.5 * TALK), points) == pytest.approx(0.5)
    assert np.isnan(lm.mouth_correlation(face(np.zeros(T)), points))


def test_jitter_sees_tremble_and_not_speech_or_the_head():
    rng = np.random.default_rng(0)
    smooth = face(TALK)
    trembling = smooth.copy()
    trembling[..., :2] += rng.normal(0, 0.5, trembling[..., :2].shape)
    assert lm.jitter_ratio(smooth, smooth) == 1
    assert lm.lip_jitter(face(np.full(T, 5.0))) == pytest.approx(0, abs=1e-9)
    assert lm.lip_jitter(face(np.linspace(0, 20, T))) == pytest.approx(0, abs=1e-9)
    assert lm.jitter_ratio(trembling, smooth) > 1.3
    nodding = np.concatenate([moved(smooth[i : i + 1], 0.1 * np.sin(i), 1, (9 * np.sin(i), 0)) for i in range(T)])
    assert lm.lip_jitter(nodding) == pytest.approx(lm.lip_jitter(smooth), rel=1e-6)
    assert lm.excess_jitter(smooth, smooth) == pytest.approx(0, abs=1e-9)
    assert lm.excess_jitter(nodding, smooth) == pytest.approx(0, abs=1e-6)
    assert lm.excess_jitter(trembling, smooth) > 3


def test_closed_mouth():
    truth = np.where(np.arange(T) % 10 < 3, 0.5, 12.0)
    assert lm.closed_mouth_error(face(truth), face(truth)) == pytest.approx(0)
    assert lm.closure_recall(face(truth), face(truth)) == 1
    always_open = np.maximum(truth, 6.5)
    assert lm.closed_mouth_error(face(always_open), face(truth)) == pytest.approx(100 * 6 / 150)
    assert lm.closure_recall(face(always_open), face(truth)) == 0
    assert lm.closure_recall(face(np.roll(truth, 1)), face(truth)) == 1
    assert np.isnan(lm.closure_recall(face(truth), face(np.full(T, 12.0))))


def test_boxes():
    points = face([4.0])[0]
    x0, y0, x1, y1 = lm.mouth_box(points, 512, 512)
    assert x1 - x0 == y1 - y0 == 135 and (x0 + x1) / 2 == pytest.approx(256, abs=1)
    x0, y0, x1, y1 = lm.face_box(points, 300, 300)
    assert 0 <= x0 < x1 <= 300 and 0 <= y0 < y1 <= 300
    assert lm.mouth_box(points - 1000, 300, 300) == (0, 0, 1, 1)


def test_68_points_pass_as_they_are():
    points = np.random.default_rng(0).uniform(size=(3, 68, 2))
    assert lm.lmd(points, points + 1) == pytest.approx(0)
    assert lm.eye_distance(points)[0] == pytest.approx(np.linalg.norm(points[0, 36] - points[0, 45]))


def test_turns_in_space_are_taken_away():
    rng = np.random.default_rng(0)
    truth = face(TALK[:4])
    turned = truth.copy()
    for i in range(4):
        q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        q *= np.sign(np.linalg.det(q))
        turned[i] = (0.5 + i) * truth[i] @ q.T + rng.uniform(-50, 50, 3)
    np.testing.assert_allclose(lm.align_3d(turned, truth), truth, atol=1e-6)
    flat = truth * [1, 1, 0]  # degenerate, not mirrored
    np.testing.assert_allclose(lm.align_3d(flat, flat), flat, atol=1e-6)
