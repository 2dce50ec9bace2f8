from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from observe_scene import DARK, draw, template, wall
from scipy.ndimage import gaussian_filter

from vocalface.errors import AssetError
from vocalface.observe.masks import (
    CHIN,
    FACE_OVAL,
    WORK,
    ColourModel,
    FaceShape,
    PersonSegmenter,
    held,
    keep_person,
    matte,
    plate_range,
)
from vocalface.observe.plate import PlateBuilder, push_pull

SIZE = 256


def shape(**options) -> FaceShape:
    return FaceShape(template(SIZE, **options)[:, :2], SIZE)


def rolled(face: FaceShape, angle: float) -> FaceShape:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    return FaceShape(((face.landmarks - SIZE / 2) @ turn.T + SIZE / 2).astype(np.float32), SIZE)


def test_closed_lips_show_no_mouth():
    assert not shape(gap=0.0).mouth_interior().any()
    assert not shape(gap=0.9 / SIZE).mouth_interior().any()  # 0.9 px at 256 = 1.8 px at 512


def test_open_mouth_is_the_lips_polygon_grown():
    face = shape(gap=0.05)
    inside, polygon = face.mouth_interior(), face.fill(face.landmarks[[78, 81, 13, 311, 308, 402, 14, 178]]) > 0.5
    assert (inside | polygon == inside).all()
    assert inside.sum() < 2.2 * polygon.sum()


@pytest.mark.parametrize("angle", [0.0, 0.4, -0.4])
def test_jaw_parts_head_from_body_at_any_roll(angle):
    face = rolled(shape(), angle)
    above = face.above_jaw() > 0.5
    chin, down, right = face.landmarks[CHIN], face.down, face.right

    def at(point):
        x, y = np.floor(point).astype(int)
        return above[y, x]

    assert at(chin - 0.05 * face.height * down)
    assert not at(chin + 0.06 * face.height * down)
    middle = face.landmarks[list(FACE_OVAL)].mean(0)
    for side in (-1, 1):
        assert at(middle + side * 1.15 * face.half_width * right)  # ears
        assert not at(chin + side * 1.2 * face.half_width * right)  # shoulders


def test_face_coordinates_are_normalised():
    face = rolled(shape(), 0.3)
    u, v = face.coordinates(SIZE)
    x, y = np.floor(face.landmarks[CHIN]).astype(int)
    assert abs(u[y, x]) < 0.02 and abs(v[y, x]) < 0.02
    x, y = np.floor(face.landmarks[10]).astype(int)
    assert v[y, x] == pytest.approx(-1, abs=0.02)


def test_other_people_are_dropped():
    face = shape()
    person = np.zeros((WORK, WORK), np.float32)
    person[40:, 80:180] = 1
    person[100:140, 220:250] = 1
    kept = keep_person(person, face)
    assert kept[:, 200:].max() == 0
    assert (kept[:, 80:180] == person[:, 80:180]).all()


def with_an_ear_ring(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A frame with a disc that hangs beside the jaw, where it is, the true person mask without it and the wall."""
    drawn = draw(side)
    rows, columns = np.mgrid[:side, :side] / side
    ring = np.hypot(rows - 0.56, columns - 0.63) < 0.03
    frame = drawn.frame.copy()
    frame[ring] = (250, 240, 200)
    return frame, ring & (drawn.person < 0.5), drawn.person, wall(side)


def test_what_hangs_on_the_person_is_the_person():
    frame, ring, person, plate = with_an_ear_ring(WORK)
    found = held(person, frame, *plate_range(plate, np.ones_like(ring)))
    assert ring.sum() > 100 and found[ring].mean() > 0.85
    around = gaussian_filter(ring.astype(float), 2) > 0.01
    assert np.abs(found - person)[~around].max() < 0.01
    assert (found >= person).all()


@pytest.mark.parametrize("why", ["drift", "noise", "away", "never seen"])
def test_what_does_not_hang_on_the_person_is_not(why):
    frame, ring, person, plate = with_an_ear_ring(WORK)
    seen = np.ones_like(ring)
    if why == "drift":  # stripes of high contrast that have moved by a pixel
        plate[:, ::8] = 250
        frame = np.where(person[..., None] > 0, draw(WORK).frame, np.roll(plate, 1, 1))
    elif why == "noise":
        frame = draw(WORK).frame + np.random.default_rng(0).normal(0, 8, frame.shape)
        frame = frame.clip(0, 255).astype(np.uint8)
    elif why == "away":
        frame = draw(WORK).frame
        frame[20:40, 20:40] = 255
    else:
        seen[:] = False
    found = held(person, frame, *plate_range(plate, seen))
    assert np.abs(found - person).sum() < 3


def test_matte_finds_the_true_alpha_under_a_fat_mask():
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    alpha = np.clip(60.0 - np.hypot(rows - 128, columns - 128) + 0.5, 0, 1).astype(np.float32)
    plate = wall(SIZE)
    frame = np.rint(alpha[..., None] * DARK + (1 - alpha[..., None]) * plate).astype(np.uint8)
    fat = np.clip((62.0 - np.hypot(rows - 128, columns - 128)) / 5 + 0.5, 0, 1).astype(np.float32)
    found = matte(frame, plate, fat)
    band = np.abs(np.hypot(rows - 128, columns - 128) - 60) < 6
    assert np.abs(found - alpha)[band].mean() < 0.03
    assert np.abs(found - alpha)[band].mean() < 0.4 * np.abs(fat - alpha)[band].mean()
    assert (found[~band] == (alpha[~band] > 0.5)).mean() > 0.99


def test_matte_keeps_to_the_mask_where_colours_cannot_tell():
    plate = np.full((SIZE, SIZE, 3), 120, np.uint8)
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[:, :128] = 1
    found = matte(plate, plate, gaussian_filter(mask, 2))
    assert np.abs(found - mask)[:, np.r_[:122, 134:256]].max() < 0.1


def test_colours_tell_hair_from_skin_and_clothes():
    model = ColourModel()
    drawn = draw(SIZE)
    cells = ColourModel.index(drawn.frame)
    model.add(cells, drawn.person, FaceShape(drawn.landmarks[:, :2], SIZE))
    model.finish()
    sure = gaussian_filter(drawn.person, 2) > 0.99
    assert np.median(model.hair_or_skin[cells[sure & (drawn.labels == 2)]]) > 1
    assert np.median(model.hair_or_skin[cells[sure & (drawn.labels == 1)]]) < -1
    assert np.median(model.skin_or_clothes[cells[sure & (drawn.labels == 1)]]) > 1
    assert np.median(model.skin_or_clothes[cells[sure & (drawn.labels == 5)]]) < -1


@pytest.mark.parametrize("side", [64, 61])
def test_push_pull_keeps_the_known_and_fills_smoothly(side):
    ramp = np.repeat(np.linspace(0, 200, side, dtype=np.float32)[None], side, 0)[..., None].repeat(3, 2)
    weight = np.ones((side, side), np.float32)
    weight[20:40, 20:40] = 0
    filled = push_pull(np.where(weight[..., None] > 0, ramp, 255), weight)
    assert (filled[weight > 0] == ramp[weight > 0]).all()
    assert np.abs(filled - ramp)[weight == 0].max() < 25


def test_plate_of_empty_frames_is_their_median():
    frames = [np.full((32, 32, 3), value, np.uint8) for value in (10, 30, 200)]
    builder = PlateBuilder(32)
    for frame in frames:
        builder.add(frame, np.zeros((32, 32), np.float32))
    plate, seen = builder.finish()
    assert seen.all() and (plate == 30).all()


def test_plate_of_a_close_up_is_plain():
    builder = PlateBuilder(32)
    builder.add(np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), np.float32))
    plate, seen = builder.finish()
    assert not seen.any() and len(np.unique(plate)) == 1


def test_absent_model_file_is_an_asset_error(tmp_path):
    with pytest.raises(AssetError, match="absent"):
        PersonSegmenter(tmp_path / "none.tflite")


def test_segmenter_on_a_person():
    model = Path(os.environ.get("VOCALFACE_ASSETS", "")) / "mediapipe/selfie_segmentation_256.tflite"
    if not os.environ.get("VOCALFACE_ASSETS") or not model.is_file():
        pytest.skip("VOCALFACE_ASSETS has no mediapipe/selfie_segmentation_256.tflite")
    drawn = draw(512, x=0.35)
    mask = PersonSegmenter(model)(drawn.frame)
    assert mask.shape == (WORK, WORK) and mask.dtype == np.float32
    assert mask.min() >= 0 and mask.max() <= 1
