"""Driving: a stream says what a file says, pauses close the mouth, and the track is played without a jump."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_runtime import make

from vocalface.hmtalker.config import Config
from vocalface.hmtalker.drive import Options, SpeechControls, upper_face
from vocalface.hmtalker.runtime import Runtime
from vocalface.types import SPEECH_RATE, frames_for


@pytest.fixture(scope="module")
def runtime():
    head, *_ = make(Config(), dim=160)
    head.arrays["closed.c_f"] += 7
    said, inner = whole(Runtime(head), speech(6.0), Options(smooth=0, close_in_silence=False))
    head.arrays.update({"voice.c_f": said.mean(0), "voice.mouth": inner.mean(0)})
    head.arrays["voice.spread"] = 2 * np.sqrt([said.var(0).sum(), inner.var(0).sum()])  # this voice moves half as far
    return Runtime(head)


def speech(seconds: float = 2.3) -> np.ndarray:
    """A modulated tone with a pause of 0.8 s in it."""
    t = np.arange(int(seconds * SPEECH_RATE)) / SPEECH_RATE
    x = 0.3 * np.sin(2 * np.pi * 180 * t) * (1 + 0.8 * np.sin(17 * t))
    x[int(0.9 * SPEECH_RATE) : int(1.7 * SPEECH_RATE)] = 0
    return x.astype(np.float32)


def whole(runtime, samples, options):
    controls = SpeechControls(runtime, "mel", options)
    out = list(controls.push(samples)) + list(controls.flush())
    return np.array([c.c_f for c in out]), np.array([c.mouth for c in out])


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, 36_000), max_size=12))
def test_any_chunking_gives_the_same_frames(runtime, cuts):
    samples = speech()
    expected, expected_mouth = whole(runtime, samples, Options())
    assert len(expected) == frames_for(len(samples))
    controls = SpeechControls(runtime, "mel", Options())
    out = []
    for piece in np.split(samples, sorted({c for c in cuts if c < len(samples)})):
        out += list(controls.push(piece))
    out += list(controls.flush())
    np.testing.assert_allclose(np.array([c.c_f for c in out]), expected, atol=1e-4)
    np.testing.assert_allclose(np.array([c.mouth for c in out]), expected_mouth, atol=1e-4)


def test_a_stream_lags_by_its_stated_look_ahead_and_no_more(runtime):
    samples = speech(4.0)
    controls = SpeechControls(runtime, "mel", Options())
    given_out = 0
    for k in range(0, len(samples), 640):
        given_out += len(list(controls.push(samples[k : k + 640])))
        heard = k // 640 + 1
        assert given_out >= heard - controls.look_ahead - 2


def test_memory_does_not_grow_with_the_speech(runtime):
    controls = SpeechControls(runtime, "mel", Options())
    kept = []
    for _ in range(40):
        list(controls.push(speech(1.0)))
        kept.append(len(controls.rows) + len(controls.gates) + len(controls.tail) // 640)
    assert max(kept[5:]) <= max(kept[:5]) and max(kept) < 60


def spread(x: np.ndarray) -> float:
    return float(np.sqrt(x.var(0).sum()))


def test_a_voice_that_moves_half_as_far_is_given_the_swing_of_the_trained_one(runtime):
    samples = speech(8.0)
    samples[: int(1.7 * SPEECH_RATE)] = speech(9.0)[int(2.0 * SPEECH_RATE) :][: int(1.7 * SPEECH_RATE)]  # no pause
    matched, _ = whole(runtime, samples, Options(smooth=0))
    free, _ = whole(runtime, samples, Options(smooth=0, match_voice=False))
    assert spread(matched[100:]) > 1.3 * spread(free[100:])
    assert np.abs(matched.mean(0) - free.mean(0)).max() < 0.3 * spread(free)


def test_edits_of_action_units_are_not_undone_by_the_rule(runtime):
    samples = speech(4.0)
    for text in ("AU12=+1.5", "AU26=0.2x"):
        plain, _ = whole(runtime, samples, Options(smooth=0, close_in_silence=False))
        edited, _ = whole(runtime, samples, Options(smooth=0, close_in_silence=False, au=(text,)))
        free = Options(smooth=0, close_in_silence=False, match_voice=False)
        free_edited = Options(smooth=0, close_in_silence=False, match_voice=False, au=(text,))
        expected = whole(runtime, samples, free_edited)[0] - whole(runtime, samples, free)[0]
        np.testing.assert_allclose(edited - plain, expected, atol=1e-4)


def test_a_head_that_knows_no_voice_speaks_as_it_did(runtime):
    head, *_ = make(Config(), dim=160)
    old = Runtime(head)
    a, _ = whole(old, speech(), Options())
    b, _ = whole(old, speech(), Options(match_voice=False))
    np.testing.assert_array_equal(a, b)


def test_a_pause_closes_the_mouth_and_free_leaves_it(runtime):
    samples = speech()
    closed, _ = whole(runtime, samples, Options(smooth=0))
    free, _ = whole(runtime, samples, Options(smooth=0, close_in_silence=False))
    pause = slice(30, 38)  # from 200 ms after its start to the gate's look-ahead before its end
    assert np.allclose(closed[pause], runtime.closed[0]) and not np.allclose(free[pause], runtime.closed[0])
    assert np.allclose(closed[5:20], free[5:20])


def test_blinks_come_at_natural_intervals():
    head, *_ = make(Config(), dim=160)
    head.arrays["track.upper"] = np.tile(np.array([0.1] * 6 + [0.2], np.float32), (50, 1))
    head.arrays["track.upper"][::10, 6] = 1.9
    lids = [upper_face(head, Options(upper="still"))(i, 0)[6] for i in range(100)]
    assert max(lids) == min(lids) < 0.5
    blink = upper_face(head, Options(upper="blink", seed=1))
    lids = np.array([blink(i, 0)[6] for i in range(25 * 120)])
    starts = np.flatnonzero((lids[1:] > 0.9) & (lids[:-1] <= 0.9))
    gaps = np.diff(starts) / 25
    assert 20 < len(starts) < 60 and gaps.min() >= 1 and 2.5 < np.median(gaps) < 5
