"""Clips as phones, screen recorders and broken disks make them."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from footage import show_through, write_clip

from vocalface import media
from vocalface.errors import MediaError

TIMES = np.arange(30) / 25
QUARTERS = {90: [[0, -1], [1, 0]], 180: [[-1, 0], [0, -1]], -90: [[0, 1], [-1, 0]]}


def corner_image(w=64, h=48):
    """Dark, with a bright top left corner and a middling top right one."""
    image = np.full((h, w, 3), 20, np.uint8)
    image[: h // 3, : w // 3] = 220
    image[: h // 3, -w // 3 :] = 120
    return image


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_turned_phone_stands_upright(tmp_path, rotation):
    shown = corner_image()
    stored = np.ascontiguousarray(np.rot90(shown, -rotation // 90))
    size = stored.shape[1::-1]
    path = write_clip(tmp_path / "r.mp4", TIMES, images=[stored] * 30, size=size)
    show_through(path, QUARTERS[rotation])
    clip = media.open_clip(path)
    assert (clip.width, clip.height) == (64, 48) and clip.rotation == rotation % 360
    image = next(iter(clip.at(25)))
    assert image.shape == shown.shape and np.abs(image.astype(int) - shown).mean() < 3
    assert next(clip.frames()).planes()[0].shape == stored.shape[:2]


def test_a_mirrored_selfie_is_mirrored(tmp_path):
    path = write_clip(tmp_path / "m.mp4", TIMES[:2], images=[corner_image()] * 2)
    show_through(path, [[-1, 0], [0, 1]])
    image = next(iter(media.open_clip(path).at(25)))
    assert np.abs(image.astype(int) - corner_image()[:, ::-1]).mean() < 3


def test_pixels_become_square(tmp_path):
    path = write_clip(tmp_path / "p.mp4", TIMES, aspect=Fraction(4, 3), size=(72, 48))
    clip = media.open_clip(path)
    assert (clip.width, clip.height) == (96, 48)
    assert next(iter(clip.at(25))).shape == (48, 96, 3)


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p10le", "yuv422p"])
def test_deep_and_wide_formats(tmp_path, pix_fmt):
    path = write_clip(tmp_path / "d.mkv", TIMES, codec="ffv1", pix_fmt=pix_fmt)
    clip = media.open_clip(path)
    assert [abs(int(f[9, 9, 1]) - 10 - 3 * k) <= 1 for k, f in enumerate(clip.at(25))] == [True] * 30
    luma = next(clip.frames()).planes()[0]
    assert luma.dtype == (np.uint16 if "10" in pix_fmt else np.uint8) and luma.shape == (48, 64)


@pytest.mark.parametrize("space", [1, 5, 9])  # BT.709, BT.601, BT.2020
@pytest.mark.parametrize("reach", [1, 2])  # limited, full
def test_colour_tags_are_believed(tmp_path, space, reach):
    if space == 9 and not hasattr(Colorspace, "BT2020"):
        pytest.skip("this PyAV has no BT.2020 matrix")
    color = np.array([200, 60, 40])
    images = [np.broadcast_to(color, (48, 64, 3)).astype(np.uint8).copy()] * 3
    tags = {"colorspace": space, "color_range": reach}
    path = write_clip(tmp_path / "c.mp4", TIMES[:3], images=images, tags=tags, pix_fmt="yuv444p")
    assert np.abs(next(iter(media.open_clip(path).at(25)))[20, 20] - color).max() <= 2


@pytest.mark.parametrize("name", ["a.avi", "a.h264", "a.ts", "a.flv", "a.mov"])
def test_every_container_counts_the_same(tmp_path, name):
    path = tmp_path / name
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"crf": "1", "g": "12"}  # with B-frames
        for k in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 4 * k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    clip = media.open_clip(path)
    seen = [int(f[20, 20, 0]) for f in clip.at(25)]
    assert len(seen) == 50 and np.abs(np.array(seen) - 20 - 4 * np.arange(50)).max() <= 2
    assert [int(f[20, 20, 0]) for f in clip.at(25).iterate(33, 40)] == seen[33:40]
    assert clip.rate == pytest.approx(25) and clip.seconds == pytest.approx(2)


def test_a_cut_off_file_gives_what_it_holds(tmp_path):
    path = write_clip(tmp_path / "t.mkv", TIMES, size=(128, 96))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    seen = [int(f[20, 20, 0]) for f in media.open_clip(path).at(25)]
    assert 10 < len(seen) < 30 and np.abs(np.array(seen) - 10 - 3 * np.arange(len(seen))).max() <= 1


def test_damage_in_the_middle_costs_frames_but_not_the_clock(tmp_path):
    noise = np.random.default_rng(0).integers(0, 30, (30, 48, 64, 3), np.uint8)
    images = [image + np.uint8(5 * k) for k, image in enumerate(noise)]
    path = write_clip(tmp_path / "d.mkv", TIMES, images=images, codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    seen = [float(f.mean()) for f in media.open_clip(path).at(25)]
    assert len(seen) >= 20 and abs(seen[-1] - images[len(seen) - 1].mean()) < 3


def test_the_last_frame_stays_on_as_long_as_the_file_says(tmp_path):
    path = tmp_path / "l.mp4"
    write_clip(path, [0, 0.04, 0.08], levels=[30, 60, 90], last=1.0)
    clip = media.open_clip(path)
    assert len(clip.at(25)) in (27, 3), "as long as said, or one usual frame where the muxer dropped it"
    assert len(list(clip.at(25))) == len(clip.at(25))


def test_the_cover_of_a_song_is_no_video(tmp_path):
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("mp3", rate=44_100)
        sound.layout = "mono"
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj444p"
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        picture.pts = 0
        packets = cover.encode(picture.reformat(format="yuvj444p")) + cover.encode(None)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.float32), "fltp", "mono")
        tone.rate, tone.pts = 44_100, 0
        packets += sound.encode(tone) + sound.encode(None)
        for packet in packets:
            out.mux(packet)
    with pytest.raises(MediaError, match="no picture"):
        media.open_clip(path)
    assert media.read_sound(path).seconds == pytest.approx(1, abs=0.1)


def test_a_whole_view_is_never_held(tmp_path):
    clip = media.open_clip(write_clip(tmp_path / "a.mp4", TIMES))
    view = clip.at(25).iterate()
    first, second = next(view), next(view)
    assert first[0, 0, 0] != second[0, 0, 0], "frames are made one at a time"
