"""From a clip to its folder: what is refused, what is kept, and real footage where it is at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from vocalface import assets, media
from vocalface.errors import AssetError, FaceError, MediaError, ObservationsError
from vocalface.observe import landmarks, observe, shots, store, watch
from vocalface.types import CropBox


def clip_of(path: Path, frames: int, size: int = 64) -> Path:
    with media.VideoWriter(path, size, size) as video:
        for k in range(frames):
            video.write(np.full((size, size, 3), (40 + k) % 256, np.uint8))
    return path


def real(name: str) -> Path:
    path = Path(os.environ.get("VOCALFACE_TEST_DATA", "")) / "clips" / name
    if not path.is_file():
        pytest.skip(f"needs {name}: set VOCALFACE_TEST_DATA to a folder that has clips/")
    for model in ("mediapipe/face_landmarker.task", "mediapipe/selfie_segmentation_256.tflite"):
        try:
            assets.path(model)
        except AssetError as error:
            pytest.skip(str(error).splitlines()[0])
    return path


def test_what_cannot_be_observed_is_refused_before_anything_is_written(tmp_path):
    short = clip_of(tmp_path / "short.mp4", 30)
    with pytest.raises(FaceError, match=r"lasts 1\.2 s"):
        observe(short)
    assert not (tmp_path / "short.obs" / "observations.json").exists()
    with pytest.raises(ObservationsError, match="no such table"):
        observe(short, au_table=tmp_path / "absent.csv")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError):
        observe(tmp_path / "text.mp4")
    assert not (tmp_path / "text.obs").exists()


def test_the_folder_is_beside_the_clip_unless_that_cannot_be_written(tmp_path, monkeypatch):
    assert watch.default_folder(tmp_path / "a.mp4") == tmp_path / "a.obs"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert watch.default_folder(tmp_path / "a.mp4") == Path("a.obs")
    (tmp_path / "a.obs").mkdir()
    assert watch.default_folder(tmp_path / "a.mp4") == tmp_path / "a.obs", "what was observed before is found"


def test_the_shot_with_most_faces_is_kept():
    assert shots.best([(0, 100), (100, 160)], [5, 110, 120, 130]) == (100, 160)
    assert shots.best([(0, 100), (100, 160)], []) == (0, 100)


def face_at(x: float, y: float, size: float) -> landmarks.Face:
    points = np.zeros((478, 3), np.float32)
    points[:, 0] = x + size * 0.35 * np.cos(np.arange(478))
    points[:, 1] = y + size * 0.5 * np.sin(np.arange(478))
    return landmarks.Face(points, np.zeros(52, np.float32))


def test_the_tracker_follows_the_crop_and_takes_no_other_face():
    seen = []

    def landmarker(part):
        seen.append(part.shape)
        return [face_at(part.shape[1] / 2, part.shape[0] / 2, 100), face_at(10, 10, 100), face_at(95, 95, 20)]

    image = np.zeros((1080, 1920, 3), np.uint8)
    near = np.array([1000.0, 500.0])
    crop = CropBox(800, 300, 400)
    first = watch.follow(landmarker, image, None, crop, near, 100.0)
    assert seen == [(400, 400, 3)], "a lost face is looked for in the crop"
    found = watch.follow(landmarker, image, first, crop, near, 100.0)
    assert seen[-1] == (190, 190, 3), "a known face is looked for around its last place"
    assert np.allclose((found.box[:2] + found.box[2:]) / 2, near, atol=1)
    assert watch.follow(lambda part: [], image, found, crop, near, 100.0) is None


def test_a_torn_cache_is_no_error(tmp_path, monkeypatch):
    clip = media.open_clip(clip_of(tmp_path / "a.mp4", 60))
    folder = tmp_path / "a.obs"
    folder.mkdir()
    (folder / "landmarks.npz").write_bytes(b"PK\x03\x04 torn")

    class Stub:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def __call__(self, image):
            return [face_at(image.shape[1] / 2, image.shape[0] / 2, 62)]

        search = __call__

    monkeypatch.setattr(landmarks, "Landmarker", Stub)
    key = {"face": "largest", "version": 1}
    told = []
    seen = watch._landmarks(clip, folder, key, lambda done, total, label: told.append((done, total, label)))
    assert seen.valid.all() and seen.shot == (0, 60) and told[-1] == (60, 60, "faces")
    monkeypatch.setattr(landmarks, "Landmarker", None)
    again = watch._landmarks(clip, folder, key, lambda *_: None)
    assert np.array_equal(again.points, seen.points) and again.crop == seen.crop, "an interrupted run goes on from here"


@pytest.mark.slow
def test_real_footage_is_observed_once(tmp_path):
    clip = real("statement.mp4")
    obs = observe(clip, tmp_path / "s.obs", size=256)
    assert obs.info["pose"]["rmse_px"] < 0.8 and obs.track.valid.all() and obs.info["has_sound"]
    written = {p.name: p.stat().st_mtime_ns for p in obs.folder.iterdir()}
    observe(clip, tmp_path / "s.obs", size=256)
    assert written == {p.name: p.stat().st_mtime_ns for p in obs.folder.iterdir()}
    inside = obs.track.landmarks[:, :, :2]
    assert (inside > 0).all() and (inside < 256).all()
    frame = next(store.frames(obs, 20, 21))
    x, y = obs.track.landmarks[20, 1, :2].astype(int)  # tip of the nose
    assert frame.labels[y, x] == 1 and frame.head_alpha[y, x] == 255


@pytest.mark.slow
def test_frames_in_the_middle_are_those_of_a_whole_reading():
    view = media.open_clip(real("small_face_silent.mp4")).at(25)
    truth = [image for k, image in enumerate(view.iterate(0, 376)) if k >= 374]
    assert all(np.array_equal(a, b) for a, b in zip(view.iterate(374, 376), truth))
