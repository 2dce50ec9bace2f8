"""A hole is filled with the texture around it: its lines, grain and slow colour, and nothing of what was cut out."""

import numpy as np

from vocalface.sadtalker.texture import fill

SIDE = 128


def middle(wide: int = 24) -> np.ndarray:
    """A square hole [SIDE, SIDE] bool."""
    hole = np.zeros((SIDE, SIDE), bool)
    hole[SIDE // 2 - wide : SIDE // 2 + wide, SIDE // 2 - wide : SIDE // 2 + wide] = True
    return hole


def punched(ground: np.ndarray, hole: np.ndarray) -> np.ndarray:
    image = ground.copy()
    image[hole] = (30, 200, 30)
    return image


def test_lines_go_on_behind_what_is_cut_out():
    ground = np.full((SIDE, SIDE, 3), 120, np.uint8)
    ground[:, np.arange(SIDE) % 16 < 4] = 40
    hole = middle()
    seen = fill(punched(ground, hole), hole, ~hole).astype(int)
    assert np.abs(seen - ground)[hole].mean() < 12
    assert np.array_equal(seen[~hole], ground[~hole])


def test_the_grain_goes_on_and_the_slow_colour_keeps_its_place():
    noise = np.random.default_rng(1).normal(0, 8, (SIDE, SIDE, 3))
    slow = np.linspace(80, 170, SIDE)[None, :, None]
    hole = middle()
    ground = np.clip(slow + noise, 0, 255).astype(np.uint8)
    seen = fill(punched(ground, hole), hole, ~hole)[hole].reshape(48, 48, 3).astype(float)
    rest = seen - slow[:, SIDE // 2 - 24 : SIDE // 2 + 24]
    assert 3 < rest.std() < 11, "neither smooth nor noisier than the ground"
    assert np.abs(rest.mean((0, 2))).max() < 6, "no column is brighter than the ground beside it"


def test_what_may_not_be_copied_is_not_and_the_same_comes_out_again():
    ground = np.full((SIDE, SIDE, 3), 120, np.uint8)
    ground[::2] = 90
    ground[:, :30] = (250, 20, 20)  # stray hair, say
    hole, usable = middle(16), np.ones((SIDE, SIDE), bool)
    usable[:, :34] = False
    image = punched(ground, hole)
    seen = fill(image, hole, usable & ~hole)
    assert seen[hole].min() > 60 and seen[hole].max() < 150
    assert np.array_equal(seen, fill(image, hole, usable & ~hole))


def test_where_nothing_can_be_copied_it_is_smooth():
    ground = np.full((SIDE, SIDE, 3), 120, np.uint8)
    hole = middle()
    image = punched(ground, hole)
    assert np.abs(fill(image, hole, np.zeros_like(hole)).astype(int) - 120).max() <= 1
    assert np.array_equal(fill(image, np.zeros_like(hole), ~hole), image)
    small = fill(image[::16, ::16], hole[::16, ::16], ~hole[::16, ::16])
    assert np.abs(small.astype(int) - 120).max() <= 1
