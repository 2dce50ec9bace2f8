"""Morphable faces: what they are made of, and expressions found again from landmarks."""

import os
from pathlib import Path

import numpy as np
import pytest

from vocalface import assets, faces
from vocalface.errors import AssetError, ConfigError
from vocalface.faces import ict
from vocalface.faces.fit import box_least_squares, fit_expressions
from vocalface.types import AU_NAMES

FRAMES = 60


def has_ict() -> bool:
    return assets.find(ict.FILE) is not None and assets.find(ict.CANONICAL) is not None


@pytest.fixture(params=faces.NAMES)
def model(request):
    if request.param == "ict" and not has_ict():
        pytest.skip("needs ict_facekit/ict_facekit.npz and the canonical face: set VOCALFACE_ASSETS")
    return faces.load(request.param)


def signals(count: int, seed: int = 0) -> np.ndarray:
    """Coefficients [FRAMES, count], each at rest for half of the time."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(FRAMES)[:, None] * rng.uniform(0.15, 0.5, count) + rng.uniform(0, 6, count))
    return 0.7 * np.clip(wave, 0, None)


def test_a_model_is_a_head_in_metres(model):
    points = model.landmarks(model.neutral)
    assert points.shape == (468, 3) and len(model.expressions) == len(model.expression)
    assert 0.08 < points[263, 0] - points[33, 0] < 0.1, "the outer corners of the eyes"
    assert points[10, 1] > points[1, 1] > points[152, 1] and points[1, 2] > points[234, 2]
    assert abs(points[33, 1] - points[263, 1]) < 0.003
    assert model.faces.min() >= 0 and model.faces.max() < len(model.neutral)
    assert np.abs(model.weights.sum(1) - 1).max() < 1e-5


def test_coefficients_are_linear_and_may_be_fewer(model):
    two = np.zeros((3, len(model.expression)), np.float32)
    two[1, 0], two[2, 0] = 0.5, 1
    found = model.vertices(expression=two)
    assert np.allclose(found[1] - found[0], (found[2] - found[0]) / 2, atol=1e-6)
    assert np.array_equal(model.vertices(), model.neutral)
    assert np.allclose(model.vertices(identity=[2.0]), model.neutral + 2 * model.identity[0], atol=1e-6)


def test_the_jaw_drops_the_chin_and_a_smile_spreads_the_corners(model):
    jaw, smile = ("AU26", ["AU12"]) if model.name == "procedural" else ("jawOpen", ["mouthSmile_L", "mouthSmile_R"])
    moved = model.landmarks(model.expression[model.expressions.index(jaw)])
    assert moved[152, 1] < -0.008 and abs(moved[10, 1]) < 1e-3
    moved = sum(model.landmarks(model.expression[model.expressions.index(s)]) for s in smile)
    assert moved[291, 0] > 0.002 and moved[61, 0] < -0.002


def test_expressions_are_found_again_on_another_persons_face(model):
    if model.name == "procedural":
        names = ("AU01", "AU04", "AU09", "AU12", "AU15", "AU26")
    else:
        names = ("browInnerUp_L", "jawOpen", "mouthSmile_L", "mouthFrown_L", "mouthFrown_R", "noseSneer_L")
    columns = [model.expressions.index(n) for n in names]
    truth = signals(len(names))
    basis = model.landmarks(model.expression[columns])
    person = model.landmarks(model.vertices(identity=np.full(5, 1.0)))
    points = 0.93 * (person + np.tensordot(truth, basis, axes=1))
    points += np.random.default_rng(1).normal(0, 2e-4, points.shape)
    found = fit_expressions(model, points, np.ones(FRAMES, bool), ridge=20)
    for k, column in enumerate(columns):
        assert np.corrcoef(found[:, column], truth[:, k])[0, 1] > 0.85, names[k]
    others = np.delete(found, columns, axis=1)
    assert others.mean() < 0.05 and found.min() >= 0 and found.max() <= 1
    named = fit_expressions(model, points, np.ones(FRAMES, bool), ridge=20, names=names[:2])
    assert np.flatnonzero(named.any(0)).tolist() == sorted(columns[:2])


def test_long_clips_are_fitted_in_parts(monkeypatch):
    model = faces.load("procedural")
    points = model.landmarks(model.neutral) + np.tensordot(signals(17), model.landmarks(model.expression), axes=1)
    whole = fit_expressions(model, points, np.ones(FRAMES, bool))
    monkeypatch.setattr("vocalface.faces.fit.SAMPLE", 25)
    parts = fit_expressions(model, points, np.ones(FRAMES, bool))
    assert np.abs(parts - whole).mean() < 0.02


def test_the_box_holds_and_the_inside_is_exact():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(20, 6))
    gram = a.T @ a
    inside = rng.uniform(0.1, 0.9, (5, 6))
    assert np.allclose(box_least_squares(gram, inside @ gram, np.zeros((5, 6))), inside, atol=1e-4)
    outside = inside + np.array([2, -2, 0, 0, 0, 0])
    found = box_least_squares(gram, outside @ gram, np.zeros((5, 6)))
    slope = found @ gram - outside @ gram
    assert found.min() >= 0 and found.max() <= 1
    assert (np.abs(slope) < 1e-3)[(found > 1e-6) & (found < 1 - 1e-6)].all(), "nothing to gain inside"
    assert (slope[found <= 1e-6] > -1e-3).all() and (slope[found >= 1 - 1e-6] < 1e-3).all(), "nor at the walls"


def test_procedural_expressions_are_the_action_units():
    assert faces.load("procedural").expressions == AU_NAMES


def test_unknown_models_and_absent_or_torn_files_are_said(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no face model"):
        faces.load("flame")
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(AssetError, match="ict_facekit"):
        ict.model()
    (tmp_path / "face.obj").write_text("v 1 2 3\n")
    with pytest.raises(AssetError, match="1 points"):
        ict.read_points(tmp_path / "face.obj")


def test_landmarks_of_the_68_lie_on_their_published_vertices():
    if not has_ict() or "VOCALFACE_ASSETS" not in os.environ:
        pytest.skip("needs the ICT-FaceKit file: set VOCALFACE_ASSETS")
    model = faces.load("ict")
    canonical = ict.read_points(Path(assets.path(ict.CANONICAL)))
    from vocalface.observe.pose import similarity

    off = np.linalg.norm(similarity(canonical, model.landmarks(model.neutral)) - model.landmarks(model.neutral), axis=1)
    assert np.median(off) < 0.006, "two mean faces differ by millimetres"
    assert len(np.unique(model.anchors[:, 0])) > 440
