from __future__ import annotations

import numpy as np
import pytest
from observe_scene import DARK, SKIN, clip, draw, person_mask, wall
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, shift

from vocalface.errors import ObservationsError
from vocalface.observe.layers import LayerBuilder, _hung, head_colours, steady, torso_layer
from vocalface.observe.masks import WORK, FaceShape, calm
from vocalface.types import BACKGROUND, FACE, HAIR, MOUTH, NECK, TORSO

SIZE = 256
RIM = 14  # px above the chin from which hair that hangs fades out


class Built:
    """A drawn clip with its layers."""

    def __init__(self, drawn, size=SIZE, invalid=()):
        self.drawn = drawn
        valid = ~np.isin(np.arange(len(drawn)), invalid)
        landmarks = np.stack([d.landmarks for d in drawn])
        self.builder = LayerBuilder(size, landmarks, valid, person=person_mask(drawn))
        self.plate = self.builder.observe_plate((i, d.frame) for i, d in enumerate(drawn))

    def layers(self, index):
        return self.builder.build(index, self.drawn[index].frame)

    def behind(self, torso):
        share = torso[..., 3:] / 255
        return np.rint(torso[..., :3] * share + self.plate * (1 - share)).astype(np.uint8)


@pytest.fixture(scope="module")
def short():
    return Built(clip(SIZE, 12, reach=0.1, gap=0.04))


@pytest.fixture(scope="module")
def long():
    return Built(clip(SIZE, 8, reach=0.06, long_hair=True))


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


def test_plate_is_exact_where_it_was_uncovered(short):
    clear = np.stack([distance_transform_edt(d.person < 0.02) for d in short.drawn])
    uncovered = clear.max(0) > 8
    assert 0.6 < uncovered.mean() < 0.95
    assert (short.plate[uncovered] == wall(SIZE)[uncovered]).all()
    assert np.abs(short.plate.astype(int) - wall(SIZE)).max() < 100  # what was never seen goes on smoothly


def test_plate_needs_frames(short):
    builder = LayerBuilder(SIZE, np.stack([short.drawn[0].landmarks]), np.array([True]), person=lambda f: None)
    with pytest.raises(ObservationsError):
        builder.observe_plate([])
    with pytest.raises(ObservationsError, match="plate first"):
        builder.build(0, short.drawn[0].frame)


def test_shapes_and_types(short):
    labels, head_alpha, torso = short.layers(3)
    assert labels.shape == head_alpha.shape == (SIZE, SIZE) and torso.shape == (SIZE, SIZE, 4)
    assert labels.dtype == head_alpha.dtype == torso.dtype == np.uint8
    assert short.plate.shape == (SIZE, SIZE, 3) and short.plate.dtype == np.uint8
    assert set(np.unique(labels)) == {BACKGROUND, FACE, HAIR, MOUTH, NECK, TORSO}


def test_layers_are_a_function_of_the_frame(short):
    first, again = short.layers(2), short.layers(2)
    assert all((a == b).all() for a, b in zip(first, again))


@pytest.mark.parametrize("index", [0, 3, 9])
def test_labels_agree_with_the_truth(short, index):
    labels, head_alpha, _ = short.layers(index)
    truth = short.drawn[index].labels
    assert iou(labels != BACKGROUND, truth != BACKGROUND) > 0.985
    assert iou(np.isin(labels, (FACE, HAIR, MOUTH)), np.isin(truth, (FACE, HAIR))) > 0.96
    assert iou(labels == HAIR, truth == HAIR) > 0.85
    assert iou(labels == TORSO, truth == TORSO) > 0.9
    assert np.isin(labels[head_alpha > 127], (FACE, HAIR, MOUTH)).all()
    assert not np.isin(labels[head_alpha == 0], (FACE, HAIR, MOUTH)).any()


def test_head_edge_is_matted(short):
    drawn = short.drawn[3]
    _, head_alpha, _ = short.layers(3)
    edge = (distance_transform_edt(drawn.head > 0) < 5) & (distance_transform_edt(drawn.head < 1) < 5)
    edge &= np.arange(SIZE)[:, None] < 0.5 * SIZE  # the outline, not the jaw
    assert np.abs(head_alpha / 255 - drawn.head)[edge].mean() < 0.04


@pytest.mark.parametrize("which", ["short", "long"])
def test_true_head_over_the_layers_is_the_frame(which, request):
    built = request.getfixturevalue(which)
    for index in (1, 5):
        frame = built.drawn[index].frame
        _, head_alpha, torso = built.layers(index)
        behind, share = built.behind(torso), head_alpha[..., None] / 255
        colours = head_colours(frame, behind, head_alpha)
        assert psnr(np.rint(colours * share + behind * (1 - share)), frame) > 38
        body = (torso[..., 3] > 0) & (head_alpha == 0)
        assert np.abs(behind[body].astype(int) - frame[body]).max() <= 2
        assert (behind[torso[..., 3] == 0] == built.plate[torso[..., 3] == 0]).all()


@pytest.mark.parametrize("move", [(-4, 0), (-3, 3), (-3, -3)])
def test_no_hole_opens_under_the_chin(short, move):
    _, head_alpha, torso = short.layers(1)
    drawn = short.drawn[1]
    person = drawn.person > 0.5
    moved = shift(head_alpha.astype(float), move, order=1) > 127
    jaw = np.zeros_like(person)
    rows, columns = np.ogrid[:SIZE, :SIZE]
    centre = drawn.landmarks[[234, 454], 0].mean()
    jaw[(rows > drawn.landmarks[152, 1] - 30) & (np.abs(columns - centre) < 0.085 * SIZE)] = True
    opened = jaw & person & ~moved
    assert opened.sum() > 100
    assert torso[..., 3][opened].min() > 250


def test_shoulders_go_on_under_hair_that_hangs_on_them(long):
    truth = long.drawn[0]
    rows, columns = np.mgrid[:SIZE, :SIZE]
    aside = np.abs(columns - truth.landmarks[[234, 454], 0].mean()) / SIZE
    hair = (aside > 0.1) & (aside < 0.24) & (rows > 0.3 * SIZE) & (rows < 0.8 * SIZE)
    head = np.maximum(truth.head, hair).astype(np.float32)
    body = ((rows > 0.74 * SIZE) & (aside < 0.4)).astype(np.float32) * (1 - head)
    torso = torso_layer(truth.frame, long.plate, head, body, FaceShape(truth.landmarks.astype(np.float32), SIZE))
    under = hair & (rows > 0.8 * SIZE - 22) & (aside > 0.19) & (aside < 0.22)  # 44 px at 512
    assert under.sum() > 100 and (torso[..., 3][under] == 255).all()
    assert not torso[..., 3][hair & (rows < 0.8 * SIZE - 30)].any()


def test_closed_mouth_has_no_interior():
    built = Built(clip(SIZE, 4, reach=0.05, gap=0.0))
    assert not (built.layers(0)[0] == MOUTH).any()


def test_mouth_lies_inside_the_face(short):
    labels, head_alpha, _ = short.layers(0)
    mouth = labels == MOUTH
    assert mouth.sum() > 100
    assert np.isin(labels[binary_dilation(mouth, iterations=2)], (MOUTH, FACE)).all()
    assert (head_alpha[mouth] == 255).all()


def test_hanging_hair_is_head(long):
    assert long.builder.long_hair == (True, True)
    labels, head_alpha, torso = long.layers(1)
    truth = long.drawn[1]
    hanging = (truth.labels == HAIR) & (np.arange(SIZE)[:, None] > truth.landmarks[58, 1] + 8)
    hanging &= np.arange(SIZE)[:, None] < truth.landmarks[152, 1] - RIM
    assert hanging.sum() > 300
    assert (head_alpha[hanging] > 127).mean() > 0.88
    assert (labels[hanging] == HAIR).mean() > 0.85
    outer = hanging & (np.abs(np.arange(SIZE) - truth.landmarks[[234, 454], 0].mean()) > 0.14 * SIZE)
    left = (torso[..., 3] > 127) & outer & (head_alpha < 128)
    assert left.sum() < 0.02 * outer.sum()  # no outline of the hair stays behind with the torso


def test_hair_that_lies_on_the_shoulders_stays_with_them(long):
    _, head_alpha, torso = long.layers(1)
    truth = long.drawn[1]
    lying = (truth.labels == HAIR) & (np.arange(SIZE)[:, None] > truth.landmarks[152, 1] + 0.12 * 0.4 * SIZE)
    assert lying.sum() > 200
    assert (head_alpha[lying] < 128).mean() > 0.97 and (torso[..., 3][lying] > 127).mean() > 0.9
    shown = lying & (torso[..., 3] == 255) & (head_alpha == 0)
    assert np.abs(torso[..., :3][shown].astype(int) - truth.frame[shown]).max() <= 2


def test_bare_shoulders_that_come_up_beside_the_chin_are_no_hair():
    bent = draw(SIZE, long_hair=True, shirt=SKIN, bent=0.14)
    built = Built([bent, *clip(SIZE, 11, reach=0.06, long_hair=True, shirt=SKIN)])
    assert built.builder.long_hair == (True, True)
    colours = built.builder.colours  # as sure as dark skin under dark hair lets them be
    colours.hair_or_rest, colours.hair_or_skin = 0.5 * colours.hair_or_rest, 0.6 * colours.hair_or_skin
    _, head_alpha, torso = built.layers(0)
    shoulder = binary_erosion(bent.labels == TORSO, iterations=4)
    shoulder &= np.arange(SIZE)[:, None] < bent.landmarks[152, 1] + 4
    assert shoulder.sum() > 200
    assert (head_alpha[shoulder] < 20).mean() > 0.95 and (torso[..., 3][shoulder] > 250).mean() > 0.95


def test_ear_rings_that_the_mask_misses_move_with_the_head():
    drawn = clip(SIZE, 11, reach=0.2)
    mask = person_mask(drawn)
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    known, rings = {}, []
    for d in drawn:
        person = mask(d.frame)
        x = d.landmarks[[234, 454], 0].mean() / SIZE
        ring = (np.hypot(rows - 0.53, np.abs(columns - x) - 0.15) < 0.03) & (d.person < 0.1)
        d.frame[ring] = (250, 240, 200)
        known[d.frame.tobytes()] = person
        rings.append(ring)
    landmarks = np.stack([d.landmarks for d in drawn])
    builder = LayerBuilder(
        SIZE, landmarks, np.ones(11, bool), person=lambda f: known[np.ascontiguousarray(f).tobytes()]
    )
    plate = builder.observe_plate((i, d.frame) for i, d in enumerate(drawn))
    for i in (0, 5):
        _, head_alpha, torso = builder.build(i, drawn[i].frame)
        assert rings[i].sum() > 100 and (head_alpha[rings[i]] > 127).mean() > 0.9
        share, head = torso[..., 3:] / 255, head_alpha[..., None] / 255
        behind = torso[..., :3] * share + plate * (1 - share)
        colours = head_colours(drawn[i].frame, np.rint(behind).astype(np.uint8), head_alpha)
        assert psnr(np.rint(colours * head + behind * (1 - head)), drawn[i].frame) > 38


SWING = 0.05


@pytest.fixture(scope="module")
def swinging():
    """Long hair that hangs further out on the left in the first two frames of twelve."""
    out = [draw(SIZE, x=x, long_hair=True, swing=SWING) for x in (0.5, 0.52)]
    return Built([*out, *clip(SIZE, 10, reach=0.04, long_hair=True)])


def lock(drawn, beyond, until, rim=False):
    """Hair on the left from `beyond` to `until` beside the face's middle, from the lips to where it fades or, with
    `rim`, to the chin."""
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    aside = drawn.landmarks[[234, 454], 0].mean() / SIZE - columns
    low = drawn.landmarks[152, 1] / SIZE - (0 if rim else RIM / SIZE)
    return (drawn.labels == HAIR) & (rows > low - 0.07) & (rows < low) & (aside > beyond) & (aside < until)


@pytest.mark.parametrize("index", [0, 1])
def test_hair_that_swings_out_is_left_to_the_torso_layer(swinging, index):
    drawn = swinging.drawn[index]
    _, head_alpha, torso = swinging.layers(index)
    away, kept = lock(drawn, 0.205, 0.235, rim=True), lock(drawn, 0.14, 0.185)
    assert away.sum() > 100 and (head_alpha[away] < 20).all()
    assert (torso[..., 3][away] > 250).all()
    assert np.abs(torso[..., :3][away].astype(int) - drawn.frame[away]).max() <= 2
    assert kept.sum() > 100 and (head_alpha[kept] > 235).all()
    border = ((head_alpha > 20) & (head_alpha < 235) & lock(drawn, 0.14, 0.235)).any(0)
    assert 1 <= border.sum() <= 4  # soft over a px or two, on a border that runs down straight
    behind, share = swinging.behind(torso), head_alpha[..., None] / 255
    colours = head_colours(drawn.frame, behind, head_alpha)
    assert psnr(np.rint(colours * share + behind * (1 - share)), drawn.frame) > 38


@pytest.mark.parametrize("index", [0, 4])
def test_a_head_a_little_off_leaves_no_gap_in_long_hair(swinging, index):
    drawn = swinging.drawn[index]
    _, _, torso = swinging.layers(index)
    person = binary_erosion(drawn.person > 0.5, iterations=2)
    rows = np.arange(SIZE)[:, None] - drawn.landmarks[152, 1]
    lower = lock(drawn, 0.13, 0.185, rim=True) & (rows > -6)  # above where hair is cut from the head
    border = (lock(drawn, 0.184, 0.21, rim=True) | lower) & person
    assert border.sum() > 60 and (torso[..., 3][border] > 250).all()
    assert np.abs(torso[..., :3][border].astype(int) - drawn.frame[border]).max() < 12


def test_hanging_hair_fades_out_towards_the_cut_over_the_frame_itself(swinging):
    drawn = swinging.drawn[4]
    _, head_alpha, torso = swinging.layers(4)
    columns = lock(drawn, 0.14, 0.17, rim=True).any(0)
    low = int(drawn.landmarks[152, 1])
    strip = head_alpha[low - 14 : low + 8, columns].astype(float).mean(1)
    assert strip[0] > 240 and strip[-1] < 5
    assert (np.diff(strip) <= 1).all() and np.diff(strip).min() > -40  # no blunt end
    rim = np.zeros((SIZE, SIZE), bool)
    rim[low - 6 : low + 8, columns] = True
    assert np.abs(torso[..., :3][rim].astype(int) - drawn.frame[rim]).max() < 12


def test_hair_that_hangs_as_ever_is_head_beside_hair_that_swings(swinging):
    for index in (3, 8):
        drawn = swinging.drawn[index]
        _, head_alpha, _ = swinging.layers(index)
        where = lock(drawn, 0.13, 0.19) & (binary_erosion(drawn.person > 0.5, iterations=2))
        assert where.sum() > 100 and (head_alpha[where] > 235).mean() > 0.99


def test_hair_that_always_hangs_far_out_is_head():
    built = Built(clip(SIZE, 8, reach=0.06, long_hair=True, swing=SWING))
    _, head_alpha, _ = built.layers(1)
    away = lock(built.drawn[1], 0.2, 0.23)
    assert away.sum() > 100 and (head_alpha[away] > 235).mean() > 0.98


def test_the_jaw_of_a_head_that_turns_is_head_under_hair_that_ends_above_the_chin():
    drawn = clip(SIZE, 8, reach=0.06, long_hair=True)
    for i, d in enumerate(drawn):
        ended = (d.labels == HAIR) & (np.arange(SIZE)[:, None] > d.landmarks[152, 1] - 0.06 * SIZE)
        d.frame[ended], d.person[ended], d.labels[ended] = wall(SIZE)[ended], 0, BACKGROUND
        d.landmarks[[234, 454], 0] += 0.04 * SIZE * (-1) ** i  # the ears go one way, the chin the other
    built = Built(drawn)
    assert built.builder.long_hair == (True, True)
    for index in (2, 3):
        _, head_alpha, _ = built.layers(index)
        chin = binary_erosion(drawn[index].labels == FACE, iterations=4)
        chin &= np.arange(SIZE)[:, None] > drawn[index].landmarks[152, 1] - 0.06 * SIZE
        assert chin.sum() > 100 and (head_alpha[chin] > 235).all()


def test_what_sticks_out_of_a_head_with_short_hair_is_head():
    drawn = [draw(SIZE, x=0.5 + 0.1 * np.sin(i)) for i in range(12)]
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    tuft = (np.abs(columns - 0.5 + 0.19) < 0.04) & (np.abs(rows - 0.42) < 0.03)  # beside an ear, in one frame
    drawn[0].frame[tuft], drawn[0].person[tuft], drawn[0].labels[tuft] = DARK, 1, HAIR
    built = Built(drawn)
    assert built.builder.long_hair == (False, False)
    _, head_alpha, torso = built.layers(0)
    inside = binary_erosion(tuft, iterations=3)
    assert inside.sum() > 100 and (head_alpha[inside] > 235).all() and not torso[..., 3][inside].any()


def test_clothes_of_the_hairs_colour_stay_torso():
    built = Built(clip(SIZE, 6, reach=0.08, shirt=DARK))
    assert built.builder.long_hair == (False, False)
    labels, head_alpha, _ = built.layers(1)
    torso = built.drawn[1].labels == TORSO
    assert (head_alpha[torso] > 127).mean() < 0.01
    assert iou(labels == TORSO, torso) > 0.85


def test_a_lit_shoulder_of_the_hairs_colour_is_no_hair():
    u = np.tile(np.linspace(-2, 2, WORK, dtype=np.float32), (WORK, 1))
    head, hair = np.zeros((WORK, WORK), bool), np.zeros((WORK, WORK), bool)
    head[40:120, 90:166] = True
    hair[100:160, 70:96] = True  # a strand beside the head
    edge = np.arange(165, WORK)
    for thick in range(4):
        hair[118 + (edge - 165) // 4 + thick, edge] = True  # a rim that goes out from the ear lobe
    kept = _hung(hair, head, u)
    assert kept[100:160, 70:96].all() and not kept[:, 166:].any()


def blinking_masks(drawn, wrong, patch):
    """The true masks, but that of frame `wrong` lacks a patch of the shoulder and sees another on the wall."""
    true, looks = person_mask(drawn), {d.frame.tobytes(): i for i, d in enumerate(drawn)}

    def person(frame):
        mask = true(frame).copy()
        if looks[np.ascontiguousarray(frame).tobytes()] == wrong:
            mask[patch], mask[20:50, 200:235] = 0, 1
        return mask

    return person


def test_a_mask_that_flickers_on_a_still_picture_is_calmed():
    drawn = clip(SIZE, 7)
    for i, d in enumerate(drawn):  # frames differ as footage does
        d.frame[:] = np.clip(d.frame + np.random.default_rng(i).normal(0, 2, d.frame.shape), 0, 255)
    patch = np.s_[200:230, 60:90]
    assert np.mean([d.person[patch].mean() for d in drawn]) > 0.9
    builder = LayerBuilder(
        SIZE, np.stack([d.landmarks for d in drawn]), np.ones(7, bool), person=blinking_masks(drawn, 3, patch)
    )
    builder.observe_plate((i, d.frame) for i, d in enumerate(drawn))
    calmed = list(builder.build_all((i, d.frame) for i, d in enumerate(drawn)))
    assert len(calmed) == 7
    bodies = np.stack([torso[..., 3] > 127 for _, _, torso in calmed])
    assert iou(bodies[3], bodies[2]) > 0.995 and iou(bodies[3], bodies[4]) > 0.995
    alone = builder.build(3, drawn[3].frame)[2][..., 3] > 127
    assert iou(alone, bodies[2]) < 0.98, "for itself the frame does flicker"


def test_what_moves_keeps_its_own_mask():
    drawn = clip(SIZE, 8, reach=0.12)
    mask = person_mask(drawn)
    looks = [(i, d.frame, d.frame, mask(d.frame)) for i, d in enumerate(drawn)]
    for before, now, after in zip(looks, looks[1:], looks[2:]):
        calmed = calm(before, now, after)
        assert np.abs(calmed - now[3]).max() < 0.25, "at most the faint tail of the edge"
        assert ((calmed > 0.5) != (now[3] > 0.5)).sum() < 0.002 * (now[3] > 0.5).sum()
    assert (calm(None, looks[0], looks[1]) == looks[0][3]).all()


def test_frame_without_anybody_has_no_layers(short):
    drawn = short.drawn
    landmarks = np.stack([d.landmarks for d in drawn])
    builder = LayerBuilder(SIZE, landmarks, np.ones(len(drawn), bool), person=lambda f: np.zeros((SIZE, SIZE)))
    builder.observe_plate((i, d.frame) for i, d in enumerate(drawn))
    labels, head_alpha, torso = builder.build(0, drawn[0].frame)
    assert not labels.any() and not head_alpha.any() and not torso.any()


def test_512_gives_the_same_picture_as_256():
    small, big = Built(clip(256, 4, reach=0.1)), Built(clip(512, 4, reach=0.1), size=512)
    a, b = small.layers(1)[1], big.layers(1)[1]
    assert iou(a > 127, b.reshape(256, 2, 256, 2).mean((1, 3)) > 127) > 0.98


def test_plate_indices_leave_out_frames_without_a_face(short):
    built = Built(short.drawn, invalid=(2, 3))
    assert not np.isin((2, 3), built.builder.plate_indices).any()


def test_steady_landmarks_do_not_lag_and_stop_at_cuts():
    ramp = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((1, 3, 2), np.float32)
    assert np.allclose(steady(ramp, np.ones(10, bool), 256), ramp)
    start = np.maximum(ramp - 4, 0) * 6  # a head that starts: the jaw line may not hang back
    assert np.abs(steady(start, np.ones(10, bool), 256) - start).max() <= 0.5
    cut = np.concatenate([np.zeros((5, 3, 2), np.float32), np.full((5, 3, 2), 50, np.float32)])
    assert (steady(cut, np.ones(10, bool), 256) == cut).all()
