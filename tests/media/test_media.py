"""Clips on any clock, sound that stays with its picture, files that appear whole."""

import av
import numpy as np
import pytest
from footage import write_clip

from vocalface import media
from vocalface.errors import ConfigError, MediaError, OutputError
from vocalface.types import CropBox, Sound


@pytest.mark.parametrize("rate", [15, 22.13, 25, 29.97, 30, 50, 60])
def test_the_grid_shows_the_frame_that_is_on_screen(tmp_path, rate):
    times = np.arange(int(rate * 1.2)) / rate
    clip = media.open_clip(write_clip(tmp_path / "a.mkv", times))
    seen = [int(f[20, 20, 0]) for f in clip.at(25)]
    assert len(seen) == len(clip.at(25)) == int(np.ceil((times[-1] + 1 / rate) * 25 - 0.01))
    for i, level in enumerate(seen):
        shown = np.flatnonzero(np.round(times, 3) <= (i + 0.5) / 25 + 1e-6)[-1]
        assert abs(level - (10 + 3 * shown)) <= 1, f"frame {i}"
    assert clip.rate == pytest.approx(rate, rel=0.02)


def test_variable_rate_is_read_by_time_not_by_count(tmp_path):
    times = [0, 0.04, 0.5, 0.54, 0.9]
    clip = media.open_clip(write_clip(tmp_path / "v.mkv", times, levels=[20, 60, 100, 140, 180]))
    seen = [int(f[20, 20, 0]) for f in clip.at(25)]
    assert abs(seen[8] - 60) <= 2 and abs(seen[12] - 100) <= 2 and abs(seen[20] - 140) <= 2


def test_a_part_of_the_grid_equals_the_whole(tmp_path):
    clip = media.open_clip(write_clip(tmp_path / "a.mkv", np.arange(60) / 30))
    whole = [f[0, 0, 0] for f in clip.at(25)]
    part = [f[0, 0, 0] for f in clip.at(25).iterate(21, 33)]
    assert part == whole[21:33]


def test_written_video_lasts_as_long_as_its_sound_and_carries_tags(tmp_path):
    tone = Sound((0.3 * np.sin(np.arange(16_000 * 2) * 0.2)).astype(np.float32), 16_000)
    path = tmp_path / "o.mp4"
    with media.VideoWriter(path, 64, 48, sound=tone, metadata={"vocalface_method": "test"}) as video:
        assert not path.exists(), "nothing appears before the end"
        for k in range(50):
            video.write(np.full((48, 64, 3), 5 * k, np.uint8))
    clip = media.open_clip(path)
    heard = clip.speech(16_000)
    assert abs(heard.seconds - 2) <= 0.04 and abs(clip.seconds - 2) <= 0.04 and len(clip.at(25)) == 50
    with av.open(str(path)) as container:
        assert container.metadata["vocalface_method"] == "test"


def test_picture_and_sound_stay_together(tmp_path):
    samples = np.zeros(32_000, np.float32)
    samples[16_000:16_400] = 0.8  # a click at 1 s
    path = tmp_path / "sync.mp4"
    with media.VideoWriter(path, 64, 48, sound=Sound(samples, 16_000)) as video:
        for k in range(50):
            video.write(np.full((48, 64, 3), 250 if k == 25 else 0, np.uint8))
    clip = media.open_clip(path)
    flash = int(np.argmax([f.mean() for f in clip.at(25)]))
    loud = np.abs(clip.speech(16_000).samples)
    click = np.flatnonzero(loud > 0.3 * loud.max())[0] / 16_000
    assert flash == 25 and abs(click - 1.0) < 0.02


def test_colours_survive(tmp_path):
    path = tmp_path / "c.mp4"
    colors = [(200, 40, 30), (20, 180, 60), (30, 50, 210), (128, 128, 128)]
    with media.VideoWriter(path, 64, 64, crf=4) as video:
        for color in colors:
            for _ in range(3):
                video.write(np.full((64, 64, 3), color, np.uint8))
    seen = [f[32, 32] for f in media.open_clip(path).at(25)][1::3]
    assert np.abs(np.array(seen, int) - np.array(colors)).max() <= 3


def test_an_exception_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), media.VideoWriter(tmp_path / "x.mp4", 64, 48) as video:
        video.write(np.zeros((48, 64, 3), np.uint8))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_alpha_needs_a_container_that_holds_it(tmp_path):
    with pytest.raises(ConfigError, match="alpha"):
        media.VideoWriter(tmp_path / "a.mp4", 64, 48, alpha=True)
    with media.VideoWriter(tmp_path / "a.mov", 64, 48, alpha=True) as video:
        for _ in range(3):
            video.write(np.full((48, 64, 4), (200, 100, 50, 128), np.uint8))
    with av.open(str(tmp_path / "a.mov")) as container:
        frame = next(container.decode(video=0)).reformat(format="rgba").to_ndarray()
    assert np.abs(frame[20, 20].astype(int) - [200, 100, 50, 128]).max() <= 4


@pytest.mark.parametrize("content", [b"", b"this is text, not a film\n" * 50])
def test_what_is_no_video_is_said_in_three_lines(tmp_path, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError) as error:
        media.open_clip(path)
    assert len(str(error.value).splitlines()) == 3 and "bad.mp4" in str(error.value)


def test_truncated_and_absent_files(tmp_path):
    path = write_clip(tmp_path / "t.mp4", np.arange(40) / 25)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(MediaError):
        media.open_clip(path)
    with pytest.raises(MediaError, match="no such file"):
        media.open_clip(tmp_path / "none.mp4")
    with pytest.raises(OutputError, match="folder"):
        media.VideoWriter(tmp_path / "no" / "x.mp4", 64, 48)


def test_no_sound_track(tmp_path):
    clip = media.open_clip(write_clip(tmp_path / "s.mp4", np.arange(30) / 25))
    assert not clip.has_sound
    with pytest.raises(MediaError, match="no sound track"):
        clip.speech()


def test_sound_of_any_rate_and_channels(tmp_path):
    for rate in (8_000, 44_100, 48_000):
        tone = Sound((0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32), rate)
        heard = media.read_sound(media.write_sound(tmp_path / f"{rate}.wav", tone), 16_000)
        assert abs(len(heard.samples) - 16_000) <= 32
        spectrum = np.abs(np.fft.rfft(heard.samples[:16_000]))
        assert abs(int(spectrum.argmax()) - 440) <= 1


@pytest.mark.parametrize("mode", ["labels", "gray"])
def test_gray_layers_are_lossless_and_seekable(tmp_path, mode):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (48, 64), np.uint8) for _ in range(60)]
    with media.LayerWriter(tmp_path / "l.mkv", 64, 48, mode) as layer:
        for f in frames:
            layer.write(f)
    back = list(media.read_layer(tmp_path / "l.mkv"))
    assert len(back) == 60 and all(np.array_equal(a, b) for a, b in zip(frames, back))
    part = list(media.read_layer(tmp_path / "l.mkv", 37, 41))
    assert len(part) == 4 and np.array_equal(part[0], frames[37])


def test_crop_keeps_places(tmp_path):
    y, x = np.mgrid[0:120, 0:160]
    image = np.stack([x, y, x * 0 + 50], axis=-1).astype(np.uint8)
    same = media.crop(image, CropBox(20, 10, 64), 64)
    assert np.array_equal(same, image[10:74, 20:84])
    small = media.crop(image, CropBox(20, 10, 64), 32)  # pixel (0, 0) covers x = 20..21: mean 20.5
    assert np.abs(small[8:24, 8:24, 0].astype(float) - (20.5 + 2 * np.arange(8, 24))).max() <= 1.0
    shifted = media.crop(image, CropBox(20.5, 10.0, 64), 64)
    assert np.abs(shifted[10:50, 10:50, 0].astype(float) - (20.5 + np.arange(10, 50))).max() <= 1.0
    over = media.crop(image, CropBox(-10, -10, 64), 64)
    assert (over[:10, :10] == image[0, 0]).all()


def test_paste_back_is_exact_inside_and_untouched_outside():
    frame = np.full((100, 120, 3), 40, np.uint8)
    patch = np.full((64, 64, 3), 200, np.uint8)
    out = media.paste_back(frame, patch, CropBox(30, 20, 64), 0.1)
    assert (out[52, 62] == 200).all() and (out[:20] == 40).all() and (out[:, :30] == 40).all()
    assert 40 < out[52, 31, 0] < 200


def test_pictures_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    for channels in (3, 4):
        image = rng.integers(0, 256, (20, 30, channels), np.uint8)
        media.write_image(tmp_path / "a.png", image)
        assert np.array_equal(media.read_image(tmp_path / "a.png", alpha=channels == 4), image)
    with pytest.raises(MediaError):
        media.read_image(tmp_path)
