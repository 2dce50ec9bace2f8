"""Where a portrait looks: its irises are moved within the eyes before anything is drawn.

Neither face model has a coefficient for it (nor had what the published networks were trained on), so it is an edit of
the picture, and serves both renderers.
"""

from __future__ import annotations

import cv2
import numpy as np

from vocalface.errors import ConfigError
from vocalface.observe.indices import EYE_LEFT, EYE_RIGHT, IRIS_LEFT, IRIS_RIGHT

LARGEST = 20.0  # degrees: beyond it the white of the eye would have to be invented
BALL = 0.4  # radius of the eyeball in widths of the opened eye


def check(degrees: tuple[float, ...]) -> tuple[float, float]:
    """Right and down, degrees. Raises ConfigError."""
    if len(degrees) != 2 or any(not abs(d) <= LARGEST for d in degrees):
        raise ConfigError(
            f"a gaze of {', '.join(f'{d:g}' for d in degrees) or 'nothing'}", "--gaze",
            f"give two angles, right and down, within {LARGEST:g} degrees, e.g. --gaze=10,-5",
        )  # fmt: skip
    return degrees


def look(image: np.ndarray, landmarks: np.ndarray, degrees: tuple[float, float]) -> np.ndarray:
    """The picture [H, W, 3] uint8 with its eyes turned.

    Args:
        landmarks: [478, 2 or 3] px of the picture.
        degrees: to the image's right, and down.
    """
    out = image.copy()
    turn = np.sin(np.radians(degrees))
    for rim, iris in ((EYE_LEFT, IRIS_LEFT), (EYE_RIGHT, IRIS_RIGHT)):
        _move(out, image, landmarks[rim, :2], landmarks[iris, :2], turn)
    return out


def _move(out: np.ndarray, image: np.ndarray, rim: np.ndarray, iris: np.ndarray, turn: np.ndarray) -> None:
    low = np.maximum(np.floor(rim.min(0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(rim.max(0)).astype(int) + 3, image.shape[1::-1])
    if (high - low < 4).any():
        return
    wide = float(np.ptp(rim[:, 0]))
    tall = float(np.ptp(rim[:, 1]))
    shift = turn * BALL * wide * (1, min(1.0, 2.5 * tall / wide))  # a narrow eye shows little of up and down
    radius = float(np.linalg.norm(iris[1:] - iris[0], axis=1).mean())
    x, y = (
        axis.astype(np.float32) + 0.5 for axis in np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    )
    # What lies on the moved iris comes from the iris; from its edge to the corners the shift fades, and the white of
    # the eye is stretched on one side and pressed together on the other.
    away = np.hypot(x - iris[0, 0] - shift[0], y - iris[0, 1] - shift[1])
    fade = np.clip((0.5 * wide - away) / max(0.5 * wide - 1.1 * radius, 1.0), 0, 1)
    fade = fade * fade * (3 - 2 * fade)
    moved = cv2.remap(
        image, (x - shift[0] * fade - 0.5).astype(np.float32), (y - shift[1] * fade - 0.5).astype(np.float32),
        cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    inside = np.zeros(x.shape, np.uint8)
    cv2.fillPoly(inside, [np.round((rim[hull(rim)] - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    weight = cv2.GaussianBlur(inside, (0, 0), max(0.02 * wide, 0.5))[..., None] / np.float32(255)
    spot = out[low[1] : high[1], low[0] : high[0]]
    spot[:] = np.rint(spot + weight * (moved.astype(np.float32) - spot))


def hull(points: np.ndarray) -> np.ndarray:
    """Order of points [N, 2] around their middle."""
    middle = points.mean(0)
    return np.argsort(np.arctan2(points[:, 1] - middle[1], points[:, 0] - middle[0]))
