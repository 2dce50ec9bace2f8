"""Speech on its way to a face: files and sounds in pieces, padded, with the level of each frame."""

import numpy as np
import pytest

from vocalface import media
from vocalface.errors import MediaError
from vocalface.observe.speech.intake import SHORTEST, at_least, levels, listen, pieces
from vocalface.types import Sound


def tone(samples: int, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * 440 / 16_000 * np.arange(samples))).astype(np.float32)


def test_pieces_put_together_are_the_sound():
    sound = tone(50_001)
    parts = list(pieces(sound, 1.0))
    assert [len(p) for p in parts] == [16_000] * 3 + [2_001]
    np.testing.assert_array_equal(np.concatenate(parts), sound)


@pytest.mark.parametrize(("given", "added"), [(0, SHORTEST), (100, SHORTEST - 100), (SHORTEST, 0), (2 * SHORTEST, 0)])
def test_short_speech_is_padded_with_silence(given, added):
    out = np.concatenate([np.zeros(0), *at_least(pieces(tone(given)))])
    assert len(out) == given + added and not out[given:].any()
    np.testing.assert_array_equal(out[:given], tone(given))


def test_levels_are_those_of_whole_frames():
    sound = np.concatenate([tone(6_400), tone(6_400, 0.05)])
    found = levels(sound)
    assert len(found) == 20
    np.testing.assert_allclose(found[:10] - found[10:], 20, atol=0.05)
    np.testing.assert_allclose(found[0], 20 * np.log10(0.5 / np.sqrt(2)), atol=0.05)
    assert len(levels(sound, 30)) == 30 and (levels(sound, 30)[20:] == -100).all()
    np.testing.assert_array_equal(levels(sound, 5), found[:5])


def test_a_file_and_a_sound_are_heard_alike(tmp_path):
    sound = Sound(tone(40_000), 16_000)
    path = media.write_sound(tmp_path / "a.wav", sound)
    for speech in (sound, path):
        parts, frames = listen(speech)
        assert frames == 63
        np.testing.assert_allclose(np.concatenate(list(parts)), sound.samples, atol=1e-4)
    assert listen(Sound(tone(160), 16_000))[1] == 5


def test_nothing_to_hear_is_said():
    with pytest.raises(MediaError, match="empty"):
        listen(Sound(np.zeros(0, np.float32), 16_000))
