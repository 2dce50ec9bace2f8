"""Odd portraits and odd voices: each gets its video, or three lines and no file."""

import struct
import zlib

import numpy as np
import pytest
from test_animate import SIZE, portrait, psnr

from vocalface import media
from vocalface.errors import FaceError, MediaError, VocalfaceError
from vocalface.observe.landmarks import Face
from vocalface.sadtalker import portrait as portraits
from vocalface.sadtalker.drive import Puppet, animate
from vocalface.sadtalker.motion import Pose
from vocalface.sadtalker.rig import rotation
from vocalface.types import Sound


def face(points) -> Face:
    return Face(np.asarray(points, np.float32), np.zeros(52, np.float32))


def found(image):
    return [face(portrait().landmarks * (len(image) / SIZE))]


def tone(seconds, rate=16_000, gain=0.3) -> Sound:
    t = np.arange(round(seconds * rate)) / rate
    return Sound((gain * np.sin(2 * np.pi * 160 * t) * (1 + np.sin(25 * t))).astype(np.float32), rate)


def png(path, rows: np.ndarray, depth: int, kind: int, palette: np.ndarray | None = None):
    """A PNG file of its own making: `rows` [H, bytes a row]; colour type 0 grey, 2 RGB, 3 palette."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    width = rows.shape[1] * 8 // depth // {0: 1, 2: 3, 3: 1}[kind]
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0))
    if palette is not None:
        body += chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b""))
    return path


# ------------------------------------------------------------------------------------------------------------ portraits
def test_a_palette_and_sixteen_bits_show_the_same_face(tmp_path):
    image = portrait().image
    levels = np.stack(np.meshgrid(*[np.linspace(0, 255, n) for n in (8, 8, 4)], indexing="ij"), -1).reshape(-1, 3)
    index = ((image / 255 * (7, 7, 3)).round() @ (32, 4, 1)).astype(np.uint8)
    deep = (image.astype(">u2") * 257).reshape(SIZE, -1).view(np.uint8)
    plain = portraits.load(media.write_image(tmp_path / "a.png", image), size=SIZE, search=found)
    palette = portraits.load(png(tmp_path / "p.png", index, 8, 3, levels), size=SIZE, search=found)
    sixteen = portraits.load(png(tmp_path / "s.png", deep, 16, 2), size=SIZE, search=found)
    assert psnr(palette.image, plain.image) > 20 and psnr(sixteen.image, plain.image) > 45


def test_a_grey_picture_and_a_moving_one_give_their_first_frame(tmp_path):
    grey = portraits.load(png(tmp_path / "g.png", portrait().image[..., 1], 8, 0), size=SIZE, search=found)
    assert np.ptp(grey.image.astype(int), axis=2).max() <= 2
    with media.VideoWriter(tmp_path / "m.mp4", SIZE, SIZE, crf=4) as video:
        for shade in (0, 60):
            video.write(np.clip(portrait().image.astype(int) - shade, 0, 255).astype(np.uint8))
    assert psnr(portraits.load(tmp_path / "m.mp4", size=SIZE, search=found).image, portrait().image) > 30


def test_ink_is_shown_as_light(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow to write CMYK")
    image.fromarray(portrait().image).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    loaded = portraits.load(tmp_path / "c.jpg", size=SIZE, search=found)
    assert psnr(loaded.image, portrait().image) > 20


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_a_moving_picture_gives_its_first_frame_or_is_refused(tmp_path, suffix):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow to write moving pictures")
    first, second = (
        image.fromarray(np.clip(portrait().image.astype(int) - s, 0, 255).astype(np.uint8)) for s in (0, 70)
    )
    first.save(tmp_path / f"m.{suffix}", save_all=True, append_images=[second], duration=400)
    if suffix == "webp":  # FFmpeg reads no moving WebP
        with pytest.raises(MediaError, match="cannot be read"):
            portraits.load(tmp_path / "m.webp", size=SIZE, search=found)
        return
    assert psnr(portraits.load(tmp_path / f"m.{suffix}", size=SIZE, search=found).image, portrait().image) > 18


def test_a_turned_photograph_stands_upright(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow to write EXIF")
    tags = image.Exif()
    tags[274] = 6
    image.fromarray(np.ascontiguousarray(np.rot90(portrait().image))).save(tmp_path / "E.JPG", exif=tags, quality=95)
    assert psnr(portraits.load(tmp_path / "E.JPG", size=SIZE, search=found).image, portrait().image) > 28


def test_no_face_is_said_and_nothing_is_written(tmp_path):
    picture = media.write_image(tmp_path / "p.png", portrait().image)
    with pytest.raises(FaceError, match="no face") as error:
        animate(picture, tone(0.5), tmp_path / "o.mp4", search=lambda image: [])
    assert len(str(error.value).splitlines()) == 3 and [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_transparency_lies_over_grey(tmp_path):
    image = np.dstack([portrait().image, np.full((SIZE, SIZE), 255, np.uint8)])
    image[:40, :, 3] = 0
    (tmp_path / "t.png").write_bytes(media.encode_image(image))
    loaded = portraits.load(tmp_path / "t.png", size=SIZE, search=found)
    assert np.abs(loaded.image[:30].astype(int) - portraits.GROUND).max() <= 3


def test_a_huge_picture_is_reduced_while_it_is_read_and_a_monstrous_one_refused_unread(tmp_path):
    huge = png(tmp_path / "h.png", np.full((8000, 8000 * 3 // 3), 120, np.uint8), 8, 0)
    assert media.read_image(huge, reduce_to=portraits.LARGEST).shape == (4096, 4096, 3)
    loaded = portraits.load(huge, size=64, search=found)
    assert loaded.image.shape == (64, 64, 3) and loaded.box.side > 1000
    with pytest.raises(MediaError, match="20000"):
        media.read_image(png(tmp_path / "w.png", np.zeros((4, 20000), np.uint8), 8, 0))


@pytest.mark.parametrize("kind", ["folder", "text", "absent", "empty"])
def test_what_is_no_picture_is_said(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "folder":
        path.mkdir()
    elif kind != "absent":
        path.write_text("not a picture" if kind == "text" else "")
    with pytest.raises(VocalfaceError) as error:
        animate(path, tone(0.5), tmp_path / "o.mp4", search=found)
    assert len(str(error.value).splitlines()) == 3 and not (tmp_path / "o.mp4").exists()
    if kind != "absent":
        assert "PNG" in error.value.fix
    if kind in ("absent", "folder"):  # said before a network is loaded, or found to be missing
        with pytest.raises(MediaError):
            portraits.load(path)


def test_a_tiny_face_is_refused_and_of_several_the_largest_speaks(tmp_path):
    picture = media.write_image(tmp_path / "p.png", portrait().image)
    with pytest.raises(FaceError, match="20 px"):
        portraits.load(
            picture, search=lambda image: [face(portrait().landmarks * (20 / np.ptp(portrait().landmarks[:, 1])))]
        )
    two = portraits.load(picture, search=lambda image: [*found(image), face(portrait().landmarks * 0.3)])
    assert two.faces == 2 and two.box.side > 0.8 * SIZE


def test_a_face_at_the_edge_and_a_profile_still_move():
    edge = portrait().landmarks - (0.45 * SIZE, 0.2 * SIZE, 0)
    cut = portraits.cut(portrait().image, lambda image: [face(edge)], SIZE, "p.png")
    centre = portrait().landmarks.mean(0)
    profile = (portrait().landmarks - centre) @ rotation(1.25, 0, 0).T + centre
    for made in (cut, portraits.Portrait(portrait().image, profile.astype(np.float32), cut.box, 1)):
        puppet = Puppet(made)
        for pose in (Pose(), Pose(aperture=0.012, jaw=0.01, blink=1.0, angles=(0.1, 0.05, 0.02))):
            image = puppet.draw(pose)
            assert image.shape == made.image.shape and image.std() > 5


# --------------------------------------------------------------------------------------------------------------- voices
@pytest.mark.parametrize(
    ("sound", "frames"),
    [
        (tone(0.05), 5),  # padded to 0.2 s
        (Sound(np.zeros(16_000, np.float32), 16_000), 25),
        (tone(0.6, gain=4.0), 15),  # clipped
    ],
)
def test_short_silent_and_clipped_speech_gives_its_video(tmp_path, sound, frames):
    clipped = Sound(np.clip(sound.samples, -1, 1), sound.rate)
    assert animate(portrait(), clipped, tmp_path / "o.mp4").frames == frames


@pytest.mark.parametrize(("rate", "channels"), [(192_000, 1), (48_000, 6)])
def test_any_rate_and_any_number_of_channels_speak(tmp_path, rate, channels):
    one = (tone(0.6, rate).samples * 32767).astype("<i2")
    data = np.repeat(one[:, None], channels, axis=1).tobytes()
    head = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data
    (tmp_path / "v.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    made = animate(portrait(), tmp_path / "v.wav", tmp_path / "o.mp4")
    assert made.frames == 15 and media.sound_seconds(tmp_path / "o.mp4") == pytest.approx(0.6, abs=0.05)


def test_no_sound_at_all_is_said(tmp_path):
    with media.VideoWriter(tmp_path / "mute.mp4", SIZE, SIZE) as video:
        video.write(portrait().image)
    (tmp_path / "empty.wav").write_bytes(
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\0\0\0\0"
    )
    for voice in ("mute.mp4", "empty.wav"):
        with pytest.raises(MediaError) as error:
            animate(portrait(), tmp_path / voice, tmp_path / "o.mp4")
        assert len(str(error.value).splitlines()) == 3 and not (tmp_path / "o.mp4").exists()
