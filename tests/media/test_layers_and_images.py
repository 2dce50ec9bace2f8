"""Layer videos that give back what they took, and still pictures."""

import struct

import numpy as np
import pytest

from vocalface import media
from vocalface.errors import ConfigError, MediaError, OutputError

RNG = np.random.default_rng(1)


def write_layer(path, frames, mode):
    with media.LayerWriter(path, frames[0].shape[1], frames[0].shape[0], mode) as layer:
        for frame in frames:
            layer.write(frame)
    return path


def test_colour_layers_are_nearly_lossless_and_begin_anywhere(tmp_path):
    y, x = np.mgrid[0:48, 0:64]
    frames = [np.stack([x * 3, y * 4, (x + y + 2 * k) % 256], -1).astype(np.uint8) for k in range(120)]
    path = write_layer(tmp_path / "l.mkv", frames, "rgb")
    back = list(media.read_layer(path))
    assert len(back) == 120
    error = np.array(back, int) - np.array(frames)
    assert np.sqrt((error**2).mean()) < 2.5
    for start in (1, 49, 50, 51, 119):
        part = list(media.read_layer(path, start, start + 2))
        assert len(part) == min(2, 120 - start) and np.array_equal(part[0], back[start])
    assert list(media.read_layer(path, 200)) == [] and list(media.read_layer(path, 5, 5)) == []


def test_a_layer_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(ConfigError, match="expected"):
        write_layer(tmp_path / "l.mkv", [np.zeros((8, 8), np.uint8), np.zeros((8, 9), np.uint8)], "gray")
    with pytest.raises(ConfigError, match="mode"):
        media.LayerWriter(tmp_path / "l.mkv", 8, 8, "depth")
    with pytest.raises(OutputError):
        media.LayerWriter(tmp_path / "none" / "l.mkv", 8, 8)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_layer_is_said_and_never_shifts(tmp_path):
    frames = [RNG.integers(0, 256, (48, 64), np.uint8) for _ in range(60)]
    path = write_layer(tmp_path / "l.mkv", frames, "gray")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 9000] = bytes(9000)
    path.write_bytes(data)
    seen = []
    with pytest.raises(MediaError, match="damaged"):
        for frame in media.read_layer(path):
            seen.append(frame)
    sound = [np.array_equal(a, b) for a, b in zip(seen, frames)]
    assert 20 < len(seen) < 60 and all(sound[:20])
    with pytest.raises(MediaError, match="no such file"):
        list(media.read_layer(tmp_path / "none.mkv"))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (20, 30), (37, 51)])
def test_png_is_exact(tmp_path, channels, size):
    image = RNG.integers(0, 256, (*size, channels), np.uint8)
    image = image[..., 0] if channels == 1 else image
    path = media.write_image(tmp_path / "a.png", image)
    back = media.read_image(path, alpha=channels == 4)
    assert np.array_equal(back, np.repeat(image[..., None], 3, -1) if channels == 1 else image)
    if channels < 4:
        assert (media.read_image(path, alpha=True)[..., 3] == 255).all()


def test_jpeg_is_close_and_unbiased(tmp_path):
    y, x = np.mgrid[0:64, 0:80]
    image = np.stack([x * 3, y * 4, 255 - x - y], -1).astype(np.uint8)
    error = media.read_image(media.write_image(tmp_path / "a.jpg", image)).astype(int) - image
    assert np.abs(error).max() <= 6 and np.abs(error.mean((0, 1))).max() < 1


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [
        (1, lambda a: a), (2, lambda a: a[:, ::-1]), (3, lambda a: a[::-1, ::-1]), (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)), (6, lambda a: np.rot90(a, -1)), (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)  # fmt: skip
def test_exif_orientation_is_honoured(tmp_path, orientation, shown):
    image = np.full((32, 48, 3), 30, np.uint8)
    image[:12, :16], image[:12, -16:] = 220, 120
    jpeg = media.encode_image(image, ".jpg")
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    (tmp_path / "e.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    seen = media.read_image(tmp_path / "e.jpg")
    assert seen.shape == shown(image).shape and np.abs(seen.astype(int) - shown(image)).max() <= 8


def test_pictures_that_cannot_be(tmp_path):
    (tmp_path / "t.png").write_text("no picture")
    with pytest.raises(MediaError):
        media.read_image(tmp_path / "t.png")
    image = np.zeros((8, 8, 3), np.uint8)
    for bad in (image.astype(np.float32), np.zeros((8, 8, 2), np.uint8)):
        with pytest.raises(ConfigError):
            media.write_image(tmp_path / "a.png", bad)
    with pytest.raises(ConfigError, match="png"):
        media.write_image(tmp_path / "a.tiff", image)
    with pytest.raises(OutputError):
        media.write_image(tmp_path / "none" / "a.png", image)
    assert [p.name for p in tmp_path.iterdir()] == ["t.png"]
