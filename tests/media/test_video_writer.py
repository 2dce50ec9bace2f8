"""Files that appear whole, as long as their sound, in the right colours."""

import os
import sys

import av
import numpy as np
import pytest
from footage import write_clip
from test_soundtrack import click, onset, tone

from vocalface import media
from vocalface.errors import ConfigError, OutputError, VocalfaceError
from vocalface.types import Sound, frames_for

BLACK = np.zeros((48, 64, 3), np.uint8)


def lengths(path):
    """Seconds of picture and sound as the container states them."""
    with av.open(str(path)) as container:
        return tuple(float(s.duration * s.time_base) for s in (container.streams.video[0], container.streams.audio[0]))


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.37, 2.013])
def test_picture_and_sound_end_together(tmp_path, rate, seconds):
    sound = Sound(tone(seconds, rate)[0], rate)
    path = tmp_path / "a.mp4"
    with media.VideoWriter(path, 64, 48, sound=sound) as video:
        for _ in range(frames_for(len(sound.samples), rate)):
            video.write(BLACK)
    picture, heard = lengths(path)
    assert 0 <= picture - seconds < 0.04 and abs(heard - picture) < 0.04
    assert abs(media.read_sound(path).seconds - seconds) <= 0.04


@pytest.mark.parametrize("fps", [22.13, 24000 / 1001, 29.97, 50])
def test_other_frame_rates(tmp_path, fps):
    with media.VideoWriter(tmp_path / "r.mp4", 64, 48, fps) as video:
        for _ in range(40):
            video.write(BLACK)
    clip = media.open_clip(tmp_path / "r.mp4")
    assert clip.rate == pytest.approx(fps, rel=1e-3) and clip.seconds == pytest.approx(40 / fps, rel=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_click_and_flash_coincide_and_tags_survive(tmp_path, suffix):
    sound = Sound(click(2, 16_000, 1.0)[0], 16_000)
    path = tmp_path / f"s{suffix}"
    with media.VideoWriter(path, 64, 48, sound=sound, metadata={"comment": "c", "vocalface_head": 7}) as video:
        for k in range(50):
            video.write(BLACK + np.uint8(240 * (k == 25)))
    clip = media.open_clip(path)
    assert int(np.argmax([f.mean() for f in clip.at(25)])) == 25
    assert abs(onset(clip.speech()) - 1.0) < 0.005
    with av.open(str(path)) as container:
        tags = {k.lower(): v for k, v in container.metadata.items()}
    assert tags["comment"] == "c" and tags["vocalface_head"] == "7"


@pytest.mark.parametrize("copy", [False, True])
def test_sound_of_another_video_keeps_its_step(tmp_path, copy):
    times = 0.2 + np.arange(40) / 25
    source = write_clip(tmp_path / "s.mkv", times, sound=(click(1.4, 48_000, 0.7), 48_000, 0.5))
    # on the picture's clock the click is at 0.5 + 0.7 - 0.2 = 1.0 s
    if copy:
        first = tmp_path / "aac.mp4"
        with media.VideoWriter(first, 64, 48, sound=source) as video:
            for _ in range(40):
                video.write(BLACK)
        source = first
    path = tmp_path / "o.mp4"
    with media.VideoWriter(path, 64, 48, sound=source, copy_sound=copy) as video:
        for _ in range(40):
            video.write(BLACK)
    assert abs(onset(media.open_clip(path).speech()) - 1.0) < 0.005
    picture, heard = lengths(path)
    assert abs(picture - 1.6) < 0.001 and abs(heard - picture) < 0.06
    if copy:
        packets = []
        for file in (source, path):
            with av.open(str(file)) as container:
                packets.append([bytes(p) for p in container.demux(audio=0) if p.size])
        shared = min(map(len, packets))
        assert shared > 60 and packets[0][:shared] == packets[1][:shared], "not one byte is coded anew"


def test_long_sound_is_cut_and_short_sound_padded(tmp_path):
    for seconds in (0.5, 5.0):
        path = tmp_path / "p.mp4"
        with media.VideoWriter(path, 64, 48, sound=Sound(tone(seconds, 16_000)[0], 16_000)) as video:
            for _ in range(50):
                video.write(BLACK)
        assert lengths(path) == pytest.approx((2.0, 2.0), abs=0.04)


def test_flat_colours_come_back_within_two_levels(tmp_path):
    grid = np.stack(np.meshgrid(*[np.array([0, 60, 128, 200, 255], np.uint8)] * 3), axis=-1).reshape(-1, 3)
    path = tmp_path / "c.mp4"
    with media.VideoWriter(path, 32, 32, crf=1) as video:
        for color in grid:
            video.write(np.broadcast_to(color, (32, 32, 3)).copy())
    seen = np.array([f[16, 16] for f in media.open_clip(path).at(25)], int)
    error = seen - grid
    assert np.abs(error).max() <= 2 and np.abs(error.mean(0)).max() < 0.5, "no level is lost on average"
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (int(context.colorspace), int(context.color_primaries), int(context.color_trc)) == (1, 1, 1)


@pytest.mark.parametrize(("suffix", "decoder"), [(".mov", None), (".webm", "libvpx-vp9")])
def test_alpha_survives(tmp_path, suffix, decoder):
    image = np.full((48, 64, 4), (200, 100, 50, 255), np.uint8)
    image[:, :32, 3] = 64
    path = tmp_path / f"a{suffix}"
    with media.VideoWriter(path, 64, 48, alpha=True) as video:
        for _ in range(3):
            video.write(image)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = av.CodecContext.create(decoder, "r") if decoder else stream.codec_context
        frame = next(f for packet in container.demux(stream) for f in context.decode(packet))
    alpha = frame.reformat(format="rgba").to_ndarray()[..., 3].astype(int)
    assert abs(alpha[24, 8] - 64) <= 4 and alpha[24, 56] >= 251
    colors = media.open_clip(path).at(25)
    assert np.abs(next(iter(colors))[24, 8].astype(int) - [200, 100, 50]).max() <= 4


def test_lossless_is_lossless_and_odd_sizes_pass(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 37, 51, 3), np.uint8)
    with media.VideoWriter(tmp_path / "l.mkv", 51, 37, codec="ffv1") as video:
        for frame in frames:
            video.write(frame)
    assert np.array_equal(list(media.open_clip(tmp_path / "l.mkv").at(25)), frames)
    with media.VideoWriter(tmp_path / "o.mp4", 51, 37) as video:
        video.write(frames[0])
    clip = media.open_clip(tmp_path / "o.mp4")
    assert (clip.width, clip.height) == (52, 38)


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("a.gif", {}, ConfigError), ("a.mp4", {"alpha": True}, ConfigError), ("a.mp4", {"codec": "nope"}, ConfigError),
        ("none/a.mp4", {}, OutputError), ("file.txt/a.mp4", {}, OutputError), ("folder.mp4", {}, OutputError),
        ("a.mp4", {"sound": "none.wav"}, VocalfaceError),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_said_at_once(tmp_path, name, options, kind):
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "folder.mp4").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind) as error:
        media.VideoWriter(tmp_path / name, 64, 48, **options)
    assert error.value.what and error.value.fix and sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError):
        media.VideoWriter(tmp_path / "a.mp4", 64, 48)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full")
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_full_disk_is_an_error_of_ours_and_leaves_nothing(tmp_path, suffix):
    (tmp_path / f".f{suffix}.part{suffix}").symlink_to("/dev/full")
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    with pytest.raises(OutputError), media.VideoWriter(tmp_path / f"f{suffix}", 256, 256, crf=1) as video:
        for _ in range(30):
            video.write(noise)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_nothing_stays_of_an_interrupted_or_empty_video(tmp_path, suffix):
    before = tmp_path / f"x{suffix}"
    before.write_text("an older result")
    sound = Sound(tone(1, 16_000)[0], 16_000)
    with pytest.raises(KeyboardInterrupt), media.VideoWriter(before, 64, 48, sound=sound) as video:
        video.write(BLACK)
        raise KeyboardInterrupt
    with pytest.raises(OutputError, match="no frame"), media.VideoWriter(before, 64, 48, sound=sound):
        pass
    with pytest.raises(ConfigError), media.VideoWriter(before, 64, 48) as video:
        video.write(BLACK[:20])
    assert list(tmp_path.iterdir()) == [before] and before.read_text() == "an older result"
