"""The formant voice and the lips that go with it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocalface.errors import ConfigError
from vocalface.presenter import articulation, voice
from vocalface.presenter.voice import Phone
from vocalface.types import AU_NAMES, UPPER_AU_INDEX

AU25, AU26 = AU_NAMES.index("AU25"), AU_NAMES.index("AU26")


def spectrum_peak(samples, low, high, rate=16000):
    """Frequency, Hz, of the strongest smoothed spectral peak in [low, high]."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8192)) ** 2
    smooth = np.convolve(power, np.hanning(81), mode="same")  # wider than a harmonic's distance
    frequency = np.fft.rfftfreq(8192, 1 / rate)
    inside = (frequency >= low) & (frequency <= high)
    return frequency[inside][np.argmax(smooth[inside])]


def middle_of(utterance, symbol):
    phone = next(p for p in utterance.phones if p.symbol == symbol)
    a, b = np.array([0.3, 0.8]) * (phone.end - phone.start) + phone.start
    return utterance.sound.samples[int(a * 16000) : int(b * 16000)]


@settings(max_examples=8, deadline=None)
@given(st.floats(0.5, 20), st.integers(0, 1000))
def test_phones_tile_the_sound_and_the_length_is_about_as_asked(seconds, seed):
    said = voice.speak(voice.script(seconds, seed), seed=seed)
    starts, ends = zip(*((p.start, p.end) for p in said.phones))
    assert starts[0] == 0 and starts[1:] == ends[:-1]
    assert all(a < b for a, b in zip(starts, ends))
    assert said.sound.seconds == pytest.approx(ends[-1], abs=1e-4)
    assert said.sound.seconds == pytest.approx(seconds, rel=0.2, abs=1.2)
    assert np.abs(said.sound.samples).max() <= 1 and np.isfinite(said.sound.samples).all()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    text = voice.script(4, 7)
    assert text == voice.script(4, 7) != voice.script(4, 8)
    first, again, other = (voice.speak(text, seed=s).sound.samples for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert len(first) != len(other) or not np.allclose(first, other)


@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_a_length_and_a_rate_can_be_asked_for_exactly(rate):
    said = voice.speak("hh-ax-l-ow1 , w-er1-l-d .", seconds=3.2, rate=rate)
    assert len(said.sound.samples) == round(3.2 * rate) and said.phones[-1].end == 3.2


def test_vowels_have_their_formants():
    said = voice.speak("aa1-l iy1-l uw1-l", voice=voice.Voice(100, 1.0), seed=3)
    assert spectrum_peak(middle_of(said, "aa"), 450, 1000) == pytest.approx(700, abs=120)
    assert spectrum_peak(middle_of(said, "iy"), 1500, 2600) == pytest.approx(2080, abs=150)
    assert spectrum_peak(middle_of(said, "uw"), 650, 1400) == pytest.approx(880, abs=150)


def test_fricatives_stops_and_pauses_sound_as_they_should():
    said = voice.speak("aa1-s-aa1-sh-aa1-t-aa1 pau:0.6 aa1", voice="ben", seed=2)
    assert spectrum_peak(middle_of(said, "s"), 1500, 8000) > 4300
    assert 2000 < spectrum_peak(middle_of(said, "sh"), 1500, 8000) < 3800
    vowel = middle_of(said, "aa").std()
    stop = next(p for p in said.phones if p.symbol == "t")
    closure = said.sound.samples[int((stop.start + 0.02) * 16000) : int((stop.start + 0.04) * 16000)]
    assert closure.std() < 0.05 * vowel
    assert middle_of(said, "pau").std() < 1e-3 * vowel


def test_voices_differ_in_pitch():
    def pitch(name):
        samples = middle_of(voice.speak("aa1 aa1 aa1 .", voice=name, seed=0, seconds=1.5), "aa")
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 32768)) ** 2
        correlation = np.fft.irfft(spectrum)
        return 16000 / (40 + np.argmax(correlation[40:260]))

    for name in ("ada", "ben", "dan", "cleo"):
        assert pitch(name) == pytest.approx(voice.VOICES[name].pitch, rel=0.3)


@pytest.mark.parametrize(
    ("text", "name"), [("hh-qq", "ada"), ("", "ada"), ("aa", "nobody"), ("pau:long", "ada"), ("pau-aa", "ada")]
)
def test_what_cannot_be_spoken_is_a_clear_error(text, name):
    with pytest.raises(ConfigError) as error:
        voice.speak(text, voice=name)
    assert error.value.fix


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([25.0, 30.0, 80.0]))
def test_action_units_stay_in_range_and_the_upper_face_is_left_alone(seed, fps):
    said = voice.speak(voice.script(3, seed), seed=seed)
    units, motions = articulation.articulate(said.phones, int(said.sound.seconds * fps), fps=fps, seed=seed)
    assert units.shape == (int(said.sound.seconds * fps), 17) and units.min() >= 0 and units.max() <= 5
    assert not units[:, UPPER_AU_INDEX].any()
    assert tuple(motions) == articulation.MOTIONS
    assert all(m.shape == (len(units),) and abs(m).max() <= 1 for m in motions.values())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from("mbp"), st.floats(0.03, 0.12), st.floats(0, 0.04), st.integers(0, 99))
def test_bilabials_close_the_lips_in_at_least_one_frame(symbol, length, offset, seed):
    phones = [Phone("aa", 0, 0.5 + offset), Phone(symbol, 0.5 + offset, 0.5 + offset + length)]
    phones.append(Phone("aa", phones[-1].end, 1.2))
    units, motions = articulation.articulate(phones, 30, seed=seed)
    assert units[11:18, AU25].min() < 0.05 and motions["closure"][11:18].max() > 0.98
    assert units[5:9, AU25].min() > 1.5 and units[20:24, AU25].min() > 1.5


def test_lips_are_closed_in_long_pauses_and_may_rest_open():
    phones = [Phone("aa", 0, 0.4), Phone("pau", 0.4, 1.4), Phone("aa", 1.4, 1.8)]
    closed, _ = articulation.articulate(phones, 45)
    resting, _ = articulation.articulate(phones, 45, rest=0.2)
    assert closed[15:30, AU25].max() == pytest.approx(0, abs=0.02) and closed[15:30, AU26].max() < 0.3
    assert 0.5 < resting[22, AU25] < 2


def test_vowels_shape_the_mouth():
    def mouth(vowel):
        phones = [Phone("t", 0, 0.1), Phone(vowel, 0.1, 0.5), Phone("t", 0.5, 0.6)]
        return {k: m[7] for k, m in articulation.articulate(phones, 15, effort=0)[1].items()}

    aa, iy, uw = mouth("aa"), mouth("iy"), mouth("uw")
    assert aa["jaw"] > iy["jaw"] + 0.3 and aa["gap"] > uw["gap"] + 0.3
    assert iy["width"] > 0.3 > 0 > uw["width"] and uw["round"] > 0.7 > 0.2 > iy["round"]


def test_rounding_is_anticipated():
    """Before /uw/ the consonant is already rounded: the motion leads its sound."""
    phones = [Phone("aa", 0, 0.4), Phone("t", 0.4, 0.5), Phone("uw", 0.5, 0.8), Phone("t", 0.8, 0.9)]
    other = [*phones[:2], Phone("iy", 0.5, 0.8), phones[3]]
    rounded, spread = (articulation.articulate(p, 22, effort=0)[1]["round"] for p in (phones, other))
    assert rounded[11] > spread[11] + 0.15
