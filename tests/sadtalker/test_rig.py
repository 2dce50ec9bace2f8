"""The head of a portrait: its motions do what they say, it turns without folding, its mouth opens to a point."""

from dataclasses import replace

import numpy as np
import pytest
from test_animate import SIZE, portrait

from vocalface import assets, faces
from vocalface.faces import ict
from vocalface.observe.indices import EYE_LEFT, EYE_RIGHT
from vocalface.presenter import landmarks as places
from vocalface.presenter.face import topology
from vocalface.presenter.scene import rest_pose
from vocalface.render.mesh import warp
from vocalface.sadtalker import carry, rig
from vocalface.sadtalker.direction import LARGEST_TURN
from vocalface.sadtalker.drive import Puppet
from vocalface.sadtalker.motion import Pose

LIMITS = {
    "jaw": 0.024, "aperture": 0.024, "width": 0.0055, "round": 1.2, "tuck": 1.0, "upper": 1.0, "brow": 0.0046,
    "blink": 1.0, "inner": 0.005, "smile": 1.1, "frown": 1.2, "cheek": 1.0, "sneer": 1.3,
}  # fmt: skip
"""The most that speech or a mood asks of each motion."""


@pytest.fixture(params=faces.NAMES)
def model(request) -> str:
    if request.param == "ict" and assets.find(ict.FILE) is None:
        pytest.skip("needs ict_facekit/ict_facekit.npz: set VOCALFACE_ASSETS")
    return request.param


def per_metre() -> float:
    points = portrait().landmarks
    return float(np.linalg.norm(points[454] - points[234])) / rig.FACE_WIDTH


def posed(built: rig.Rig, **motion) -> np.ndarray:
    """Vertices in a pose [V, 3], millimetres, head coordinates."""
    return (built.deform(Pose(**motion)) - built.origin) @ built.axes * 1000


def drawn(built: rig.Rig, **motion) -> np.ndarray:
    """Where vertices are in a pose [V, 2], millimetres of the face."""
    return built.project(built.deform(Pose(**motion))) / per_metre() * 1000


def areas(px: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (px[faces[:, k]] for k in range(3))
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])


def turned_away(landmarks: np.ndarray, degrees: float) -> np.ndarray:
    """Landmarks of a head that looks past the camera: one cheek falls steeply."""
    middle = landmarks.mean(0)
    turn = rig.rotation(np.radians(degrees), 0, 0)
    return ((landmarks - middle) @ turn.T + middle).astype(np.float32)


def test_no_triangle_turns_its_back_within_the_angles_that_are_allowed():
    for away in (0, 30):
        built = rig.build(turned_away(portrait().landmarks, away), SIZE)
        rest = areas(built.project(built.deform(Pose())), built.faces)
        large = np.abs(rest) > 4  # px2; slivers about the lips have no side
        for name, sign in (("yaw", 1), ("yaw", -1), ("pitch", 1), ("pitch", -1)):
            angles = [0.0, 0.0, 0.0]
            angles[("yaw", "pitch").index(name)] = sign * np.radians(LARGEST_TURN[f"--{name}"])
            drawn = areas(built.project(built.deform(Pose(angles=tuple(angles)))), built.faces)
            assert (np.sign(drawn) == np.sign(rest))[large].mean() > 0.985, (away, name, sign)


def test_depths_become_gentle_and_gentle_ones_stay():
    x, y = np.meshgrid(np.arange(12.0), np.arange(12.0))
    slope, step = 0.5 * x, np.where(x > 5, 20.0, 0.0)
    for depth in (slope, step):
        points = np.stack([x, y, depth], -1).reshape(-1, 3)
        z = carry.gentle(points, 1.0)
        away = np.linalg.norm(points[:, None, :2] - points[None, :, :2], axis=-1)
        assert (np.abs(z[:, None] - z) <= away + 1e-9).all()
    assert np.allclose(carry.gentle(np.stack([x, y, slope], -1).reshape(-1, 3), 1.0), slope.ravel())


def test_an_open_mouth_narrows_towards_its_corners():
    built = rig.build(portrait().landmarks, SIZE)
    px = built.project(built.deform(Pose(jaw=0.012, aperture=0.014)))
    gap = px[rig.LIP_LOWER, 1] - px[rig.LIP_UPPER, 1]
    x = px[rig.LIP_UPPER, 0]
    u = np.abs(2 * (x - x[0]) / (x[-1] - x[0]) - 1)
    assert gap[5] > 8 and gap[0] < 0.5 and gap[-1] < 0.5
    assert (gap <= gap[5] * np.sqrt(1 - u**2) + 0.5).all()  # within an ellipse


def test_beside_teeth_of_the_portrait_nothing_sticks_out_of_pursed_lips():
    closed, landmarks = rig.build(portrait().landmarks, SIZE), portrait().landmarks.copy()
    landmarks[: rig.LANDMARKS, :2] = closed.project(closed.deform(Pose(aperture=0.006)))[: rig.LANDMARKS]
    built = rig.build(landmarks, SIZE)
    assert len(built.seam)
    px = built.project(built.deform(Pose(round=1.0, aperture=0.006)))
    lips = (built.uv[:, None] == built.uv[[*rig.LIP_UPPER, *rig.LIP_LOWER]]).all(-1).any(1)
    behind = np.flatnonzero(lips)[np.flatnonzero(lips) >= rig.LANDMARKS]
    left, right = px[rig.LIP_UPPER[0], 0], px[rig.LIP_UPPER[-1], 0]
    assert px[behind, 0].min() > left - 1 and px[behind, 0].max() < right + 1


def test_hair_before_a_ground_of_its_own_turns_wholly_and_only_cut_off_sides_stand_still():
    landmarks, turn = portrait().landmarks, Pose(angles=(0.0, 0.0, 0.2))
    below = np.array([False, False, False, True])
    dragged = rig.build(landmarks, SIZE)
    apart = dragged.cut_off(below)
    moved = {}
    for name, built in (("dragged", dragged), ("apart", apart)):
        rest, turned = (built.project(built.deform(pose)) for pose in (Pose(), turn))
        moved[name] = np.linalg.norm(turned - rest, axis=1)
    half = np.ptp(landmarks[[234, 454], 0]) / 2
    away = np.abs(apart.uv[:, 0] - landmarks[[234, 454], 0].mean()) / half
    beside = (away > 1.8) & (away < 2.2) & (apart.uv[:, 1] < landmarks[2, 1]) & (apart.uv[:, 1] > landmarks[10, 1])
    assert beside.any()
    assert apart.follow[beside].min() > 0.99 and dragged.follow[beside].max() < 1
    top, bottom = apart.uv[:, 1] < 1, apart.uv[:, 1] > SIZE - 1
    assert moved["dragged"][top | bottom].max() < 0.1 and moved["apart"][bottom].max() < 0.1
    assert moved["apart"][top].max() > 5


def test_a_portrait_at_rest_is_where_its_landmarks_are(model):
    built = rig.build(portrait().landmarks, SIZE, model)
    px = built.project(built.deform(Pose()))
    within = ((px > -1e-3) & (px < SIZE + 1e-3)).all(1)
    assert within.mean() > 0.7 and np.abs(px - built.uv)[within].max() < 0.01
    assert np.abs(built.uv[: rig.LANDMARKS] - portrait().landmarks[: rig.LANDMARKS, :2]).max() < 1e-3


def test_lips_open_as_far_as_they_are_told_and_meet_all_along(model):
    built = rig.build(portrait().landmarks, SIZE, model)

    def gaps(**motion) -> np.ndarray:
        points = posed(built, **motion)
        return points[rig.LIP_LOWER, 1] - points[rig.LIP_UPPER, 1]

    assert gaps(jaw=0.012)[5] - gaps()[5] == pytest.approx(12, abs=0.05)
    for motion in ({"jaw": 0.004}, {"jaw": 0.010}, {"round": 1.0}, {"width": 0.004}, {"width": -0.003}, {"smile": 1.0}):
        assert gaps(**motion, aperture=0.010)[5] == pytest.approx(10, abs=0.05), motion
        assert np.abs(gaps(**motion, aperture=0.0)).max() < 0.3, motion


def test_motions_move_what_they_name_alike_with_both_models(model):
    built = rig.build(portrait().landmarks, SIZE, model)
    rest = drawn(built)

    def moved(landmark: int, **motion) -> np.ndarray:
        return drawn(built, **motion)[landmark] - rest[landmark]

    jaw = {"jaw": 0.010, "aperture": 0.010}
    assert 6 < moved(152, **jaw)[1] < 12 and 6 < moved(17, **jaw)[1] < 12, "chin and lower lip"
    assert abs(moved(1, **jaw)[1]) < 0.5 and abs(moved(33, **jaw)[1]) < 0.3, "not the nose, nor the eyes"
    assert 1.5 < moved(291, **jaw)[1] < 6 and 0.5 < moved(436, **jaw)[1] < 5, "corners and cheeks follow"
    assert 2.5 < moved(291, width=0.004)[0] < 5 and -5 < moved(61, width=0.004)[0] < -2.5
    assert moved(291, width=0.004)[1] < 0.3, "wide lips do not sag"
    assert -3.6 < moved(291, width=-0.003)[0] < -2.0 < 2.0 < moved(61, width=-0.003)[0] < 3.6
    assert -6.2 < moved(291, round=1.0)[0] < -3.8 < 3.8 < moved(61, round=1.0)[0] < 6.2
    assert moved(291, round=1.0)[0] < moved(432, round=1.0)[0] < -0.3, "cheeks are drawn in, less than lips"
    assert -2.4 < moved(0, upper=1.0)[1] < -0.8
    for landmark in (105, 334):
        assert -6 < moved(landmark, brow=0.004)[1] < -2.5 and moved(landmark, brow=-0.003)[1] > 0.3
    for landmark in (107, 336):
        assert 1.5 < moved(landmark, brow=-0.003)[1] < 5
    assert -4 < moved(336, inner=0.003)[1] < -2 and abs(moved(300, inner=0.003)[1]) < 1.2
    assert moved(291, smile=1.0)[1] < -3.5 and moved(291, smile=1.0)[0] > 2 and moved(425, smile=1.0)[1] < -0.5
    assert moved(61, frown=1.0)[1] > 2 and -5 < moved(425, cheek=1.0)[1] < -2
    assert -5 < moved(358, sneer=1.0)[1] < -1.5 and abs(moved(152, sneer=1.0)[1]) < 1


def test_speech_folds_no_skin(model):
    built = rig.build(portrait().landmarks, SIZE, model)
    rest = areas(drawn(built), built.faces)
    skin = (built.faces < built.copies.max() + 1).all(1) & (np.abs(rest) > 2)
    poses = [{name: value} for name, value in LIMITS.items()]
    poses += [{"width": -0.0045}, {"brow": -0.004}, {"jaw": 0.024, "aperture": 0.024}, {"jaw": 0.008, "aperture": 0.0}]
    poses += [{"jaw": 0.012, "aperture": 0.016, "round": 1.2}, {"width": 0.0055, "upper": 1.0, "aperture": 0.012}]
    for motion in poses:
        now = areas(drawn(built, **motion), built.faces)
        share = (np.sign(now) == np.sign(rest))[skin].mean()
        assert share > 0.995, (motion, share)


def test_a_turned_head_is_about_where_a_turned_head_would_be(model):
    given = portrait()
    camera = rig.view(SIZE)
    turn = np.radians(15)
    truth, start = rest_pose(), places.on_surface(topology().rest, np.zeros(2))
    truth[:3, :3] = rig.rotation(turn, 0, 0) @ truth[:3, :3]
    there = places.project(start, truth, camera)[: rig.LANDMARKS, :2]
    here = rig.build(given.landmarks, SIZE, model)
    here = here.project(here.deform(Pose(angles=(turn, 0.0, 0.0))))[: rig.LANDMARKS]
    off = (here - here.mean(0)) - (there - there.mean(0))
    way = there - there.mean(0) - (given.landmarks[: rig.LANDMARKS, :2] - given.landmarks[: rig.LANDMARKS, :2].mean(0))
    assert np.linalg.norm(off, axis=1).mean() < 0.3 * np.linalg.norm(way, axis=1).mean()


def test_a_head_turned_far_keeps_its_nose_and_its_far_eye(model):
    given, turn = portrait().landmarks, np.radians(35)
    built = rig.build(given, SIZE, model)
    truth, start = rest_pose(), places.on_surface(topology().rest, np.zeros(2))
    for sign, (outer, inner) in ((-1, (33, 133)), (1, (263, 362))):
        turned = truth.copy()
        turned[:3, :3] = rig.rotation(sign * turn, 0, 0) @ truth[:3, :3]
        there = places.project(start, turned, rig.view(SIZE))[:, 0]
        here = built.project(built.deform(Pose(angles=(sign * turn, 0.0, 0.0))))[:, 0]
        assert 0.9 < (here[outer] - here[inner]) / (there[outer] - there[inner]) < 1.25, "the eye is not squeezed"
        nose, root = 1, 168
        assert 0.75 < (here[nose] - here[root]) / (there[nose] - there[root]) < 1.35, "the nose stands out"


def test_nothing_is_seen_past_an_eye_of_a_head_that_is_turned_far():
    for away in (0, 20):
        given = replace(portrait(), landmarks=turned_away(portrait().landmarks, away))
        puppet = Puppet(given)
        puppet.under = np.full((SIZE, SIZE, 3), (255, 0, 255), np.uint8)
        for yaw in (-35, 35):
            pose = Pose(angles=(np.radians(yaw), 0.0, 0.0))
            image, px = puppet.draw(pose), puppet.rig.project(puppet.rig.deform(pose))
            for rim in (EYE_LEFT, EYE_RIGHT):
                x, y = px[rim].mean(0).astype(int)
                about = image[y - 12 : y + 13, x - 12 : x + 13]
                assert not (about == (255, 0, 255)).all(-1).any(), (away, yaw)


def small_mouthed(share: float) -> np.ndarray:
    """The drawn face's landmarks with a smaller mouth."""
    points = portrait().landmarks.copy()
    away = points - points[[13, 14]].mean(0)
    near = np.exp(-((np.linalg.norm(away[:, :2], axis=1, keepdims=True) / (0.04 * per_metre())) ** 4))
    return points - (1 - share) * near * away


def test_a_small_mouth_moves_less_and_a_smile_makes_none_larger(model):
    usual, small = rig.build(portrait().landmarks, SIZE, model), rig.build(small_mouthed(0.7), SIZE, model)
    assert 0.65 < small.mouth.size / usual.mouth.size < 0.85
    spoken, shares = Pose(jaw=0.008, aperture=0.010, round=0.5), []
    for built in (usual, small):
        points = posed(built, **vars(spoken.sized(built.mouth.size)))
        shares.append((points[14, 1] - points[13, 1]) / (built.mouth.right - built.mouth.left))
    assert shares[1] == pytest.approx(shares[0], rel=0.12), "they open alike for their width"
    smiling = portrait().landmarks.copy()
    smiling[: rig.LANDMARKS, :2] = usual.project(usual.deform(Pose(smile=1.0)))[: rig.LANDMARKS]
    wider = np.ptp(smiling[[61, 291], 0]) / np.ptp(portrait().landmarks[[61, 291], 0])
    assert wider > 1.1 and rig.build(smiling, SIZE, model).mouth.size < 1.06 * usual.mouth.size


def test_hair_that_the_border_cuts_off_leans_with_the_head_and_goes_on_beyond_it():
    given, lean = portrait().landmarks.copy(), 0.3
    given[:, 1] -= given[10, 1] - 0.06 * SIZE  # the border cuts off what is over the forehead
    built = rig.build(given, SIZE).cut_off(np.array([True, True, True, True]))
    rest, turned = (built.project(built.deform(Pose(angles=(0.0, 0.0, roll)))) for roll in (0.0, lean))
    half = np.ptp(given[[234, 454], 0]) / 2
    over = (np.abs(rest[:, 0] - given[10, 0]) < half) & (rest[:, 1] < 1) & (rest[:, 1] > -0.1 * SIZE)
    assert (rest[over, 1] < -1).any(), "there is something beyond the border"
    before, after = (np.linalg.norm(px[over] - px[10], axis=1) for px in (rest, turned))
    assert np.abs(after / before - 1).max() < 0.05, "it is not drawn out"
    assert built.uv.min() > -1e-3 and built.uv.max() < SIZE + 1e-3, "and shows what the picture has"


def test_a_person_that_the_sides_cut_off_does_not_end_within_sight():
    for away in (0, 20):
        built = rig.build(turned_away(portrait().landmarks, away), SIZE).cut_off(np.ones(4, bool))
        solid, under = np.full((SIZE, SIZE, 4), 255, np.uint8), np.zeros((SIZE, SIZE, 3), np.uint8)
        for yaw in (-1, 1):
            points = built.deform(Pose(angles=(yaw * np.radians(LARGEST_TURN["--yaw"]), 0.0, 0.0)))
            seen = warp(points, built.faces, built.camera, uv=built.uv, texture=solid, under=under, threads=1)
            brow, chin = built.project(points)[[9, 152], 1].astype(int)
            assert (seen[brow:chin].min(-1) > 0).mean() > 0.995, (away, yaw)
