"""The mouth's inside takes the portrait's light and colour."""

import numpy as np
from test_animate import SIZE, portrait
from test_lids import with_eyes

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


def test_old_varnish_yellows_the_teeth_too_and_tan_walls_or_a_blue_sky_do_not():
    built = rig.build(portrait().landmarks, SIZE)

    def blue(image) -> float:
        teeth = interior.build(built, np.clip(image, 0, 255).astype(np.uint8)).color
        brightest = teeth[teeth.sum(1).argmax()]
        return float(brightest[2] / brightest[0])

    tan = with_eyes().image.astype(float)
    white, sky = tan.copy(), tan.copy()
    white[: SIZE // 8], sky[: SIZE // 8] = 250, (120, 180, 255)
    assert blue(tan) > 0.95 * blue(white)
    assert blue(sky) == blue(tan)
    assert blue(tan * (1.0, 0.85, 0.5)) < 0.7 * blue(tan)
