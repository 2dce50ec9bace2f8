"""The rules around the official networks: parity with the published ones where they are right, mended where not."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

from vocalface.errors import FaceError
from vocalface.sadtalker import framing

SHARED = os.environ.get("VOCALFACE_TEST_DATA", "")
parity = pytest.mark.skipif(not SHARED, reason="VOCALFACE_TEST_DATA is not set: no parity fixtures")


def load(name):
    path = Path(SHARED) / "parity" / name
    if not path.exists():
        pytest.skip("no parity fixtures there")
    return np.load(path)


@parity
def test_what_a_frame_hears_is_what_the_published_code_hears():
    data = load("mel.npz")
    made = framing.mel_windows(data["out__mel"], int(data["out__num_frames"]))
    np.testing.assert_array_equal(made[:, 0], data["out__indiv_mels"])


@parity
@pytest.mark.parametrize("frames", [20, 22, 60, 300])
def test_blinks_come_where_the_published_code_has_them(frames):
    truth = load("glue.npz")[f"out__blink_seed{frames}_T{frames}"][:, 0]
    np.testing.assert_array_equal(framing.blinks(frames, random.Random(frames)), truth)


@pytest.mark.parametrize("frames", [1, 2, 3, 20, 21, 22, 23])
def test_no_length_of_speech_stops_the_blinks(frames):
    made = framing.blinks(frames, random.Random(0))
    assert made.shape == (frames,) and made[-1] == 0 and set(made) <= {0, 0.5, 0.9, 1.0}


@parity
def test_windows_points_and_alignment_equal_the_published_ones():
    data = load("glue.npz")
    for name, frame in (("f0", 0), ("f29", 29)):
        np.testing.assert_array_equal(
            framing.coefficient_window(data["in__coeffs"], frame), data[f"out__window_{name}"]
        )
    np.testing.assert_allclose(framing.five_points(data["in__lm68"]), data["out__lm5_of_68"])
    made = framing.align(data["in__align_lm5_yup"], data["out__lm3d_5pt"], 256, 256)
    np.testing.assert_allclose([256, 256, *made.crop], data["out__align_trans_params"], rtol=1e-9)


@parity
@pytest.mark.parametrize("case", [0, 1, 2])
def test_the_crop_about_a_face_is_the_published_one_with_its_clamp_mended(case):
    data = load("glue.npz")
    width, height = (int(v) for v in data[f"in__crop{case}_wh"])
    made = framing.frame(data[f"in__crop{case}_lm68"], width, height)
    assert made.size == tuple(data[f"out__crop{case}_rsize"]) and made.outer == tuple(data[f"out__crop{case}_crop"])
    truth = data[f"out__crop{case}_quad"].astype(float)
    truth[3] = min(truth[3], made.outer[3] - made.outer[1])  # theirs clamps the bottom by the width
    np.testing.assert_allclose(made.inner, truth)


@parity
def test_the_camera_follows_the_published_path_and_reaches_its_last_key():
    data = load("glue.npz")
    for name in "ac":
        *keys, frames, _ = data[f"in__camera_{name}"]
        made, truth = framing.camera_path(keys, int(frames)), data[f"out__camera_{name}"].flatten()[:frames]
        short = int(np.abs(np.diff(truth) != 0)[::-1].argmax()) + 1  # theirs repeats the last angles instead
        np.testing.assert_allclose(made[: frames - short], truth[: frames - short], atol=1e-9)
        assert made[-1] == keys[-1]


def test_a_camera_that_rests_or_has_one_frame_is_no_error():
    assert (framing.camera_path([5, 5], 4) == 5).all() and framing.camera_path([3, 9], 1) == [3]
    assert framing.camera_path([0, 0, 10], 3).tolist() == [0, 5, 10]


def face(scale: float, x: float, y: float) -> np.ndarray:
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = (-30, 0), (30, 0)
    points[48], points[54], points[30] = (-25, 60), (25, 60), (0, 30)
    return points * scale + (x, y)


def test_a_large_face_is_halved_first_and_put_back_where_it_was():
    small, large = framing.frame(face(1, 300, 300), 600, 600), framing.frame(face(12, 3600, 3600), 7200, 7200)
    assert small.shrink == 1 and large.shrink > 1 and large.size[0] * large.shrink == 7200
    for whole in (False, True):
        np.testing.assert_allclose(np.array(large.place(whole)) / 12, small.place(whole), atol=2.0)


def test_a_face_at_the_edge_is_clamped_and_one_without_extent_refused():
    made = framing.frame(face(1, 10, 280), 400, 300)
    assert made.outer[0] == 0 and made.outer[3] == 300 and made.inner[3] <= 300 - made.outer[1]
    with pytest.raises(FaceError):
        framing.frame(np.zeros((68, 2)), 100, 100)


def test_aligned_faces_have_one_size_and_place():
    reference = np.array(
        [[-0.31, 0.29, 0.13], [0.31, 0.29, 0.13], [0, 0, 0.6], [-0.26, -0.37, 0.27], [0.26, -0.37, 0.27]]
    )
    for scale, x, y in ((100, 200, 180), (37, 90, 140)):
        made = framing.align(reference[:, :2] * scale + (x, y), reference, 400, 320)
        assert made.scale * scale == pytest.approx(framing.SPAN, rel=1e-6)
        left, top = made.corner
        assert x * made.scale - left == pytest.approx(112, abs=2)
        assert (320 - y) * made.scale - top == pytest.approx(112, abs=2)
