"""The presenter's truths hold: geometry, layers, landmarks, and that a landmarker sees a face."""

from __future__ import annotations

import os

import numpy as np
import pytest

from vocalface.errors import ConfigError
from vocalface.observe.indices import BLENDSHAPES, LIPS_INNER, LIPS_OUTER
from vocalface.presenter import landmarks, make, surface
from vocalface.presenter.face import JAW_ANGLE, topology
from vocalface.presenter.motion import BLINK, perform
from vocalface.presenter.scene import Person, State, rest_pose
from vocalface.presenter.voice import script, speak
from vocalface.types import AU_NAMES, BACKGROUND, FACE, HAIR, MOUTH, NECK, TORSO


@pytest.fixture(scope="module")
def person():
    return Person(0, 96)


def units(**intensity):
    au = np.zeros(len(AU_NAMES), np.float32)
    for name, value in intensity.items():
        au[AU_NAMES.index(name)] = value
    return au


def state(pose=None, **intensity):
    return State(units(**intensity), rest_pose() if pose is None else pose, rest_pose())


def row(person, name, au):
    return person.face.pose(au)[topology().rims[name]]


def lip_gap(person, **intensity):
    """Inner-lip distance at the middle, metres."""
    upper, lower = (row(person, f"lip_{lip}_inner", units(**intensity)) for lip in ("upper", "lower"))
    return (upper - lower)[len(upper) // 2, 1]


# The mesh


def test_the_mesh_is_oriented_and_open_only_at_eyes_mouth_and_border(person):
    t = topology()
    edges = np.concatenate([t.faces[:, [0, 1]], t.faces[:, [1, 2]], t.faces[:, [2, 0]]])
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert count.max() == 1  # each directed edge once: neighbours agree which side is outside
    normals = person.face.normals(person.face.neutral)
    skin = t.wet == 0
    assert (normals[skin] * (t.rest - surface.CENTRE)[skin]).sum(1).mean() > 0.05


def test_the_lips_touch_at_rest_and_stay_sealed_for_a_little_jaw(person):
    assert lip_gap(person) == pytest.approx(0, abs=1e-6)
    assert lip_gap(person, AU26=1.0) < 3e-4


@pytest.mark.parametrize("name", ["AU25", "AU26"])
def test_the_mouth_opens_monotonically(person, name):
    gaps = [lip_gap(person, **{name: a}) for a in np.linspace(0, 5, 11)]
    assert np.all(np.diff(gaps) > -1e-6)
    assert gaps[-1] > 0.005


def test_the_jaw_turns_about_its_hinge_by_its_angle(person):
    turn = person.face.jaw_rotation(units(AU26=5))
    assert np.arccos((np.trace(turn) - 1) / 2) == pytest.approx(JAW_ANGLE, rel=1e-4)
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-6)


def test_lids_close_over_the_eyes_without_touching_them(person):
    for side, name in ((-1, "left"), (1, "right")):
        centre = np.array([side * surface.EYE_X, 0.025, surface.EYE_Z])
        openings = []
        for a in np.linspace(0, 5, 11):
            upper, lower = (row(person, f"lid_{name}_{lid}", units(AU45=a)) for lid in ("upper", "lower"))
            openings.append((upper - lower)[:, 1].max())
            inside = (np.concatenate([upper, lower]) - centre) / (surface.EYE_WIDE, 1, 1)
            assert np.linalg.norm(inside, axis=1).min() > surface.EYE_RADIUS
        assert openings[0] > 0.008 and openings[-1] < 5e-4
        assert np.all(np.diff(openings) < 0)


@pytest.mark.parametrize(
    "name, rim, axis, least",
    [
        ("AU12", "lip_upper_outer", 1, 0.003), ("AU15", "lip_upper_outer", 1, -0.003),
        ("AU20", "lip_upper_outer", 0, 0.003), ("AU23", "lip_upper_outer", 0, -0.005),
        ("AU05", "lid_right_upper", 1, 0.001),
    ],
)  # fmt: skip
def test_units_move_what_they_name_and_in_proportion(person, name, rim, axis, least):
    at = -1 if rim.startswith("lip") else 15  # the corner at image right, or the lid's middle
    rest, half, full = (row(person, rim, units(**{name: a}))[at, axis] for a in (0, 2.5, 5))
    assert (full - rest) / least > 1
    assert half - rest == pytest.approx((full - rest) / 2, rel=0.2)


def test_faces_move_alike_on_both_sides(person):
    t = topology()
    left, right = t.rims["lid_left_upper"], t.rims["lid_right_upper"]
    for name in AU_NAMES:
        p = person.face.pose(units(**{name: 4.0}))
        assert np.allclose(p[left], p[right] * (-1, 1, 1), atol=1e-4), name
        lip = p[t.rims["lip_lower_outer"]]
        assert np.allclose(lip, lip[::-1] * (-1, 1, 1), atol=1e-4), name


# Landmarks


def test_landmarks_are_the_projection_of_surface_points(person):
    pose = perform([*speak("aa1 .").phones], 30, seed=3).head_pose[17]
    frame = person.draw(state(pose, AU25=3, AU26=2))
    points = landmarks.project(landmarks.on_surface(frame.vertices, np.zeros(2)), pose, person.camera)
    assert points.shape == (478, 3)
    t = topology()
    for landmark, rim, at in ((61, "lip_upper_outer", 0), (291, "lip_lower_outer", -1), (13, "lip_upper_inner", 28)):
        p = pose[:3, :3] @ frame.vertices[t.rims[rim][at]] + pose[:3, 3]
        assert person.camera.fx * p[0] / p[2] + person.camera.cx == pytest.approx(points[landmark, 0], abs=1e-3)
        assert person.camera.fy * p[1] / p[2] + person.camera.cy == pytest.approx(points[landmark, 1], abs=1e-3)
    assert points[1, 2] < points[33, 2] < points[234, 2]  # nose before eyes before ears


def test_the_mouth_that_is_drawn_lies_inside_the_inner_lip_landmarks(person):
    shape = state(AU25=5, AU26=4)
    frame = person.draw(shape)
    points = landmarks.project(landmarks.on_surface(frame.vertices, np.zeros(2)), shape.head_pose, person.camera)
    y, x = np.nonzero(frame.labels == MOUTH)
    inner, outer = points[LIPS_INNER, :2], points[LIPS_OUTER, :2]
    assert len(x) > 20
    assert x.min() > inner[:, 0].min() - 1.5 and x.max() < inner[:, 0].max() + 1.5
    assert y.min() > inner[:, 1].min() - 1.5 and y.max() < inner[:, 1].max() + 1.5
    assert frame.labels[int(outer[15, 1]) - 1, int(outer[15, 0])] == FACE  # the lower lip itself is face


def test_irises_follow_the_gaze(person):
    straight, right, up = (landmarks.on_surface(person.face.neutral, g) for g in ((0, 0), (0.2, 0), (0, 0.2)))
    assert np.all(right[[468, 473], 0] > straight[[468, 473], 0] + 0.002)
    assert np.all(up[[468, 473], 1] > straight[[468, 473], 1] + 0.002)


def test_blendshapes_name_the_units(person):
    shapes = landmarks.blendshapes(np.stack([units(AU26=2.5), units(AU45=5)]), np.zeros((2, 2)))
    assert shapes.shape == (2, 52)
    assert shapes[0, BLENDSHAPES.index("jawOpen")] == pytest.approx(0.5)
    assert shapes[1, BLENDSHAPES.index("eyeBlinkLeft")] == 1 and shapes[1, BLENDSHAPES.index("jawOpen")] == 0


# Pictures


def test_labels_name_everything_and_lie_in_order(person):
    labels = person.draw(state(AU25=5, AU26=5)).labels
    assert set(np.unique(labels)) == {BACKGROUND, FACE, HAIR, MOUTH, NECK, TORSO}
    height = {l: np.nonzero(labels == l)[0].mean() for l in range(6)}
    assert height[HAIR] < height[MOUTH] < height[NECK] < height[TORSO]


def test_the_layers_compose_to_the_frame(person):
    frame = person.draw(state(AU25=4, AU26=2))
    alpha = frame.head_alpha / 255.0
    outside = frame.head_alpha == 0
    assert np.array_equal(frame.image[outside], frame.behind[outside])
    share = frame.torso[..., 3:] / 255.0
    behind = frame.torso[..., :3] * share + person.plate * (1 - share)
    assert np.abs(behind - frame.behind).max() <= 1
    is_head = np.isin(frame.labels, (FACE, HAIR, MOUTH))
    assert alpha[is_head].min() >= 0.25 and alpha[~is_head].max() <= 0.75
    # The head's own colour is what remains, and it is a colour.
    head = frame.image - frame.behind * (1 - alpha[..., None])
    assert head.min() > -1.5 and np.all(head <= 255 * alpha[..., None] + 1.5)


def test_the_torso_is_whole_under_the_head(person):
    frame = person.draw(state())
    x = person.size // 2
    chin = np.nonzero(frame.labels[:, x] == NECK)[0].min()
    assert np.all(frame.torso[chin - 4 : chin, x, 3] == 255)


def test_nothing_but_the_pose_moves_the_torso_and_the_plate(person):
    still, speaking = person.draw(state()), person.draw(state(AU25=5, AU12=3, AU45=5))
    assert np.array_equal(still.torso, speaking.torso)
    assert not np.array_equal(still.image, speaking.image)


def test_the_same_seed_is_the_same_person_and_another_is_not(person):
    again, other = Person(0, 96).draw(state()), Person(1, 96).draw(state())
    assert np.array_equal(person.draw(state()).image, again.image)
    assert np.abs(again.image.astype(int) - other.image).mean() > 5


# Motion and film


def test_heads_drift_within_limits_and_blinks_come(person):
    motion = perform(speak(script(20, 1), seed=1, seconds=20.0).phones, 500, seed=1)
    turns = motion.head_pose[:, :3, :3] @ np.linalg.inv(rest_pose()[:3, :3])
    assert np.degrees(np.arccos((np.trace(turns, axis1=1, axis2=2) - 1) / 2)).max() < 16
    steps = np.diff(motion.head_pose[:, :3, 3], axis=0)
    assert np.abs(steps).max() < 0.002 and np.abs(steps).max() > 1e-5
    blink = motion.action_units[:, AU_NAMES.index("AU45")] / 5
    starts = np.flatnonzero(np.isclose(blink, BLINK[0]))
    assert 2 <= len(starts) <= 20
    assert np.allclose(blink[starts[0] : starts[0] + len(BLINK)], BLINK, atol=1e-6)


def test_make_writes_a_clip_with_its_truths(tmp_path):
    from vocalface import media
    from vocalface.observe import store

    told = []
    obs = make(tmp_path, 1.2, seed=4, size=64, progress=lambda *a: told.append(a))
    assert len(obs) == 30 and told[-1][:2] == (30, 30)
    clip = media.open_clip(obs.clip)
    assert clip.has_sound and (clip.width, clip.height) == (64, 64)
    assert obs.info["phones"][-1][2] == pytest.approx(1.2, abs=0.01)
    seen = next(iter(store.frames(obs, 10, 11)))
    alpha = seen.head_alpha[..., None] / 255.0
    assert np.abs(seen.image.astype(float) - seen.behind)[alpha[..., 0] == 0].mean() < 6
    again = make(tmp_path / "again", 1.2, seed=4, size=64)
    assert again.clip_hash == obs.clip_hash
    assert np.array_equal(again.track.landmarks, obs.track.landmarks)


def test_frames_drawn_side_by_side_are_those_drawn_in_turn(tmp_path, monkeypatch):
    from vocalface.observe import store

    made = []
    for threads in ("1", "3"):
        monkeypatch.setenv("VOCALFACE_THREADS", threads)
        made.append(make(tmp_path / threads, 1.0, seed=3, size=64))
    one, many = made
    assert one.clip_hash == many.clip_hash
    assert np.array_equal(one.track.landmarks, many.track.landmarks)
    assert np.array_equal(one.track.head_pose, many.track.head_pose)
    for a, b in zip(store.frames(one), store.frames(many), strict=True):
        for layer in ("image", "labels", "head_alpha", "behind"):
            assert np.array_equal(getattr(a, layer), getattr(b, layer))


@pytest.mark.parametrize("wrong", [{"seconds": 0.2}, {"size": 63}, {"voice": "nobody"}])
def test_make_refuses_what_makes_no_sense(tmp_path, wrong):
    with pytest.raises(ConfigError):
        make(tmp_path / "none", **{"seconds": 1.0, "size": 64, **wrong})
    assert not (tmp_path / "none" / "presenter.mp4").exists()


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("VOCALFACE_ASSETS"), reason="VOCALFACE_ASSETS is unset: no landmarker file")
@pytest.mark.parametrize("seed", [0, 1])
def test_a_landmarker_sees_the_face_where_it_is(seed):
    from vocalface.observe.landmarks import Landmarker

    motion = perform(speak(script(8, seed), seed=seed, seconds=8.0).phones, 200, seed=seed)
    person, errors, measured, true = Person(seed, 512), [], [], []
    lips = LIPS_OUTER + LIPS_INNER
    with Landmarker() as landmarker:
        for i in range(len(motion)):
            now = motion.state(i)
            frame = person.draw(now)
            points = landmarks.project(landmarks.on_surface(frame.vertices, now.gaze), now.head_pose, person.camera)
            for face in landmarker(frame.image)[:1]:
                errors.append(np.linalg.norm(face.landmarks[lips, :2] - points[lips, :2], axis=1).mean())
                measured.append(face.blendshapes)
                true.append(now.action_units)
    measured, true = np.array(measured), np.array(true)
    assert len(errors) >= 0.99 * len(motion)
    assert np.mean(errors) < 3.0
    jaw = measured[:, BLENDSHAPES.index("jawOpen")]
    blink = measured[:, BLENDSHAPES.index("eyeBlinkLeft")]
    assert np.corrcoef(jaw, true[:, AU_NAMES.index("AU26")])[0, 1] >= 0.8
    assert np.corrcoef(blink, true[:, AU_NAMES.index("AU45")])[0, 1] >= 0.8
