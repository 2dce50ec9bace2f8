"""Heads with named shapes: one layout for both face models, and a portrait's landmarks fitted."""

from pathlib import Path

import numpy as np
import pytest

from vocalface import assets, faces
from vocalface.errors import ConfigError
from vocalface.faces import heads, ict
from vocalface.faces.portrait import FLIP, bounded, fit
from vocalface.observe.pose import rotations, similarity
from vocalface.types import Camera

CAMERA = Camera(1280, 1280, 256, 256, 512, 512)


@pytest.fixture(params=faces.NAMES)
def head(request):
    if request.param == "ict" and assets.find(ict.FILE) is None:
        pytest.skip("needs ict_facekit/ict_facekit.npz: set VOCALFACE_ASSETS")
    return heads.head(request.param)


def seen(head, identity, expression, turned) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks [468, 3] px of a head that is turned by a rotation vector, and its rotation."""
    rotation = rotations(np.asarray(turned, float)) @ FLIP
    points = head.vertices(identity, expression)[: heads.LANDMARKS] @ rotation.T + (0.02, 0.01, 0.9)
    px = points[:, :2] / points[:, 2:] * CAMERA.fx + 256
    return np.column_stack([px, (points[:, 2] - 0.9) * CAMERA.fx / 0.9]), rotation


def someone(head, **expressions) -> tuple[np.ndarray, np.ndarray]:
    identity = np.random.default_rng(3).normal(0, 0.6, len(head.identity))
    return identity, np.array([expressions.get(name, 0.0) for name in head.expressions])


def test_both_models_have_the_same_layout_and_names(head):
    assert head.expressions == tuple(heads.SHAPES) and len(head.neutral) == heads.LANDMARKS + 36 * len(heads.RINGS)
    points = head.landmarks(head.neutral)
    assert np.array_equal(points, head.neutral[: heads.LANDMARKS])
    assert 0.08 < points[263, 0] - points[33, 0] < 0.1 and points[10, 1] > points[1, 1] > points[152, 1]
    shell = head.neutral[heads.LANDMARKS :]
    assert shell[:, 2].max() < points[:, 2].max() and np.linalg.norm(shell, axis=1).max() < 0.25
    assert shell[:, 1].max() > points[:, 1].max() + 0.02 and shell[:, 2].min() < points[:, 2].min()


@pytest.mark.parametrize(
    ("shape", "landmark", "axis", "sign"),
    [
        ("jawOpen", 152, 1, -1), ("mouthSmile", 291, 1, 1), ("mouthSmile", 291, 0, 1), ("mouthStretch", 61, 0, -1),
        ("mouthPucker", 291, 0, -1), ("mouthPucker", 0, 2, 1), ("mouthFrown", 291, 1, -1), ("mouthUpperUp", 0, 1, 1),
        ("mouthLowerDown", 17, 1, -1), ("browOuterUp", 334, 1, 1), ("browInnerUp", 336, 1, 1), ("browDown", 296, 1, -1),
        ("cheekSquint", 425, 1, 1), ("noseSneer", 358, 1, 1), ("eyeBlink", 386, 1, -1), ("mouthShrugLower", 17, 1, 1),
    ],
)  # fmt: skip
def test_a_shape_moves_what_it_names(head, shape, landmark, axis, sign):
    moved = head.expression[head.expressions.index(shape), landmark]
    assert sign * moved[axis] > 0.0008


def test_who_with_what_expression_and_how_turned_is_found_again(head):
    identity, expression = someone(head, jawOpen=0.5, mouthSmile=0.6)
    for turned in ((0, 0, 0), (0.1, 0.3, -0.1), (-0.15, -0.4, 0.2)):
        landmarks, rotation = seen(head, identity, expression, turned)
        found = fit(head, landmarks, CAMERA)
        assert np.sqrt((found.residual**2).mean()) < 0.0006
        assert np.degrees(np.arccos((np.trace(found.rotation @ rotation.T) - 1) / 2)) < 2.0
        values = dict(zip(head.expressions, found.expression))
        assert values.pop("jawOpen") == pytest.approx(0.5, abs=0.2)
        assert values.pop("mouthSmile") == pytest.approx(0.6, abs=0.2)
        assert max(values.values()) < 0.25
        true, mean = head.vertices(identity)[: heads.LANDMARKS], head.neutral[: heads.LANDMARKS]
        own = head.vertices(found.identity)[: heads.LANDMARKS]
        missed, plain = (np.linalg.norm(similarity(x, true) - true, axis=1).mean() for x in (own, mean))
        assert missed < 0.6 * plain, "nearer to this person than to everybody"


def test_a_neutral_face_seen_with_noise_has_no_expression(head):
    identity, expression = someone(head)
    landmarks, _ = seen(head, identity, expression, (0, 0.1, 0))
    landmarks += np.random.default_rng(1).normal(0, 1.0, landmarks.shape)
    found = fit(head, landmarks, CAMERA)
    assert found.expression.max() < 0.25 and np.sqrt((found.residual**2).mean()) < 0.0015


def test_a_head_that_does_not_fit_is_not_believed(head):
    landmarks, _ = seen(head, *someone(head), (0, 0, 0))
    assert fit(head, landmarks, CAMERA).trust == float(head.scanned)
    torn = landmarks + np.random.default_rng(2).normal(0, 14.0, landmarks.shape)
    assert fit(head, torn, CAMERA).trust == 0


def test_bounds_hold_and_what_is_free_is_solved_exactly():
    rows = np.random.default_rng(0).normal(size=(20, 5))
    gram, wanted = rows.T @ rows, np.array([0.5, 2.0, -1.0, 0.2, 3.0])
    assert np.allclose(bounded(gram, gram @ wanted, np.full(4, -5.0), np.full(4, 5.0)), wanted)
    found = bounded(gram, gram @ wanted, np.zeros(4), np.ones(4))
    assert found[:4].min() >= 0 and found[:4].max() <= 1
    free = (found[:4] > 0) & (found[:4] < 1)
    assert np.abs((gram @ (found - wanted))[:4][free]).max(initial=0) < 1e-9
    assert abs((gram @ (found - wanted))[4]) < 1e-9


def test_our_own_head_is_that_of_the_presenter():
    whole, small = faces.load("procedural"), heads.head("procedural")
    assert np.abs(whole.landmarks(whole.neutral) - small.neutral[: heads.LANDMARKS]).max() < 1e-4
    for shape, unit in heads.SHAPES.items():
        moved = whole.landmarks(whole.expression[whole.expressions.index(unit)])
        assert np.abs(moved - small.expression[small.expressions.index(shape), : heads.LANDMARKS]).max() < 1e-4


def test_without_its_file_ict_is_not_chosen_and_unknown_models_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    heads.head.cache_clear()
    try:
        assert heads.head().name == "procedural"
        with pytest.raises(ConfigError, match="no face model"):
            heads.head("flame")
    finally:
        heads.head.cache_clear()


@pytest.mark.slow
def test_landmarks_of_ict_facekit_are_those_that_the_canonical_face_slides_to():
    if assets.find(ict.FILE) is None or assets.find(ict.CANONICAL) is None:
        pytest.skip("needs ict_facekit/ict_facekit.npz and the canonical face: set VOCALFACE_ASSETS")
    face = ict.model(ict.HEAD)
    found = ict.correspondence(ict.read_points(Path(assets.path(ict.CANONICAL))) * ict.UNIT, face)
    known = np.array(ict.MEDIAPIPE_VERTICES)
    assert (found == known).mean() > 0.95
    assert np.linalg.norm(face.neutral[found] - face.neutral[known], axis=1).max() < 0.006
