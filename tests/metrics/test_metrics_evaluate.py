import json
import os
from pathlib import Path

import numpy as np
import pytest
from faces import face
from scipy.ndimage import gaussian_filter

from vocalface import media
from vocalface.errors import ConfigError, MediaError
from vocalface.metrics import sync
from vocalface.metrics.evaluate import evaluate, write_report
from vocalface.observe.indices import BLENDSHAPES
from vocalface.types import Sound


@pytest.fixture
def no_models(monkeypatch, tmp_path):
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))


def texture(frames=12, size=(96, 80), seed=0):
    rng = np.random.default_rng(seed)
    base = gaussian_filter(rng.uniform(0, 255, (size[1], size[0], 3)), (2, 2, 0))
    base = (base - base.min()) / np.ptp(base) * 255
    return [np.roll(base, i, axis=1).astype(np.uint8) for i in range(frames)]


def write(path, frames, sound=None):
    with media.VideoWriter(path, frames[0].shape[1], frames[0].shape[0], sound=sound, crf=1) as video:
        for frame in frames:
            video.write(frame)
    return path


def test_without_models_images_are_measured_and_the_rest_says_why(tmp_path, no_models):
    frames = texture()
    truth = write(tmp_path / "truth.mp4", frames)
    blurred = write(tmp_path / "blurred.mp4", [gaussian_filter(f, (1, 1, 0)) for f in frames])
    calls = []
    found = evaluate(blurred, truth, progress=lambda *a: calls.append(a))
    assert 20 < found["psnr"] < 45 and 0.5 < found["ssim"] < 1 and found.frames == 12
    for row in found.rows:
        assert row.region and row.protocol
        if row.name not in ("psnr", "ssim"):
            assert row.value is None
    why = {row.name: row.protocol for row in found.rows}
    assert "fetch" in why["lmd"] and "fetch" in why["lpips"] and "176" in why["ms_ssim"]
    assert calls[-1] == (12, 12, "comparing") and len(calls) == 12
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["values"]["psnr"] == found["psnr"]
    page = write_report([found, evaluate(truth, truth)], tmp_path / "report.html").read_text()
    assert "blurred.mp4" in page and "TalkingGaussian" in page


def test_same_video_is_perfect(tmp_path, no_models):
    truth = write(tmp_path / "truth.mp4", texture())
    found = evaluate(truth, truth)
    assert found["psnr"] == 100 and found["ssim"] == pytest.approx(1)


def test_head_mask_and_lengths(tmp_path, no_models):
    frames = texture()
    truth = write(tmp_path / "truth.mp4", frames)
    damaged = [f.copy() for f in frames[:9]]
    for f in damaged:
        f[:, :40] = 0
    other = write(tmp_path / "other.mp4", damaged)
    mask = np.zeros((80, 96), np.uint8)
    mask[:, 56:] = 255
    found = evaluate(other, truth, masks=[mask] * 9)
    assert found.frames == 9 and found["psnr_head"] > 35 > 15 > found["psnr"]
    rows = {row.name: row for row in found.rows}
    assert rows["psnr_head"].region == "head mask" and "3 frames" in rows["psnr"].protocol


def test_sizes_must_agree(tmp_path):
    a, b = write(tmp_path / "a.mp4", texture()), write(tmp_path / "b.mp4", texture(size=(64, 80)))
    with pytest.raises(ConfigError, match=r"96x80.*64x80") as error:
        evaluate(a, b)
    assert error.value.fix


def test_not_a_video(tmp_path):
    (tmp_path / "a.mp4").write_text("no")
    with pytest.raises(MediaError):
        evaluate(tmp_path / "a.mp4")


def test_alone_without_models(tmp_path, no_models):
    sound = Sound(np.zeros(16_000, np.float32), 16_000)
    found = evaluate(write(tmp_path / "a.mp4", texture(25), sound))
    assert found.reference is None and all(row.value is None for row in found.rows)
    assert len(write_report([found], tmp_path / "report.html").read_text()) > 1000


class Reader:
    """A detector that reads the mouth's opening from the brightness of the first pixels."""

    def __call__(self, frame):
        if frame[:8, :8].mean() > 250:  # hides its face
            return np.full((478, 3), np.nan), np.full(52, np.nan)
        shapes = np.zeros(52)
        shapes[BLENDSHAPES.index("jawOpen")] = frame[:8, :8].mean() / 255
        return face([frame[:8, :8].mean() / 10], size=96)[0] * (96 / 512), shapes

    def close(self):
        pass


def test_lips_and_regions_with_known_landmarks(tmp_path, monkeypatch):
    monkeypatch.setattr("vocalface.metrics.evaluate.open_detector", lambda: (Reader(), ""))
    opening = 60 + 50 * np.sin(np.arange(80) / 3) + 30 * np.sin(np.arange(80) / 1.7)

    def talking(openings):
        frames = texture(len(openings), (96, 96))
        for frame, value in zip(frames, openings):
            frame[:16, :16] = value
        return frames

    late = talking(opening[10:70])
    late[5][:16, :16] = 255
    late[30][70:, 60:] = 0  # damage within the head's box, outside the mouth's
    found = evaluate(write(tmp_path / "late.mp4", late), write(tmp_path / "true.mp4", talking(opening[12:72])))
    assert found["lag"] == pytest.approx(2, abs=0.2) and found["mouth_corr"] < 0.9 and found["lmd"] > 0
    assert found["amplitude"] == pytest.approx(1, abs=0.1) and found["au26_corr"] == pytest.approx(
        found["mouth_corr"], abs=0.1
    )
    assert found["psnr_mouth"] > found["psnr_head"] > found["psnr"] - 20
    assert "1 frames without a face" in next(r.protocol for r in found.rows if r.name == "lmd")
    assert found["aue_bs_u"] == 0 < found["aue_bs_l"] and found["sync_lag"] is None
    assert all(row.value is None or np.isfinite(row.value) for row in found.rows)


@pytest.fixture(scope="module")
def clip():
    root = os.environ.get("VOCALFACE_TEST_DATA")
    path = Path(root or "/nonexistent") / "clips" / "statement.mp4"
    model = Path(os.environ.get("VOCALFACE_ASSETS") or "/nonexistent") / "mediapipe" / "face_landmarker.task"
    if not path.is_file() or not model.is_file():
        pytest.skip("real clips or the face landmarker are not at hand (VOCALFACE_TEST_DATA, VOCALFACE_ASSETS)")
    return path


@pytest.mark.slow
def test_real_face_late_and_blurred(tmp_path, clip):
    frames = list(media.open_clip(clip).at(25).iterate(0, 40))
    truth = write(tmp_path / "truth.mp4", frames)
    late = evaluate(write(tmp_path / "late.mp4", [frames[max(i - 3, 0)] for i in range(40)]), truth)
    assert (
        late["lag"] == pytest.approx(3, abs=0.5) and late["lmd"] > 0.5 and late["jitter"] == pytest.approx(1, abs=0.3)
    )
    assert late["sync_lag"] is None  # under 5 s
    blurred = evaluate(write(tmp_path / "blur.mp4", [gaussian_filter(f, (1.5, 1.5, 0)) for f in frames]), truth)
    assert (
        blurred["sharpness_mouth"] < 0.8 and blurred["mouth_corr"] > 0.9 and blurred["lag"] == pytest.approx(0, abs=0.3)
    )
    assert blurred["lmd"] < 0.5 * late["lmd"] and blurred["psnr_mouth"] > late["psnr_mouth"]
    assert blurred["aue_bs_l"] < late["aue_bs_l"]


@pytest.mark.slow
def test_real_speech_follows_its_shift(clip):
    found = {}
    for late in (0, 5):
        speech = media.open_clip(clip).speech()
        moved = np.concatenate([speech.samples[late * 640 :], np.zeros(late * 640, np.float32)])
        found[late] = evaluate(clip, speech=Sound(moved, 16_000))["sync_lag"]
    assert found[5] - found[0] == pytest.approx(5, abs=1) and sync.NATURAL[0] <= found[0] <= sync.NATURAL[1]
