"""Amplitude: the trained voice stays, a flat one is given its swing, in a stream as in a file."""

import numpy as np
import pytest

from vocalface.nn.shaping import Amplitude, SilenceGate, Smoother

D = 32


def voice(frames: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """[frames, D] slow random motion about an open mouth."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(frames + 4, D)) * np.linspace(0.1, 2, D)
    return (2 + scale * np.stack([x[i : i + 5].mean(0) for i in range(frames)])).astype(np.float32)


OWN = voice(1500)
SPREAD = float(np.sqrt(OWN.var(0).sum()))


def shape(x: np.ndarray, speaks=None) -> np.ndarray:
    rule = Amplitude(OWN.mean(0), SPREAD)
    return np.array([rule(row, True if speaks is None else bool(speaks[i])) for i, row in enumerate(x)])


def spread(x: np.ndarray) -> float:
    return float(np.sqrt(x.var(0).sum()))


def test_the_trained_voice_is_left_as_it_is():
    for seed in (0, 1, 2):  # what it was measured on, and more of the same
        x = voice(1500, seed)
        y = shape(x)
        assert abs(spread(y) / spread(x) - 1) < 0.02 and np.abs(y - x).max() < 0.1 * SPREAD


@pytest.mark.parametrize("scale", [0.65, 0.8])
def test_a_flat_voice_gets_the_swing_of_the_trained_one(scale):
    x = voice(500, 3, scale)
    y = shape(x)
    assert spread(y[100:]) > 0.88 * SPREAD > scale * SPREAD
    np.testing.assert_allclose(y.mean(0), x.mean(0), atol=0.05 * SPREAD)  # it hangs no further open


@pytest.mark.parametrize("scale, gain", [(0.2, Amplitude.HIGH), (3.0, Amplitude.LOW)])
def test_the_gain_is_bounded(scale, gain):
    rule = Amplitude(OWN.mean(0), SPREAD)
    for row in voice(600, 4, scale):
        rule(row, True)
    assert rule.gain == gain


def test_the_gain_never_jumps():
    rule, gains = Amplitude(OWN.mean(0), SPREAD), []
    for row in voice(300, 5, 0.4):
        rule(row, True)
        gains.append(rule.gain)
    assert gains[0] < 1.05 and gains[-1] > 1.3 and np.abs(np.diff(gains)).max() < 0.05


def test_pauses_teach_nothing():
    x, still = voice(400, 6, 0.7), np.zeros((300, D), np.float32)
    mixed = np.concatenate([x[:200], still, x[200:]])
    speaks = np.r_[np.ones(200), np.zeros(300), np.ones(200)]
    np.testing.assert_array_equal(shape(mixed, speaks)[500:], shape(x)[200:])


def test_it_is_causal():
    x = voice(300, 7, 0.7)
    y = x.copy()
    y[200:] = 9
    np.testing.assert_array_equal(shape(x)[:200], shape(y)[:200])


def test_silence_gate_closes_after_200_ms_and_opens_before_speech():
    gate = SilenceGate()
    levels = [-30.0] * 50 + [-70.0] * 30 + [-30.0] * 20 + [-70.0] * 3 + [-30.0] * 20
    out = [gate.push(v) for v in levels]
    frame = out[gate.ahead :]  # out[i + ahead] belongs to frame i
    assert max(frame[:47]) == 0 and min(frame[56:75]) == 1
    assert frame[80] == 0, "the mouth is free when speech comes back"
    assert max(frame[85:]) == 0, "a stop of 120 ms within speech closes nothing"


def test_smoothing_passes_ramps_and_damps_zigzag():
    ramp, zigzag = np.arange(10.0), np.array([1.0, -1.0] * 10)
    smooth = Smoother(0.5)
    assert np.allclose([smooth(np.array(v))[0] for v in ramp], ramp)
    smooth = Smoother(0.5)
    assert np.allclose(np.abs([smooth(np.array(v))[0] for v in zigzag][2:]), 0.5)
