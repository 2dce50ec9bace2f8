"""Crops lie where they say, between pixels too, and go back where they came from."""

import numpy as np
import pytest

from vocalface import media
from vocalface.types import CropBox

RNG = np.random.default_rng(0)
# smooth enough that what is lost in resampling is little
Y, X = np.mgrid[0:240, 0:320].astype(float)
SMOOTH = np.stack([X / 320, Y / 240, 0.5 + 0.5 * np.sin(X / 25) * np.cos(Y / 31)], axis=-1)
SMOOTH = (SMOOTH * 255).round().astype(np.uint8)


def area(image, box, size):
    """Mean of the image over each output pixel, by summed areas in float64: the definition."""
    out = image.astype(float)
    for axis, start in ((0, box.y), (1, box.x)):
        sums = np.concatenate([np.zeros_like(out.take([0], axis)), out.cumsum(axis)], axis)
        at = np.clip(start + np.arange(size + 1) * box.side / size, 0, out.shape[axis])
        low = np.minimum(np.floor(at).astype(int), out.shape[axis] - 1)
        share = (at - low).reshape([-1 if k == axis else 1 for k in range(out.ndim)])
        out = np.diff(sums.take(low, axis) + share * out.take(low, axis), axis=axis) * (size / box.side)
    return out


@pytest.mark.parametrize("box", [CropBox(20, 10, 200), CropBox(0, 0, 240), CropBox(31, 7, 133)])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_shrinking_takes_the_mean_of_what_a_pixel_covers(box, channels):
    image = RNG.integers(0, 256, (240, 320, channels or 1), np.uint8)
    image = image[..., 0] if channels is None else image
    out = media.crop(image, box, 96)
    assert out.shape == (96, 96, *image.shape[2:]) and out.dtype == np.uint8
    assert np.abs(out - area(image, box, 96)).max() <= 1.5


def test_a_box_between_pixels_is_as_exact():
    box = CropBox(20.3, 10.7, 199.2)
    assert np.abs(media.crop(SMOOTH, box, 96) - area(SMOOTH, box, 96)).max() <= 1
    noise = RNG.integers(0, 256, (240, 320, 3), np.uint8)
    assert np.abs(media.crop(noise, box, 96) - area(noise, box, 96)).max() <= 1


@pytest.mark.parametrize("box", [CropBox(40, 30, 64), CropBox(40.5, 30.25, 64), CropBox(40, 30, 50.5)])
def test_enlarging_keeps_places(box):
    out = media.crop(SMOOTH, box, 128)
    k = 128 / box.side
    column = np.clip(np.round((70 - box.x) * k - 0.5).astype(int), 0, 127)  # the pixel around x = 70
    at = box.x + (column + 0.5) / k
    assert abs(float(out[64, column, 0]) - (at - 0.5) / 320 * 255) <= 1.0


@pytest.mark.parametrize("shift", [0, 0.5])
def test_over_the_edge_the_edge_repeats(shift):
    out = media.crop(SMOOTH, CropBox(-40 + shift, -20 + shift, 160), 160)
    assert np.abs(out[:19, 60].astype(int) - SMOOTH[0, 20]).max() <= 2
    assert np.abs(out[60, :39].astype(int) - SMOOTH[40, 0]).max() <= 2
    far = media.crop(SMOOTH, CropBox(1000 + shift, 1000 + shift, 32), 32)
    assert (far == SMOOTH[-1, -1]).all()


def test_views_and_unusual_memory_are_read_right():
    flipped = SMOOTH[:, ::-1]
    assert np.array_equal(
        media.crop(flipped, CropBox(8, 4, 128), 64), media.crop(flipped.copy(), CropBox(8, 4, 128), 64)
    )
    every = SMOOTH[::2, ::2]
    assert np.array_equal(media.resize(every, 40, 30), media.resize(every.copy(), 40, 30))


@pytest.mark.parametrize(
    "box", [CropBox(60, 40, 128), CropBox(60.4, 39.7, 128.0), CropBox(60, 40, 96), CropBox(-30, -20, 128)]
)
@pytest.mark.parametrize("mask", [0.1, "mask"])
def test_a_crop_pasted_back_changes_nothing(box, mask):
    mask = np.full((128, 128), 1.0) if mask == "mask" else mask
    out = media.paste_back(SMOOTH, media.crop(SMOOTH, box, 128), box, mask)
    inside = np.abs(out.astype(int) - SMOOTH)[max(0, int(box.y) + 3) : 130, max(0, int(box.x) + 3) : 150]
    assert inside.max() <= 3 and inside.mean() < 0.5


def test_the_rim_fades_and_the_rest_is_untouched():
    frame = np.full((100, 120, 3), 40, np.uint8)
    patch = np.full((64, 64, 3), 200, np.uint8)
    out = media.paste_back(frame, patch, CropBox(30, 20, 64), 0.25)
    row = out[52, 30:94, 0].astype(int)
    assert (np.diff(row[:32]) >= 0).all() and (np.diff(row[32:]) <= 0).all() and (row[17:47] == 200).all()
    assert np.abs(row - row[::-1]).max() <= 1 and 40 < row[0] + 1 < 60
    untouched = np.ones((100, 120), bool)
    untouched[20:84, 30:94] = False
    assert (out[untouched] == 40).all() and (frame == 40).all()


def test_a_mask_is_obeyed_pixel_by_pixel():
    frame, patch = np.full((64, 64, 3), 10, np.uint8), np.full((64, 64, 3), 210, np.uint8)
    mask = np.zeros((64, 64), np.float32)
    mask[:, 20:40], mask[:, 40:50] = 1.0, 0.5
    out = media.paste_back(frame, patch, CropBox(0, 0, 64), mask)
    assert (
        (out[:, :20] == 10).all()
        and (out[:, 20:40] == 210).all()
        and np.abs(out[:, 40:50].astype(int) - 110).max() <= 1
    )


@pytest.mark.parametrize("box", [CropBox(500, 500, 64), CropBox(-90, -90, 64)])
def test_a_box_outside_the_frame_changes_nothing(box):
    assert np.array_equal(media.paste_back(SMOOTH, SMOOTH[:64, :64], box), SMOOTH)


def test_over_is_rounded_to_nearest_for_every_alpha():
    top, alpha = (np.ascontiguousarray(a) for a in np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2))
    top = np.stack([top, 255 - top, top // 2], -1)
    below = np.random.default_rng(0).integers(0, 256, top.shape, np.uint8)
    share = alpha[..., None] / 255
    np.testing.assert_array_equal(media.over(top, below, alpha), np.rint(top * share + below * (1 - share)))
    np.testing.assert_array_equal(media.over(top, 128, alpha), np.rint(top * share + 128 * (1 - share)))
    np.testing.assert_array_equal(media.over(top, below, np.zeros_like(alpha)), below)
    np.testing.assert_array_equal(media.over(top[5], below[5], alpha[5]), media.over(top, below, alpha)[5])
    assert media.over(top[:0], below[:0], alpha[:0]).shape == (0, 256, 3)
