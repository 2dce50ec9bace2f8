"""A folder of clips becomes training material: what is stored is what was seen and heard, and nothing is done twice."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from vocalface import faces, media
from vocalface.errors import MediaError, ObservationsError
from vocalface.observe import corpus
from vocalface.observe.speech.mel import log_mel
from vocalface.sadtalker.framing import mel_windows
from vocalface.types import AU_NAMES, Sound

FRAMES = 60


def film(path: Path, seed: int = 0, frames: int = FRAMES, sound: bool = True, rate: float = 25) -> Path:
    """A bright square wanders over a dark ground, to noise."""
    draw = np.random.default_rng(seed)
    noise = Sound((0.2 * draw.standard_normal(int(frames / rate * 16_000))).astype(np.float32), 16_000)
    path.parent.mkdir(parents=True, exist_ok=True)
    with media.VideoWriter(path, 96, 80, rate, sound=noise if sound else None) as out:
        for k in range(frames):
            image = np.full((80, 96, 3), 30, np.uint8)
            image[20:50, 20 + k // 4 : 45 + k // 4] = 200
            out.write(image)
    return path


def square_face(clip):
    """Landmarks on the border of the square that `film` draws."""
    count = len(clip.at(25))
    points = np.zeros((count, 478, 3), np.float32)
    turn = np.linspace(0, 2 * np.pi, 478)
    points[..., 0] = 32.5 + np.arange(count)[:, None] // 4 + 12.5 * np.cos(turn)
    points[..., 1] = 35 + 15 * np.sin(turn)
    yield from corpus._runs(0, points, np.ones(count, bool))


class Counted:
    name = "counted"

    def __init__(self):
        self.calls = 0

    def __call__(self, faces, points, valid):
        self.calls += 1
        bright = [float(f[100:156, 100:156].mean()) for f in faces]
        out = np.zeros((len(points), 73), np.float32)
        out[:, 0] = bright
        return out


@pytest.fixture
def seen(monkeypatch):
    monkeypatch.setattr(corpus, "_searched", square_face)


@pytest.fixture
def folder(tmp_path):
    film(tmp_path / "in" / "ann" / "a.mp4", 1)
    film(tmp_path / "in" / "b.mp4", 2, sound=False)
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video at all")
    film(tmp_path / "in" / "short.mp4", 3, frames=30)
    shutil.copy(tmp_path / "in" / "ann" / "a.mp4", tmp_path / "in" / "copy.mp4")
    return tmp_path / "in"


def test_runs_hold_what_is_seen_and_heard_and_what_cannot_be_used_is_listed(seen, folder):
    made = corpus.prepare(folder, coefficients=Counted())
    assert [(r.clip, r.identity == "ann", len(r), r.has_sound) for r in made.runs] == [
        ("ann/a.mp4", True, FRAMES, True), ("b.mp4", False, FRAMES, False),
    ]  # fmt: skip
    assert set(made.skipped) == {"broken.mp4", "short.mp4", "copy.mp4"} and "ann/a.mp4" in made.skipped["copy.mp4"]
    run = made.runs[0]
    face = run.face(40)
    assert face.shape == (256, 256, 3)
    # The landmarks of a frame frame the bright square of that frame.
    x0, y0 = run.landmarks[40, :, :2].min(0)
    x1, y1 = run.landmarks[40, :, :2].max(0)
    inside = face[int(y0) + 8 : int(y1) - 8, int(x0) + 8 : int(x1) - 8]
    assert inside.min() > 150 and face[:, : int(x0) - 12].max() < 90 and face[: int(y0) - 12].max() < 90
    assert run.coefficients.shape == (FRAMES, 73) and run.coefficients[:, 0].min() > 60
    heard = mel_windows(log_mel(media.open_clip(folder / "ann" / "a.mp4").speech().samples), FRAMES)
    assert np.array_equal(run.mel(0, FRAMES), heard) and np.array_equal(run.mel(7, 9), heard[7:9])
    with pytest.raises(MediaError):
        made.runs[1].mel(0, 1)


def test_nothing_is_looked_at_twice_and_an_interrupted_preparation_goes_on(seen, folder, monkeypatch):
    count = Counted()

    def stop(faces, points, valid):
        if count.calls == 1:
            raise KeyboardInterrupt
        return count(faces, points, valid)

    stop.name = count.name
    with pytest.raises(KeyboardInterrupt):
        corpus.prepare(folder, coefficients=stop)
    assert not list((folder / ".corpus").glob(".*"))
    corpus.prepare(folder, coefficients=count)
    assert count.calls == 2
    (folder / "b.mp4").rename(folder / "renamed.mp4")
    again = corpus.prepare(folder, coefficients=count)
    assert count.calls == 2 and [r.clip for r in again.runs] == ["ann/a.mp4", "renamed.mp4"]
    other = Counted()
    other.name = "another"
    corpus.prepare(folder, coefficients=other)
    assert other.calls == 2


def test_long_clips_are_cut_into_runs_whose_sound_joins_up(seen, folder, monkeypatch):
    monkeypatch.setattr(corpus, "LEAST", 20)

    def halves(clip):
        (whole,) = square_face(clip)
        for a, b in ((0, 25), (25, FRAMES)):
            yield corpus.Seen(a, whole.points[a:b], whole.valid[a:b])

    monkeypatch.setattr(corpus, "_searched", halves)
    first, second = (r for r in corpus.prepare(folder, coefficients=Counted()).runs if r.clip == "ann/a.mp4")
    heard = mel_windows(log_mel(media.open_clip(folder / "ann" / "a.mp4").speech().samples), FRAMES)
    assert (first.first, second.first) == (0, 25)
    assert np.array_equal(np.concatenate([first.mel(0, 25), second.mel(0, 35)]), heard)


def test_parts_are_even_and_gaps_split_runs():
    assert corpus.parts(0, 1200) == [(0, 400), (400, 800), (800, 1200)]
    valid = np.ones(200, bool)
    valid[[60, 61]] = False
    valid[120:140] = False
    points = np.arange(200, dtype=np.float32)[:, None, None] * np.ones((1, 478, 3), np.float32)
    points[~valid] = 0
    first, second = corpus._runs(1000, points, valid)
    assert (first.first, len(first), second.first, len(second)) == (1000, 120, 1140, 60)
    assert first.points[60, 0, 0] == 60 and not first.valid[60]


def test_people_are_held_out_by_name_and_never_change_sides():
    names = [f"person {k}" for k in range(2000)]
    out = [corpus.held_out(n) for n in names]
    assert 0.07 < np.mean(out) < 0.13 and out == [corpus.held_out(n) for n in names]

    def run(name, held):
        return corpus.Run(Path(name), name, name, held, 50, 0, True)

    mixed = corpus.Corpus([run("a", False), run("b", True)], {}, "x")
    assert [r.clip for r in mixed.training] == ["a"] and [r.clip for r in mixed.held_out] == ["b"]
    alone = corpus.Corpus([run("b", True)], {}, "x")
    assert len(alone.training) == 1 and not alone.held_out


def test_the_procedural_face_tells_angles_and_expression():
    model = faces.load("procedural")
    frames, jaw = 60, AU_NAMES.index("AU26")
    turn = 0.25 * np.sin(np.arange(frames) / 9)  # rad, about y up: the nose to the image's right
    opened = 0.5 + 0.5 * np.cos(np.arange(frames) / 4)
    expression = np.zeros((frames, len(AU_NAMES)), np.float32)
    expression[:, jaw] = opened
    points = model.landmarks(model.vertices(expression=expression)).astype(np.float64)
    c, s = np.cos(turn), np.sin(turn)
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    x, z = c[:, None] * x + s[:, None] * z, -s[:, None] * x + c[:, None] * z
    depth = 0.75 - z
    px = np.stack([128 + 410 * x / depth, 128 - 410 * y / depth, -410 * z / 0.75], -1)
    px = np.concatenate([px, np.repeat(px[:, :1], 10, 1)], 1).astype(np.float32)
    out = corpus.Fitted()(iter(()), px, np.ones(frames, bool))
    assert out.shape == (frames, 73) and not out[:, len(AU_NAMES) : 64].any()
    assert np.corrcoef(out[:, 65], turn)[0, 1] > 0.99 and 0.8 < np.ptp(out[:, 65]) / np.ptp(turn) < 1.2
    assert np.corrcoef(out[:, jaw], opened)[0, 1] > 0.9


def test_a_folder_without_clips_says_so(seen, tmp_path):
    with pytest.raises(ObservationsError, match="no video"):
        corpus.prepare(tmp_path)
    with pytest.raises(ObservationsError, match="no such folder"):
        corpus.prepare(tmp_path / "none")
    (tmp_path / "x.mp4").write_text("x")
    with pytest.raises(ObservationsError, match=r"no clip can be used \(x.mp4"):
        corpus.prepare(tmp_path)


@pytest.mark.skipif("VOCALFACE_TEST_DATA" not in os.environ, reason="VOCALFACE_TEST_DATA is not set")
@pytest.mark.slow
def test_a_real_clip(tmp_path):
    source = Path(os.environ["VOCALFACE_TEST_DATA"]) / "clips" / "suit_22fps.mp4"
    (tmp_path / "in").mkdir()
    os.symlink(source, tmp_path / "in" / "clip.mp4")
    made = corpus.prepare(tmp_path / "in", tmp_path / "cache")
    assert sum(map(len, made.runs)) > 100
    about = json.loads((made.runs[0].stem.parent / "clip.json").read_text())
    assert about["coefficients"] == "procedural face"
    assert np.ptp(made.runs[0].landmarks[:, :, :2], axis=1).min() > 80
