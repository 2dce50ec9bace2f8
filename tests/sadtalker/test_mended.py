"""What the published code is known to do wrong, and what happens here; PAPER.md lists it with its tests."""

import random
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_animate import SIZE, portrait, psnr
from test_official import SIDE, Finder, found, humming, networks, rows, subject

from vocalface import media
from vocalface.errors import AssetError, FaceError
from vocalface.observe.indices import EYE_LEFT, EYE_RIGHT, IRIS_LEFT, IRIS_RIGHT
from vocalface.observe.landmarks import Face
from vocalface.sadtalker import align, checkpoints, framing, official
from vocalface.sadtalker.coefficients import CROPPED, WHOLE, Settings, idle_windows, mel_windows
from vocalface.sadtalker.portrait import GROUND


def face(points) -> Face:
    return Face(np.asarray(points, np.float32), np.zeros(52, np.float32))


# ------------------------------------------------------------------------------------------------------------ pictures
@pytest.mark.parametrize("suffix", ["JPG", "Jpeg"])
def test_a_turned_photograph_is_set_upright_before_its_face_is_looked_for(tmp_path, suffix):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow to write EXIF")
    tags = image.Exif()
    tags[274] = 6
    turned = np.ascontiguousarray(np.rot90(portrait().image[:, :200]))
    image.fromarray(turned).save(tmp_path / f"p.{suffix}", format="JPEG", exif=tags, quality=95)
    searched = []
    made = official.subject_of(
        tmp_path / f"p.{suffix}",
        networks(),
        "crop",
        search=lambda picture: searched.append(picture.shape) or upright(picture),
    )
    assert made.picture.shape == (SIZE, 200, 3) and searched[0] == (SIZE, 200, 3)
    assert psnr(made.picture, portrait().image[:, :200]) > 28


def upright(image):
    return [face(portrait().landmarks * (image.shape[0] / SIZE))]


def test_what_is_transparent_lies_over_grey(tmp_path):
    image = np.dstack([portrait().image, np.full((SIZE, SIZE), 255, np.uint8)])
    image[:30, :, 3] = 0
    (tmp_path / "P.PNG").write_bytes(media.encode_image(image))
    made = official.subject_of(tmp_path / "P.PNG", networks(), "full", search=found)
    assert np.abs(made.picture[:30].astype(int) - GROUND).max() <= 1
    np.testing.assert_array_equal(made.picture[30:], portrait().image[30:])


def test_no_face_is_said_and_not_replaced_by_one_in_the_middle(tmp_path):
    picture = media.write_image(tmp_path / "p.png", portrait().image)
    with pytest.raises(FaceError, match="no face"):
        official.animate(picture, humming(0.2), tmp_path / "o.mp4", networks=networks(), search=lambda image: [])
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_of_several_faces_the_largest_speaks_or_the_one_that_is_asked_for(tmp_path):
    picture = media.write_image(tmp_path / "p.png", np.zeros((300, 700, 3), np.uint8))
    small, large = portrait().landmarks * 0.6 + (20, 60, 0), portrait().landmarks * 0.9 + (400, 30, 0)
    faces = [face(large), face(small)]  # as the landmarker sorts them

    def middle(which: str) -> float:
        made = official.subject_of(
            picture, networks(), "crop", which, lambda image: faces if image.shape[1] == 700 else []
        )
        assert made.faces == 2
        return (made.crop.box[0] + made.crop.box[2]) / 2

    assert middle("largest") > 400 and middle("0") < 250 and middle("1") > 400 and middle("30,70,100,120") < 250
    with pytest.raises(FaceError, match="--face"):
        middle("2")


def test_eyes_are_turned_in_the_square_alone(tmp_path):
    image, points = portrait().image.copy(), portrait().landmarks.copy()
    for rim, iris in ((EYE_LEFT, IRIS_LEFT), (EYE_RIGHT, IRIS_RIGHT)):
        x, y = points[rim, :2].mean(0).astype(int)
        points[iris, :2] = [(x + i, y + j) for i, j in ((0, 0), (3, 0), (0, -3), (-3, 0), (0, 3))]
        image[y - 3 : y + 4, x - 3 : x + 4] = 0
    picture = media.write_image(tmp_path / "p.png", image)
    net = replace(networks(), size=192)  # eyes of a few px are left alone

    def seen(picture):
        return [face(points)] if len(picture) == SIZE else []

    plain, turned = (official.subject_of(picture, net, "crop", search=seen, gaze=g) for g in (None, (15.0, 0.0)))
    change = np.abs(plain.square.astype(int) - turned.square).max(2)
    eyes = official.placed(points, plain.crop, 192)[[*IRIS_LEFT, *IRIS_RIGHT]]
    away = np.linalg.norm(np.mgrid[:192, :192][::-1, :, :, None] - eyes.T[:, None, None], axis=0).min(-1) > 30
    assert change.max() > 20 and not change[away].any()
    np.testing.assert_array_equal(plain.picture, turned.picture)


# --------------------------------------------------------------------------------------------------------------- crops
def test_a_crop_of_a_tall_picture_is_not_cut_at_its_width():
    """The published code clamps the square's bottom by the picture's width."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = (60, 500), (120, 500)
    points[48], points[54], points[30] = (65, 560), (115, 560), (90, 530)
    made = framing.frame(points, 180, 900)
    width, height = made.outer[2] - made.outer[0], made.outer[3] - made.outer[1]
    assert height > width == 180 and made.inner[3] > width  # theirs stops at 180
    box = align.crop_for(points, 180, 900, "full").box
    assert box[3] - box[1] == pytest.approx(made.inner[3] - made.inner[1], abs=1)


@pytest.mark.parametrize("mode", align.MODES)
@pytest.mark.parametrize("place", [(0.5, 0.5), (0, 0), (1, 0), (0, 1), (1, 1), (-0.2, 0.5), (0.5, 1.2)])
def test_crops_stay_within_the_picture(mode, place):
    points = align.landmarks_68(portrait().landmarks)
    width, height = 300, 420
    points = points - points.mean(0) + (place[0] * width, place[1] * height)
    crop = align.crop_for(points, width, height, mode)
    x0, y0, x1, y1 = crop.box
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    picture = np.zeros((height, width, 3), np.uint8)
    square = align.cut(picture, crop, SIDE)
    assert square.shape == (SIDE, SIDE, 3)
    assert align.PasteBack(picture, crop)(square).shape == picture.shape


@pytest.mark.parametrize("mode", ["crop", "extcrop", "resize"])
def test_frames_have_the_shape_of_what_was_cut(tmp_path, mode):
    """The published extcrop gives the wide crop the shape of the close one."""
    picture = media.write_image(tmp_path / "p.png", portrait().image[:, :200])
    made = official.subject_of(picture, networks(), mode, search=upright)
    speaker = official.Speaker(networks(), made)
    cut = (made.crop.box[2] - made.crop.box[0]) / (made.crop.box[3] - made.crop.box[1])
    assert speaker.width / speaker.height == pytest.approx(cut, rel=0.04) and speaker.width % 2 == 0
    (frame,) = speaker.frames([humming(0.04).samples], 1)
    assert frame.shape == (speaker.height, speaker.width, 3)


def test_a_large_face_goes_back_to_where_it_was():
    """Faces over 2048 px are halved before they are cut; the published code then forgets that it did so."""
    factor = 11
    points = align.landmarks_68(portrait().landmarks) * factor
    size = SIZE * factor
    assert framing.frame(points, size, size).shrink > 1
    crop = align.crop_for(points, size, size, "full")
    y, x = np.ogrid[:size, :size]
    picture = np.repeat(((x * 255 // size + y * 128 // size) // 2).astype(np.uint8)[..., None], 3, 2)
    back = align.PasteBack(picture, crop)(align.cut(picture, crop, 256))
    assert psnr(back[::5, ::5], picture[::5, ::5]) > 45
    middle = np.array([(crop.box[0] + crop.box[2]) / 2, (crop.box[1] + crop.box[3]) / 2])
    assert np.abs(middle - framing.five_points(points).mean(0)).max() < 0.15 * crop.width


@pytest.mark.parametrize("mode", ["full", "extfull"])
def test_odd_sizes_are_not_rescaled(tmp_path, mode):
    """The published code writes sides that divide by 16."""
    image = portrait().image[:251, :201]
    picture = media.write_image(tmp_path / "p.png", image)
    made = official.animate(
        picture, humming(0.04), tmp_path / "o.mp4", networks=networks(WHOLE), mode=mode,
        search=lambda seen: [face(portrait().landmarks * (seen.shape[0] / 251))],
    )  # fmt: skip
    clip = media.open_clip(made.video)
    assert (clip.width, clip.height) in ((201, 251), (202, 252))
    away = next(iter(clip.at(25)))[:251, :4]
    assert psnr(away, image[:, :4]) > 28


# -------------------------------------------------------------------------------------------------------------- motion
def test_pictures_of_several_sizes_share_one_table_and_nothing_is_deprecated():
    """Ragged arrays and one-element arrays as numbers stop the published code under today's NumPy."""
    seen = [(np.full((64 + 16 * k, 80, 3), 90, np.uint8), align.landmarks_68(portrait().landmarks) / 4) for k in (0, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = official.coefficients_of(seen, networks().recon)
        driven = rows(0.5)
    assert made.shape == (2, WHOLE) and made.dtype == driven.dtype == np.float32
    assert np.isfinite(made).all() and official.coefficients_of([], networks().recon).shape == (0, WHOLE)


@pytest.mark.parametrize("frames", [1, 7, 60])
def test_an_idle_portrait_hears_what_silence_sounds_like(frames):
    """The published code hands over zeros, the middle of the scale."""
    silence = np.concatenate(list(mel_windows([np.zeros(640 * frames, np.float32)])))
    np.testing.assert_array_equal(np.concatenate(list(idle_windows(frames))), silence)


def test_an_idle_mouth_is_that_of_silent_speech():
    speaker = official.Speaker(networks(), subject(), Settings(seed=2))
    idle = np.stack(list(speaker.rows(None, 40)))
    np.testing.assert_allclose(idle, np.stack(list(speaker.rows([np.zeros(25_600)], 40))), atol=1e-4)


def test_blinks_and_heads_depend_on_the_seed_alone():
    """The published code draws both from generators that nobody seeds."""
    made = []
    for noise in (1, 2):
        random.seed(noise)
        torch.manual_seed(noise)
        np.random.seed(noise)
        made.append(rows(2.5, seed=4))
    np.testing.assert_array_equal(*made)


def test_a_still_portrait_blinks_as_a_moving_one():
    moving, still, staring = rows(3.0), rows(3.0, still=True), rows(3.0, still=True, blink=False)
    np.testing.assert_array_equal(moving[:, :64], still[:, :64])
    assert np.abs(still[:, :64] - staring[:, :64]).max(1).astype(bool).sum() >= 4


@pytest.mark.parametrize("keys", [(10.0, 10.0), (5.0,), (0.0, 20.0, 20.0, 0.0)])
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_free_view_that_rests_or_lasts_one_frame_divides_by_nothing(keys, frames):
    view = official.View(yaw=keys, roll=(0.0, 0.0))
    speaker = official.Speaker(networks(), subject(), Settings(), view)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = view.paths(frames)
        drawn = list(speaker.frames([humming(frames / 25).samples], frames))
    assert len(drawn) == frames and paths["yaw"].shape == (frames,) and np.isfinite(paths["yaw"]).all()
    assert paths["yaw"][0] == keys[0] and (frames == 1 or paths["yaw"][-1] == keys[-1])


def test_a_longer_reference_is_cut_and_a_shorter_one_returns():
    for count in (1, 3, 200):
        head, lids = np.linspace(0, 0.2, 6 * count).reshape(count, 6), np.linspace(0, 1, count)
        made = rows(1.0, head=head - head[:1], lids=lids)
        assert made.shape == (25, CROPPED) and np.isfinite(made).all()
    step = np.abs(np.diff(rows(2.0, head=np.linspace(0, 0.3, 30)[:, None] * np.ones(6), still=True)[:, 64:], axis=0))
    assert step.max() < 0.02  # there and back without a jump


# ------------------------------------------------------------------------------------------------------------- weights
def test_the_older_set_of_weights_serves_where_the_newer_file_is_absent(tmp_path, monkeypatch):
    net = networks()
    parts = {
        "kp_extractor": net.keypoints, "generator": net.generator, "he_estimator": torch.nn.Linear(1, 1),
        "audio2exp": net.expnet, "audio2pose": net.posevae, "face_3drecon": net.recon,
    }  # fmt: skip
    folder = tmp_path / "sadtalker"
    folder.mkdir()
    files: dict[str, dict] = {}
    for name, (file, entry, _) in checkpoints.OLDER.items():
        files.setdefault(file, {})[entry] = parts[name].state_dict()
        monkeypatch.setitem(checkpoints.OLDER, name, (file, entry, lambda part=parts[name]: part))
    for file, content in files.items():
        torch.save(content, folder / file)
    torch.save({"mapping": net.mapping.state_dict()}, folder / "mapping_00229-model.pth.tar")
    monkeypatch.setattr(checkpoints, "MappingNet", lambda channels: type(net.mapping)(channels, width=16))
    monkeypatch.setattr(official.assets, "_fits", lambda file, asset: True)
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    loaded = official.load_networks("crop")
    assert torch.equal(loaded.expnet.mapping1.weight, net.expnet.mapping1.weight) and loaded.mapping.channels == CROPPED
    with pytest.raises(AssetError, match=r"SadTalker_V0\.0\.2_512"):
        official.load_networks("crop", 512)


def test_the_landmarker_is_closed_after_a_portrait(tmp_path, monkeypatch):
    closed = []

    class Watched(Finder):
        def __exit__(self, *_):
            closed.append(True)

    monkeypatch.setattr(official, "Landmarker", Watched)
    picture = media.write_image(tmp_path / "p.png", portrait().image)
    assert official.subject_of(picture, networks(), "crop").coefficients.shape == (WHOLE,) and closed == [True]
