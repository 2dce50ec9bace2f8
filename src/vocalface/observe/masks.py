"""Who is where in a frame: person mask, head and body, hair and skin, the mouth's interior, matted edges.

Convention:
    Landmarks are px with pixel (i, j) spanning [i, i+1); OpenCV puts pixel centres at whole numbers, so half a pixel
    is taken off wherever landmarks are drawn. Lengths in px are said for S = 512 and scale with S.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from ..errors import AssetError
from .landmarks import silenced

PersonMask = Callable[[np.ndarray], np.ndarray]
"""uint8 RGB [S, S, 3] -> float32 [S, S] or [256, 256] in [0, 1]."""

Look = tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""A frame as `LayerBuilder` sees it: index, the frame, the frame at 256 x 256, its person mask [256, 256]."""

MOUTH_INTERIOR = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
UPPER_LIP, LOWER_LIP = 13, 14
JAW = (58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288)
"""Jaw angle to jaw angle along the chin, from the image's left."""
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
LOWER_OVAL = (389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132,
              93, 234, 127, 162)  # fmt: skip
FOREHEAD, CHIN, LEFT, RIGHT = 10, 152, 234, 454
_SHIFT = 4  # sub-pixel bits of OpenCV's polygon fill

WORK = 256
"""Side of the grid on which the person mask and the colour models live."""


class PersonSegmenter:
    """MediaPipe's selfie segmentation (person probability) through LiteRT, about 4 ms a frame.

    Args:
        path: the `.tflite` file; by default the asset `mediapipe/selfie_segmentation_256.tflite`.
        threads: CPU threads of the interpreter.

    Raises:
        AssetError: the file is absent.
    """

    def __init__(self, path: str | Path | None = None, *, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        path = Path(path) if path is not None else segmenter_path()
        if not path.is_file():
            raise AssetError("The person mask's model file is absent.", str(path), "Run `vocalface fetch`.")
        with silenced():
            self._net = Interpreter(str(path), num_threads=threads)
            self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._output = self._net.get_output_details()[0]["index"]

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Person probability of a frame [S, S, 3] uint8, float32 [256, 256]."""
        image = cv2.resize(frame, (WORK, WORK), interpolation=cv2.INTER_AREA)
        self._net.set_tensor(self._input, (image.astype(np.float32) / 255)[None])
        self._net.invoke()
        return self._net.get_tensor(self._output).reshape(WORK, WORK)


def segmenter_path() -> Path:
    """Where the person mask's model file lies."""
    name = "mediapipe/selfie_segmentation_256.tflite"
    try:
        from ..assets import path
    except ImportError:
        return Path(os.environ.get("VOCALFACE_ASSETS", ".")) / name
    return Path(path(name))


@dataclass(frozen=True)
class FaceShape:
    """Where the face is: its axes and its outline, px of a `size` x `size` frame."""

    landmarks: np.ndarray  # [478, 2] float32
    size: int

    @property
    def scale(self) -> float:
        return self.size / 512

    @property
    def down(self) -> np.ndarray:
        """Unit vector from forehead to chin."""
        axis = self.landmarks[CHIN] - self.landmarks[FOREHEAD]
        return axis / max(float(np.linalg.norm(axis)), 1e-6)

    @property
    def right(self) -> np.ndarray:
        """Unit vector to the image's right of the face."""
        down = self.down
        return np.array([down[1], -down[0]], np.float32)

    @property
    def height(self) -> float:
        """Forehead to chin, px."""
        return float(np.linalg.norm(self.landmarks[CHIN] - self.landmarks[FOREHEAD]))

    @property
    def half_width(self) -> float:
        """Half of ear to ear, px."""
        return float(abs((self.landmarks[RIGHT] - self.landmarks[LEFT]) @ self.right)) / 2

    def coordinates(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Face coordinates of the pixels of a `side` x `side` grid over the frame, float32 [side, side] each.

        u: sideways from the middle between the ears, 1 = half the face's width; v: down from the chin, 1 = the
        face's height.
        """
        centres = (np.arange(side, dtype=np.float32) + 0.5) * (self.size / side)
        middle = (self.landmarks[LEFT] + self.landmarks[RIGHT]) / 2
        chin, right, down = self.landmarks[CHIN], self.right, self.down
        u = (centres[None] - middle[0]) * right[0] + (centres[:, None] - middle[1]) * right[1]
        v = (centres[None] - chin[0]) * down[0] + (centres[:, None] - chin[1]) * down[1]
        return (u / max(self.half_width, 1e-3)).astype(np.float32), (v / max(self.height, 1e-3)).astype(np.float32)

    def fill(self, points: np.ndarray, side: int | None = None) -> np.ndarray:
        """An antialiased polygon [K, 2] (px) as float32 [side, side] in [0, 1]."""
        side = side or self.size
        points = points * (side / self.size) - 0.5
        canvas = np.zeros((side, side), np.uint8)
        fixed = np.rint(points * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(canvas, [fixed], 255, cv2.LINE_AA, _SHIFT)
        return canvas.astype(np.float32) / 255

    def polygon(self, indices: tuple[int, ...], side: int | None = None) -> np.ndarray:
        """The polygon through the landmarks `indices`, float32 [side, side]."""
        return self.fill(self.landmarks[list(indices)], side)

    def jaw(self) -> np.ndarray:
        """The jaw line from angle to angle, [15, 2] px; at the chin a little below the landmarks, as beards are."""
        points = self.landmarks[list(JAW)].astype(np.float32)
        outward = points - points[[0, -1]].mean(0)
        outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
        below = np.clip(outward @ self.down, 0, 1)
        return points + 0.018 * self.height * (below**2)[:, None] * self.down

    def above_jaw(self, side: int | None = None) -> np.ndarray:
        """All above the jaw line, which runs on sideways just under the ear lobes; float32 [side, side]."""
        far, right, down = 4.0 * self.size, self.right, self.down
        jaw = self.jaw()
        # Sideways the border lies a little below the jaw's angle; a cheek whose outline MediaPipe draws too far
        # inside (the far one of a turned head) stays with the head.
        wing = 0.15 * self.half_width * right
        left_kink = 0.8 * jaw[0] + 0.2 * jaw[1] - wing
        right_kink = 0.8 * jaw[-1] + 0.2 * jaw[-2] + wing
        left, right = left_kink - far * right, right_kink + far * right
        corners = [left - far * down, left, left_kink, *jaw[1:-1], right_kink, right, right - far * down]
        return self.fill(np.array(corners).clip(-8 * self.size, 9 * self.size), side)

    def mouth_interior(self) -> np.ndarray:
        """The mouth's interior: the inner-lip polygon grown by 2 px, bool [S, S]; empty while the lips touch."""
        gap = np.linalg.norm(self.landmarks[UPPER_LIP] - self.landmarks[LOWER_LIP])
        if gap <= 2 * self.scale:
            return np.zeros((self.size, self.size), bool)
        inside = self.polygon(MOUTH_INTERIOR)
        grow = max(1, round(2 * self.scale))
        return cv2.dilate(inside, disc(grow)) > 0.5


def disc(radius: int) -> np.ndarray:
    """A round structuring element, uint8 [2 r + 1, 2 r + 1]."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def keep_person(person: np.ndarray, shape: FaceShape) -> np.ndarray:
    """Drop what is not joined to the face from a person mask [256, 256]: other people, false alarms."""
    person = np.maximum(person, cv2.morphologyEx(person, cv2.MORPH_CLOSE, disc(2)))  # pin holes in hair
    solid = (person > 0.3).astype(np.uint8)
    count, parts = cv2.connectedComponents(solid)
    if count <= 2:
        return person * cv2.dilate(solid, disc(4))
    face = shape.polygon(FACE_OVAL, WORK) > 0.5
    votes = np.bincount(parts[face], minlength=count)
    votes[0] = 0
    if not votes.any():
        return person
    own = (parts == votes.argmax()).astype(np.uint8)
    return person * cv2.dilate(own, disc(4))


HELD = 28
"""Distance, px at 512, from the mask within which what differs from the plate is taken for a part of the person."""
DIFFERS = 40
"""Excess of a colour over the plate's near by, of 255, that no noise, drift or soft shadow reaches."""


def held(person: np.ndarray, frame: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A person mask with what hangs on the person and the mask has missed: ear rings, ends of hair, a lost patch.

    That is what differs from the background plate, near the mask and joined to it.

    Args:
        person: [256, 256] float32 in [0, 1].
        frame: [256, 256, 3] uint8.
        low, high: as of `plate_range`.

    Returns:
        [256, 256] float32 in [0, 1], nowhere less than `person`.
    """
    excess = cv2.max(cv2.subtract(low, frame), cv2.subtract(frame, high))
    excess = cv2.max(cv2.max(excess[..., 0], excess[..., 1]), excess[..., 2])
    solid = (person > 0.5).astype(np.uint8)
    edge = cv2.dilate(solid, disc(2))
    other = (excess > DIFFERS).astype(np.uint8) & cv2.dilate(solid, disc(HELD * WORK // 512)) & (1 - solid)
    count, parts = cv2.connectedComponents(other)
    kept = np.bincount(parts[edge == 0], minlength=count) >= 6  # the mask's own soft edge is not meant
    kept &= np.bincount(parts[edge > 0], minlength=count) > 0
    kept[0] = False
    if not kept.any():
        return person
    beyond = (kept[parts] & (edge == 0)).astype(np.uint8)
    found = other & cv2.dilate(beyond, disc(2))
    return np.maximum(person, cv2.GaussianBlur(found.astype(np.float32), (3, 3), 0))


def plate_range(plate: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest colour near each pixel of a plate, which bear a drift of a pixel; [256, 256, 3] uint8 each.

    Args:
        plate: [S, S, 3] uint8; seen: [S, S] bool, where it is no guess; elsewhere the range is all colours.
    """
    small = cv2.resize(plate, (WORK, WORK), interpolation=cv2.INTER_AREA)
    guessed = cv2.resize(seen.astype(np.float32), (WORK, WORK), interpolation=cv2.INTER_AREA) < 1
    low, high = cv2.erode(small, disc(1)), cv2.dilate(small, disc(1))
    low[guessed], high[guessed] = 0, 255
    return low, high


STILL = 10
"""Mean colour change, of 255, over 5 x 5 px of the work grid, under which a picture stands still."""


def calm(before: Look | None, now: Look, after: Look) -> np.ndarray:
    """The person mask of `now` without what flickers: the median of three frames where the picture stands still.

    A mask may change only where the picture does: moving hair keeps its own mask, so that nothing lags behind it.

    Args:
        before, now, after: looks of three frames in a row, of which `before` may be missing.

    Returns:
        [256, 256] float32 in [0, 1].
    """
    person = now[3]
    if before is None:
        return person
    still = _still(before[2], now[2]) * _still(now[2], after[2])
    low, high = np.minimum(before[3], after[3]), np.maximum(before[3], after[3])
    return person + still * (np.clip(person, low, high) - person)


def _still(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two frames [256, 256, 3] uint8 are alike, float32 [256, 256] in 0..1, soft."""
    change = cv2.absdiff(a, b)
    change = cv2.max(cv2.max(change[..., 0], change[..., 1]), change[..., 2])
    return np.clip(2 - cv2.blur(change, (5, 5)).astype(np.float32) / STILL, 0, 1)


class ColourModel:
    """Hair, skin and clothes of one clip as Lab histograms, made look-up tables of log-odds.

    Feed frames with `add`, then `finish`; the scores cost one look-up a pixel.
    """

    BINS = 32

    def __init__(self) -> None:
        self._counts = {name: np.zeros(self.BINS**3) for name in ("hair", "skin", "neck", "clothes")}

    @staticmethod
    def index(frame: np.ndarray) -> np.ndarray:
        """The histogram cell of each pixel of uint8 RGB [H, W, 3], int32 [H, W]."""
        lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.int32)
        a, b = np.clip((lab[..., 1:] - 64) >> 2, 0, 31).transpose(2, 0, 1)
        return (lab[..., 0] >> 3) << 10 | a << 5 | b

    def add(self, cells: np.ndarray, person: np.ndarray, shape: FaceShape) -> None:
        """Learn from a frame's cells [256, 256] where geometry alone says what they are."""
        sure = person > 0.8
        u, v = shape.coordinates(WORK)
        oval = cv2.dilate(shape.polygon(FACE_OVAL, WORK), disc(5)) > 0.1
        face = shape.polygon(LOWER_OVAL, WORK) > 0.9
        for part in (MOUTH_INTERIOR, BROWS):
            hull = cv2.convexHull(shape.landmarks[list(part)]).reshape(-1, 2)
            face &= ~(cv2.dilate(shape.fill(hull, WORK), disc(7)) > 0.1)
        places = {
            "hair": sure & ~oval & (v < -0.55),
            "skin": sure & face,
            "neck": sure & (np.abs(u) < 0.3) & (v > 0.04) & (v < 0.14),
            "clothes": sure & ((v > 0.45) | ((v > 0.15) & (np.abs(u) > 1.0) & (v > 0.5 * v[-1].max()))),
        }
        for name, where in places.items():
            if where.any():
                found = np.bincount(cells[where], minlength=self.BINS**3)
                self._counts[name] += found / found.sum()

    def finish(self) -> None:
        """Turn the histograms into the tables `hair_or_rest`, `hair_or_skin` and `skin_or_clothes`."""
        skin = self._density(self._counts["skin"], lightness=4.0)  # light falls on neck and forehead differently
        neck = self._density(self._counts["neck"])
        hair, clothes = self._density(self._counts["hair"]), self._density(self._counts["clothes"])
        # The hair's place also holds forehead and ears, and the clothes' place hair: weigh both by what they are not.
        hair = self._density(self._counts["hair"] * hair / (hair + 1.5 * skin))
        not_hair = clothes * (clothes / (clothes + hair)) ** 2
        not_skin = clothes * (clothes / (clothes + skin)) ** 2
        self.hair_or_skin = self._odds(hair, self._density(self._counts["skin"]))
        self.hair_or_rest = self._odds(hair, 0.4 * skin + 0.2 * neck + 0.4 * not_hair)
        self.skin_or_clothes = self._odds(skin, not_skin + 2e-5)  # clothes may have colours never met, skin not

    def _density(self, counts: np.ndarray, lightness: float = 1.0) -> np.ndarray:
        cube = counts.reshape((self.BINS,) * 3)
        cube = gaussian_filter(cube, (lightness, 1.0, 1.0), mode="constant").ravel()
        return cube / max(cube.sum(), 1e-9) + 1e-6

    @staticmethod
    def _odds(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.clip(np.log(one / other), -4, 4).astype(np.float32)


def matte(frame: np.ndarray, plate: np.ndarray, person: np.ndarray, *, reach: int = 7) -> np.ndarray:
    """Alpha of the person by difference against the plate, in a band about the mask's edge.

    alpha is the projection of I - B on F - B, F and B being the mean colours of the nearest sure foreground and
    background (B: the plate, shifted by its local error there), drawn to the mask where F and B look alike.

    Args:
        frame, plate: [S, S, 3] uint8.
        person: [256, 256] float32 in [0, 1].
        reach: half the band's width, px at 512.

    Returns:
        [S, S] float32 in [0, 1].
    """
    size = frame.shape[0]
    radius = max(1, round(reach * WORK / 512))
    inside = cv2.erode((person > 0.85).astype(np.uint8), disc(max(1, radius - 1)), borderValue=1)
    outside = cv2.erode((person < 0.15).astype(np.uint8), disc(radius), borderValue=1)
    alpha = cv2.resize(inside, (size, size), interpolation=cv2.INTER_NEAREST).astype(np.float32)
    band = cv2.resize(1 - inside - outside, (size, size), interpolation=cv2.INTER_NEAREST) > 0
    rows, columns = np.nonzero(band)
    if not len(rows):
        return alpha
    half = WORK // 2  # colours near by are smooth: half the grid is enough
    small = cv2.resize(frame, (half, half), interpolation=cv2.INTER_AREA).astype(np.float32)
    small_plate = cv2.resize(plate, (half, half), interpolation=cv2.INTER_AREA).astype(np.float32)
    reach_small = max(1, round(reach * half / 512))
    fore = _spread(small, inside[::2, ::2] & inside[1::2, 1::2], reach_small)
    back = _spread(small - small_plate, outside[::2, ::2] & outside[1::2, 1::2], reach_small)
    # Bilinear look-up of the small maps at the band's pixels only.
    found = [_lookup(maps, columns, rows, size) for maps in (fore, back, person)]
    maps = np.concatenate(found, axis=1)
    fore, fore_spread, drift, drift_spread, prior = np.split(maps, [3, 4, 7, 8], axis=1)
    prior = np.clip((prior[:, 0] - 0.25) / 0.6, 0, 1)
    back = plate[rows, columns].astype(np.float32) + drift
    across = fore - back
    offset = frame[rows, columns].astype(np.float32) - back
    strength = (across**2).sum(1)
    # Least squares of two witnesses: the colours, as sure as fore- and background are plain, and the mask, as sure
    # as it is decided (+-0.1 to +-0.3).
    noise = 5.0**2 + prior * fore_spread[:, 0] + (1 - prior) * drift_spread[:, 0]
    hold = noise / (0.1 + 0.8 * prior * (1 - prior)) ** 2
    found = ((across * offset).sum(1) + hold * prior) / (strength + hold)
    alpha[rows, columns] = np.clip((found - 0.06) / 0.86, 0, 1)
    return alpha


def _lookup(maps: np.ndarray, columns: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """Bilinear samples [M, C] of small maps [H, H(, C)] at pixels of a `size` x `size` frame."""
    ratio = maps.shape[0] / size
    lines = -(-len(rows) // 1024)  # OpenCV's remap wants short sides: fold the list into a table
    at = np.zeros((2, lines * 1024), np.float32)
    at[:, : len(rows)] = columns, rows
    at = ((at + 0.5) * ratio - 0.5).reshape(2, lines, 1024)
    out = cv2.remap(maps, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return out.reshape(lines * 1024, -1)[: len(rows)]


def _spread(image: np.ndarray, where: np.ndarray, radius: int) -> np.ndarray:
    """Colours of image [H, W, 3] carried out of where [H, W], and how much they vary: [H, W, 4].

    They are means over the neighbourhood, and over a wider one where nothing is near. The last channel is the
    variance there, mean of the three colours.
    """
    weight = where.astype(np.float32)
    stack = np.empty((*weight.shape, 5), np.float32)
    stack[..., :3] = image
    stack[..., 3] = np.einsum("hwc,hwc->hw", image, image) / 3
    stack[..., 4] = 1
    stack *= weight[..., None]
    total = np.zeros_like(stack)
    for grow, trust in ((radius, 1.0), (3 * radius, 1e-3)):
        side = 2 * grow + 1
        total += trust * cv2.blur(stack, (side, side), borderType=cv2.BORDER_REPLICATE)
    mean = stack.mean((0, 1)) / max(float(weight.mean()), 1e-6)
    out = (total[..., :4] + 1e-7 * mean[:4]) / (total[..., 4:] + 1e-7)
    mean = np.einsum("hwc,hwc->hw", out[..., :3], out[..., :3]) / 3
    out[..., 3] = np.maximum(out[..., 3] - mean, 0)
    return out
