"""The mouth's inside takes the portrait's light and colour."""

import numpy as np
from test_animate import SIZE, portrait

from vocalface.sadtalker import interior, rig

LIPS = (0, 37, 267, 82, 312, 13, 14, 87, 317, 17, 84, 314)


def colourful(skin, lips) -> float:
    """How far the interior's colours are from grey, beside their brightness."""
    built = rig.build(portrait().landmarks, SIZE)
    image = np.full((SIZE, SIZE, 3), skin, np.uint8)
    for x, y in built.uv[list(LIPS)].astype(int):
        image[y - 4 : y + 5, x - 4 : x + 5] = lips
    color = interior.build(built, image).color
    return float((np.ptp(color, axis=1) / color.max(1)).max())


def test_pale_skin_with_red_lips_has_a_red_mouth_and_a_pencil_drawing_a_grey_one():
    pale, grey = (235, 230, 230), (200, 200, 200)
    assert colourful(pale, (215, 120, 135)) > 3 * colourful(grey, (120, 120, 120))
    assert colourful(grey, (150, 152, 148)) < 0.3  # weathered stone is no lipstick
