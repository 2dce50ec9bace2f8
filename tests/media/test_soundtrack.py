"""Sound from any track, and its place beside the picture."""

import numpy as np
import pytest
from footage import write_clip, write_track

from vocalface import media
from vocalface.errors import MediaError
from vocalface.types import Sound, frames_for


def tone(seconds, rate, hertz=440.0, level=0.8, channels=1):
    wave = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[None], channels, axis=0).astype(np.float32)


def click(seconds, rate, at):
    samples = np.zeros((1, round(seconds * rate)), np.float32)
    samples[0, round(at * rate) : round(at * rate) + rate // 500] = 0.9
    return samples


def onset(sound):
    loud = np.abs(sound.samples)
    return np.flatnonzero(loud > 0.5 * loud.max())[0] / sound.rate


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_mix_keeps_its_level_and_never_clips(tmp_path, channels):
    clip = write_clip(tmp_path / "a.mkv", [0, 0.5], sound=(tone(1, 48_000, channels=channels), 48_000, 0.0))
    heard = media.read_sound(clip)
    assert heard.samples.dtype == np.float32 and np.abs(heard.samples).max() <= 1
    if channels <= 2:
        assert np.abs(heard.samples[2000:14_000]).max() == pytest.approx(0.8, abs=0.01)


def test_one_side_of_a_stereo_track_comes_at_half(tmp_path):
    samples = np.concatenate([tone(1, 16_000), np.zeros((1, 16_000), np.float32)])
    heard = media.read_sound(write_clip(tmp_path / "a.mkv", [0, 0.5], sound=(samples, 16_000, 0.0)))
    assert np.abs(heard.samples).max() == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampling_moves_nothing(tmp_path, rate):
    sound = Sound(click(1.0, rate, 0.5)[0], rate)
    heard = media.read_sound(media.write_sound(tmp_path / "c.wav", sound), 16_000)
    assert abs(onset(heard) - 0.5) < 0.001 and abs(len(heard.samples) - 16_000) <= 2


@pytest.mark.parametrize("start", [-0.2, 0.0, 0.3])
def test_a_late_or_early_track_keeps_its_offset(tmp_path, start):
    """The flash is at 0.4 s of picture, and the click at the same moment of the file's clock."""
    lead = 0.5  # the picture begins at 0.5 s, so that the sound can begin before it
    times = lead + np.arange(25) / 25
    levels = [220 if k == 10 else 20 for k in range(25)]
    samples = click(1.2, 44_100, 0.4 - start)
    path = write_clip(tmp_path / "o.mkv", times, levels=levels, sound=(samples, 44_100, lead + start))
    clip = media.open_clip(path)
    flash = int(np.argmax([f.mean() for f in clip.at(25)]))
    assert flash == 10 and abs(onset(clip.speech()) - 0.4) < 0.002
    assert abs(onset(media.read_sound(path)) - (0.4 - start)) < 0.002, "alone it begins with itself"


def test_a_pause_in_the_stamps_is_silence(tmp_path):
    samples = click(1.0, 16_000, 0.6)
    path = write_track(tmp_path / "g.mkv", samples, 16_000, "pcm_s16le", gaps={8000: 0.25})
    heard = media.read_sound(path)
    assert abs(heard.seconds - 1.25) < 0.01 and abs(onset(heard) - 0.85) < 0.002


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp3", "mp3", 44_100), ("a.m4a", "aac", 44_100), ("a.aac", "aac", 48_000), ("a.ogg", "libopus", 48_000),
        ("a.flac", "flac", 44_100), ("a.wav", "pcm_f32le", 22_050), ("s.mka", "flac", 44_100),
    ],
)  # fmt: skip
def test_every_codec_keeps_place_and_length(tmp_path, name, codec, rate):
    layout = "stereo" if name[0] == "s" else "mono"
    samples = click(2.0, rate, 1.0)
    samples = np.repeat(samples, 2, axis=0) if layout == "stereo" else samples
    heard = media.read_sound(write_track(tmp_path / name, samples, rate, codec, layout=layout))
    lead = 0.05 if name == "a.aac" else 0.005  # raw AAC says nothing of its encoder's delay
    assert abs(onset(heard) - 1.0) < lead and 1.99 < heard.seconds < 2.1


def test_sound_without_samples_is_refused(tmp_path):
    path = media.write_sound(tmp_path / "e.wav", Sound(np.zeros(0, np.float32), 16_000))
    with pytest.raises(MediaError, match="empty"):
        media.read_sound(path)
    with pytest.raises(MediaError, match="no sound track"):
        media.read_sound(write_clip(tmp_path / "v.mp4", [0, 0.04]))


@pytest.mark.parametrize("samples", [1, 160, 3199])
def test_very_short_sound_passes_and_fills_its_frames(tmp_path, samples):
    sound = Sound(np.full(samples, 0.1, np.float32), 16_000)
    assert len(media.read_sound(media.write_sound(tmp_path / "s.wav", sound)).samples) == samples
    count = frames_for(samples)
    with media.VideoWriter(tmp_path / "s.mp4", 32, 32, sound=sound) as video:
        for _ in range(count):
            video.write(np.zeros((32, 32, 3), np.uint8))
    clip = media.open_clip(tmp_path / "s.mp4")
    assert len(clip.at(25)) == count and abs(clip.speech().seconds - count / 25) <= 0.04


def test_silence_and_wild_values_stay_finite(tmp_path):
    wild = Sound(np.array([0, np.nan, 3.0, -3.0, np.inf] * 100, np.float32), 16_000)
    heard = media.read_sound(media.write_sound(tmp_path / "w.wav", wild))
    assert np.isfinite(heard.samples).all() and np.abs(heard.samples).max() <= 1
