"""A data folder as TalkingGaussian and ER-NeRF lay it out loads as Observations."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_track import CAMERA, face_points, poses, see

from vocalface import media
from vocalface.errors import ObservationsError
from vocalface.observe import datasets, store
from vocalface.observe.indices import LANDMARKS_68
from vocalface.types import AU_NAMES, FACE, TORSO, Camera, Sound

SIZE, FRAMES, MISSING = 64, 8, 3


@pytest.fixture
def folder(tmp_path):
    for name in ("ori_imgs", "parsing", "torso_imgs"):
        (tmp_path / name).mkdir()
    w2c = poses(FRAMES)
    camera = Camera(CAMERA.fx / 8, CAMERA.fy / 8, 32, 32, SIZE, SIZE)
    points = see(face_points(), w2c, camera)
    gl = np.linalg.inv(w2c)
    gl[:, :3, 1:3] *= -1
    rows = [{"img_id": k, "aud_id": k, "transform_matrix": gl[k].tolist()} for k in range(FRAMES) if k != MISSING]
    header = {"focal_len": camera.fx, "cx": 32, "cy": 32}
    (tmp_path / "transforms_train.json").write_text(json.dumps({**header, "frames": rows[:5]}))
    (tmp_path / "transforms_val.json").write_text(json.dumps({**header, "frames": rows[5:]}))
    parsing = np.full((SIZE, SIZE, 3), 255, np.uint8)
    parsing[10:40, 20:44], parsing[50:] = (0, 0, 255), (255, 0, 0)
    torso = np.zeros((SIZE, SIZE, 4), np.uint8)
    torso[50:] = (20, 90, 160, 255)
    for k in range(FRAMES):
        media.write_image(tmp_path / "ori_imgs" / f"{k}.jpg", np.full((SIZE, SIZE, 3), 60 + 10 * k, np.uint8))
        if k != MISSING:
            media.write_image(tmp_path / "parsing" / f"{k}.png", parsing)
            media.write_image(tmp_path / "torso_imgs" / f"{k}.png", torso)
            np.savetxt(tmp_path / "ori_imgs" / f"{k}.lms", points[k, LANDMARKS_68, :2], "%f")
    media.write_image(tmp_path / "bc.jpg", np.full((SIZE, SIZE, 3), 200, np.uint8))
    names = ["frame", " confidence", " success", *(f" {a}_r" for a in AU_NAMES)]
    table = [",".join(names)] + [",".join(map(str, [k + 1, 0.99, 1, *[k / 4] * 17])) for k in range(FRAMES)]
    (tmp_path / "au.csv").write_text("\n".join(table))
    media.write_sound(tmp_path / "aud.wav", Sound(np.zeros(FRAMES * 640, np.float32), 16_000))
    return tmp_path, w2c, points


def test_poses_masks_units_and_numbers_come_through(folder):
    path, w2c, points = folder
    obs = datasets.load(path)
    assert len(obs) == FRAMES and not obs.track.valid[MISSING] and obs.track.valid.sum() == FRAMES - 1
    seen = np.arange(FRAMES) != MISSING
    assert np.abs(obs.track.head_pose[seen] - w2c[seen]).max() < 1e-5
    assert np.abs(obs.track.landmarks[seen][:, LANDMARKS_68, :2] - points[seen][:, LANDMARKS_68, :2]).max() < 0.01
    assert obs.track.action_units[6, 0] == pytest.approx(1.5)
    frame = next(store.frames(obs, 5, 6))
    assert abs(int(frame.image[30, 30, 0]) - 110) <= 3 and frame.labels[20, 30] == FACE and frame.labels[60, 5] == TORSO
    assert (
        abs(int(frame.behind[5, 5, 0]) - 200) <= 3
        and np.abs(frame.behind[58, 5].astype(int) - [20, 90, 160]).max() <= 6
    )
    assert datasets.load(path).track.landmarks.shape == (FRAMES, 478, 3), "the second call reads what was written"


@pytest.mark.parametrize("gone", ["au.csv", "bc.jpg", "aud.wav", "parsing/2.png", "transforms_train.json"])
def test_what_is_missing_is_named(folder, gone):
    (folder[0] / gone).unlink()
    with pytest.raises(ObservationsError, match=Path(gone).name.replace(".", r"\.")):
        datasets.load(folder[0])
