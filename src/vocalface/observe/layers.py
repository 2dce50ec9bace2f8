"""From the frames of a clip to its layers: labels, matted head, torso in-painted under the head, background plate.

What a layer is for (HM-Talker, section on compositing; its data preparation): a frame is
`head * head_alpha + behind * (1 - head_alpha)` with `behind` = the torso layer over the plate. Outside the head
`behind` is the frame itself wherever the person is; under the head the neck and the torso go on, so that a head that
moves a few px leaves no hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from ..errors import ObservationsError
from ..types import BACKGROUND, FACE, HAIR, MOUTH, NECK, TORSO
from .masks import (
    FACE_OVAL,
    JAW,
    LOWER_OVAL,
    WORK,
    ColourModel,
    FaceShape,
    PersonMask,
    PersonSegmenter,
    calm,
    disc,
    held,
    keep_person,
    matte,
    plate_range,
)
from .plate import PlateBuilder

PLATE_FRAMES = 150
MODEL_FRAMES = 24
Layers = tuple[np.ndarray, np.ndarray, np.ndarray]
CUT = 0.05
"""Hair counts as head down to this many face heights under the chin; what hangs lower lies on the shoulders and moves
with them or swings by itself, so that the torso layer, which is the frame, shows it as it was."""
USUAL = 0.2
"""Long hair is head as far out as it reaches in all but this share of the sampled frames. What swings further is torso
layer: a head's Gaussians are rigid there and would leave it behind."""
_SLACK = 0.03  # of half a face's width, by which the reach of hair that does not swing varies
_ASIDE = 1.2  # |u| within which cheeks and ears are
_REACH = (-1.0, 0.02, 40)  # the table of reaches: v from, v to, rows
_SHARED = (16.0, 64.0)
"""Px at 512 of the head's long hair along its outer and its lower border that the torso layer shows too: a head that
carries it a little otherwise opens no gap to what is not its own."""
_FADE = 32.0  # px at 512 above its lower border over which hanging hair fades out of the head
_PRIOR = 64  # side of the map of where hair hangs, over u in [-3, 3], v in [-1.5, 1]


class LayerBuilder:
    """Two passes over a clip: `observe_plate` once, then `build_all` over its frames in order (or `build` of one).

    Args:
        size: S, px of the crop frames, 512 or 256 usually.
        landmarks: [T, 478, >=2] float32, px of the crop.
        valid: [T] bool, frames in which the face was seen; the others should hold interpolated landmarks.
        threads: CPU threads of OpenCV and of the person mask.
        person: the person mask, by default `PersonSegmenter`.

    Raises:
        AssetError: the person mask's model file is absent.
    """

    def __init__(
        self,
        size: int,
        landmarks: np.ndarray,
        valid: np.ndarray,
        *,
        threads: int = 1,
        person: PersonMask | None = None,
    ) -> None:
        cv2.setNumThreads(threads)
        self.size = size
        self.valid = np.asarray(valid, bool)
        self.landmarks = steady(np.asarray(landmarks, np.float32)[..., :2], self.valid, size)
        self.person = person or PersonSegmenter(threads=threads)
        self.plate: np.ndarray | None = None
        self.colours = ColourModel()
        self.long_hair = (False, False)  # the image's left and right of the face
        self._reach = np.full((2, _REACH[2]), np.inf, np.float32)

    @property
    def plate_indices(self) -> np.ndarray:
        """Frames that the first pass wants to see, sorted."""
        seen = np.flatnonzero(self.valid)
        if not len(seen):
            seen = np.arange(len(self.valid))
        return seen[np.unique(np.linspace(0, len(seen) - 1, min(len(seen), PLATE_FRAMES)).round().astype(int))]

    def shape(self, index: int) -> FaceShape:
        """The face's outline at a frame."""
        return FaceShape(self.landmarks[index], self.size)

    def observe_plate(self, frames: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
        """First pass: the background plate, the colours of hair, skin and clothes, and where hair hangs.

        Args:
            frames: (index, uint8 RGB [S, S, 3]) pairs; only those of `plate_indices` are used.

        Returns:
            The plate [S, S, 3] uint8.

        Raises:
            ObservationsError: none of the wanted frames came.
        """
        wanted = set(self.plate_indices.tolist())
        learn_from = set(self.plate_indices[:: max(1, len(wanted) // MODEL_FRAMES)].tolist())
        builder, examples = PlateBuilder(self.size), []
        for index, frame in frames:
            if index not in wanted:
                continue
            person = self._person(frame)
            builder.add(frame, self._full(person))
            if index in learn_from:
                shape = self.shape(index)
                cells = ColourModel.index(self._small(frame))
                kept = keep_person(person, shape)
                self.colours.add(cells, kept, shape)
                examples.append((cells.astype(np.uint16), kept.astype(np.float16), shape))
        if not len(builder):
            raise ObservationsError("No frame to learn the background from.", "", "Give the frames of the clip.")
        self.colours.finish()
        self.plate, self.plate_seen = builder.finish()
        self._range = plate_range(self.plate, self.plate_seen)
        self._learn_hair(examples)
        return self.plate

    def build(self, index: int, frame: np.ndarray) -> Layers:
        """Second pass: the layers of one frame, for itself.

        Args:
            index: the frame's index in `landmarks`.
            frame: [S, S, 3] uint8 RGB.

        Returns:
            labels [S, S] uint8 (BACKGROUND .. TORSO), head_alpha [S, S] uint8, torso [S, S, 4] uint8 straight RGBA.

        Raises:
            ObservationsError: `observe_plate` has not run.
        """
        return self._layers(index, frame, self._small(frame), self._person(frame))

    def build_all(self, frames: Iterable[tuple[int, np.ndarray]]) -> Iterator[Layers]:
        """Second pass: the layers, as of `build`, of (index, frame) pairs that follow one another in time.

        One frame late: where the picture stands still the person mask is the median of three frames.

        Raises:
            ObservationsError: `observe_plate` has not run.
        """
        before = now = None
        for index, frame in frames:
            after = (index, frame, self._small(frame), self._person(frame))
            if now is not None:
                yield self._layers(*now[:3], calm(before, now, after))
            before, now = now, after
        if now is not None:
            yield self._layers(*now)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _layers(self, index: int, frame: np.ndarray, small: np.ndarray, person: np.ndarray) -> Layers:
        if self.plate is None:
            raise ObservationsError("The layers need the background plate first.", "", "Call observe_plate first.")
        shape = self.shape(index)
        person = held(keep_person(person, shape), small, *self._range)
        cells = ColourModel.index(small)
        alpha = matte(frame, self.plate, person)
        above = cv2.GaussianBlur(shape.above_jaw(), (3, 3), 0)
        split, shared = self._long_hair_share(self._head_share(above, cells, person, shape), above, shape)
        head = alpha * split
        body = alpha - head
        labels = self._labels(cells, person, alpha, split, above, shape)
        torso = torso_layer(frame, self.plate, head, body, shape, shared)
        head_alpha = np.rint(head * 255).astype(np.uint8)
        return labels, head_alpha, torso

    def _person(self, frame: np.ndarray) -> np.ndarray:
        mask = np.asarray(self.person(frame), np.float32)
        if mask.shape != (WORK, WORK):
            mask = cv2.resize(mask, (WORK, WORK), interpolation=cv2.INTER_AREA)
        return mask

    def _small(self, frame: np.ndarray) -> np.ndarray:
        if self.size == WORK:
            return frame
        return cv2.resize(frame, (WORK, WORK), interpolation=cv2.INTER_AREA)

    def _full(self, mask: np.ndarray) -> np.ndarray:
        return cv2.resize(mask, (self.size, self.size), interpolation=cv2.INTER_LINEAR)

    def _hanging(self, cells: np.ndarray, person: np.ndarray, shape: FaceShape, prior: bool) -> np.ndarray:
        """Probability that a pixel below the jaw line is hair that hangs from the head, float32 [256, 256]."""
        u, v = shape.coordinates(WORK)
        above = shape.above_jaw(WORK)
        score = cv2.blur(self.colours.hair_or_rest[cells], (5, 5))
        jaw_half = np.abs((shape.landmarks[JAW[1]] - shape.landmarks[JAW[-2]]) @ shape.right) / 2
        column = np.abs(u) * shape.half_width / max(jaw_half, 1e-3)
        score -= 3.0 * np.clip(1.2 - column, 0, 0.4) / 0.4  # the neck's column
        place = 3 * self._coming_down(cells, person, shape, u, v, above) - 1.5
        if prior:
            place += cv2.remap(self._prior, *_prior_grid(u, v), cv2.INTER_LINEAR, borderValue=-2.0)
        # Where hair hangs in most frames a shoulder comes when the head bends: place does not outvote sure skin.
        unsure = np.clip(2 + cv2.blur(self.colours.hair_or_skin[cells], (5, 5)), 0, 1)
        score += np.where(place > 0, place * unsure, place)
        hair = np.clip(score / 2 + 0.5, 0, 1) * np.clip((CUT - v) / 0.04 + 0.5, 0, 1) * (person > 0.3)
        hair[above > 0.5] = 0
        hair = cv2.morphologyEx(hair, cv2.MORPH_OPEN, disc(1))
        head = (above > 0.5) & (person > 0.5)
        _, parts = cv2.connectedComponents(((hair > 0.5) | (head & (v > -0.75))).astype(np.uint8), connectivity=4)
        # Hair comes down at the sides; what touches the chin from below is a collar or a beard.
        rim = head & (cv2.dilate((hair > 0.5).astype(np.uint8), disc(2)) > 0) & (np.abs(u) > 0.75)
        joined = np.isin(parts, np.unique(parts[rim])) & (parts > 0) & (hair > 0.5)
        joined = _hung(joined, cv2.dilate(head.astype(np.uint8), disc(3)) > 0, u)
        near = cv2.dilate(joined.astype(np.uint8), disc(2))
        return hair * near

    def _coming_down(
        self, cells: np.ndarray, person: np.ndarray, shape: FaceShape, u: np.ndarray, v: np.ndarray, above: np.ndarray
    ) -> np.ndarray:
        """How much of the strip just above the jaw line's wings is hair, for the column of each pixel, [256, 256]."""
        strip = (above > 0.5) & (person > 0.5) & (v > -0.45) & (np.abs(u) > 0.8)
        hair = cv2.blur(self.colours.hair_or_skin[cells], (5, 5)) > 0
        bins = 48
        place = np.clip((u + 3) * (bins / 6), 0, bins - 1).astype(np.int32)
        count = np.bincount(place[strip], minlength=bins)
        share = np.bincount(place[strip & hair], minlength=bins) / np.maximum(count, 1)
        share[count * (512 / WORK) < 0.02 * shape.height] = 0
        share = cv2.GaussianBlur(share[None].astype(np.float32), (5, 1), 0)[0]
        return share[place]

    def _learn_hair(self, examples: list) -> None:
        """Which side has hair below the ear lobes, and where it hangs on the average of the sampled frames."""
        total = np.zeros((_PRIOR, _PRIOR), np.float32)
        shares = []
        for cells, person, shape in examples:
            hair = self._hanging(cells.astype(np.int32), person.astype(np.float32), shape, prior=False)
            u, v = shape.coordinates(WORK)
            unit = shape.height * shape.half_width * (WORK / shape.size) ** 2
            shares.append([hair[u < 0].sum() / unit, hair[u > 0].sum() / unit])
            x, y = _prior_grid(u, v)
            column, row = np.rint(x).astype(int), np.rint(y).astype(int)
            inside = (column >= 0) & (column < _PRIOR) & (row >= 0) & (row < _PRIOR)
            place = row[inside] * _PRIOR + column[inside]
            count = np.bincount(place, minlength=_PRIOR**2)
            mean = np.bincount(place, hair[inside], minlength=_PRIOR**2) / np.maximum(count, 1)
            total += mean.reshape(_PRIOR, _PRIOR).astype(np.float32)
        chance = cv2.GaussianBlur(total / max(len(examples), 1), (3, 3), 0)
        self._prior = np.clip(4 * (chance - 0.5), -2, 2)
        left, right = np.median(shares, axis=0) if shares else (0, 0)
        self.hair_shares = (float(left), float(right))
        self.long_hair = (left > 0.006, right > 0.006)
        if any(self.long_hair):
            self._learn_reach(examples)

    def _learn_reach(self, examples: list) -> None:
        """How far out, |u|, the head with its hanging hair usually reaches, row by row of each side with long hair."""
        low, high, rows = _REACH
        found = np.zeros((len(examples), 2, rows), np.float32)
        for reach, (cells, person, shape) in zip(found, examples):
            person = person.astype(np.float32)
            hair = self._hanging(cells.astype(np.int32), person, shape, prior=True)
            head = ((hair > 0.5) | (shape.above_jaw(WORK) > 0.5)) & (person > 0.5)
            head = cv2.morphologyEx(head.astype(np.uint8), cv2.MORPH_OPEN, disc(1)) > 0  # not each single hair
            u, v = shape.coordinates(WORK)
            row = np.floor((v - low) * (rows / (high - low))).astype(int)
            head &= (row >= 0) & (row < rows)
            edge = np.zeros_like(head)
            edge[:, [0, -1]] = True
            for side, outwards in enumerate((-u, u)):
                np.maximum.at(reach[side], row[head], outwards[head])
                beyond = head & edge & (outwards > 0)
                reach[side, row[beyond]] = np.inf  # it goes on outside the frame
        usual = np.quantile(found, USUAL, axis=0, method="lower").astype(np.float32)
        known = np.isfinite(usual)
        # Above the ears hair hardly swings, and what does hangs from what is head: the border leaves it gradually.
        v = low + (np.arange(rows) + 0.5) * ((high - low) / rows)
        usual = cv2.GaussianBlur(np.where(known, usual, 0), (9, 1), 0, borderType=cv2.BORDER_REPLICATE)
        usual += _SLACK + 2 * np.clip(-0.7 - v, 0, 1).astype(np.float32)
        usual[~known | ~np.array(self.long_hair)[:, None]] = np.inf
        self._reach = np.maximum(usual, _ASIDE)  # where hair ends above the chin, what was found is the jaw

    def _within(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """How far within the head's usual reach places (u, v) are, half face widths; inf where none is known."""
        low, high, rows = _REACH
        row = ((v - low) * (rows / (high - low)) - 0.5).clip(0, rows - 1)
        limit = np.where(u < 0, *(np.interp(row, np.arange(rows), side) for side in self._reach))
        limit[v < low] = np.inf
        return limit - np.abs(u)

    def _head_share(self, above: np.ndarray, cells: np.ndarray, person: np.ndarray, shape: FaceShape) -> np.ndarray:
        """How much of each pixel's person belongs to the head, float32 [S, S], soft over 1-2 px."""
        share = above
        if any(self.long_hair):
            hair = self._hanging(cells, person, shape, prior=True)
            u, _ = shape.coordinates(WORK)
            for long, side in zip(self.long_hair, (u < 0, u >= 0)):
                if not long:
                    hair[side] = 0
            # No seam where the hair goes on from the head above, and none left on the person's outer edge.
            hair[(cv2.dilate(hair, disc(4)) > 0.5) & (shape.above_jaw(WORK) > 0.5)] = 1
            solid = np.maximum((person > 0.5).astype(np.float32), hair)
            near = cv2.GaussianBlur(hair, (7, 7), 0) / (cv2.GaussianBlur(solid, (7, 7), 0) + 0.02)
            share = np.maximum(share, np.clip((self._full(near) - 0.3) / 0.4, 0, 1))
        loose = _loose(person > 0.5, cv2.resize(share, (WORK, WORK), interpolation=cv2.INTER_AREA) > 0.5)
        if loose is not None:
            share = np.maximum(share, self._full(loose))
        return share

    def _long_hair_share(
        self, share: np.ndarray, above: np.ndarray, shape: FaceShape
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Long hair between the head and the torso layer.

        Further out than the head usually carries it, it is no head; hair that hangs fades out of the head towards the
        cut; and along both borders the torso layer shows the head's hair too, so that a head that is turned otherwise
        opens no gap and shows no blunt end.

        Args:
            share: [S, S] float32, the head's share of each pixel; above: [S, S] float32, of what is above the jaw.

        Returns:
            The head's share [S, S], and how much of it the torso layer shows too, float32 [S, S], soft; None where no
            long hair ends within sight.
        """
        if not np.isfinite(self._reach).any():
            return share, None
        u, v = shape.coordinates(WORK)
        # All in px at 512: soft over 2 at the outer border, over 4 where the torso layer begins.
        within = self._within(u, v) * (shape.half_width / shape.scale)
        over_cut = (CUT - v) * (shape.height / shape.scale)
        over_cut[np.isinf(np.where(u < 0, *self._reach[:, -1]))] = 99
        beyond = _SHARED[0] - within
        beyond[np.abs(u) < _ASIDE] = -20
        within, over_cut, beyond = (
            self._full(np.clip(field, -20, most).astype(np.float32))
            for field, most in ((within, 20), (over_cut, 99), (beyond, 20))
        )
        share = share * (within / 2 + 0.5).clip(0, 1)
        below = (_SHARED[1] - over_cut) * (share > above + 0.3)
        shared = (np.maximum(beyond, below) / 4).clip(0, 1)
        stays = (over_cut / _FADE).clip(0, 1)
        return np.maximum(share * stays, np.minimum(share, above)), shared

    def _labels(
        self,
        cells: np.ndarray,
        person: np.ndarray,
        alpha: np.ndarray,
        split: np.ndarray,
        above: np.ndarray,
        shape: FaceShape,
    ) -> np.ndarray:
        u, v = shape.coordinates(WORK)
        hair = cv2.blur(self.colours.hair_or_skin[cells], (7, 7))
        oval = shape.polygon(FACE_OVAL, WORK) > 0.5
        ears = (np.abs(np.abs(u) - 1.1) < 0.3) & (v > -0.8)
        hair += np.where(oval, -1.0, np.where(ears, 0.0, 1.0))
        hair[(np.abs(u) < 0.85) & (v > -0.3)] = -1  # a beard belongs to the face
        hair[oval & (shape.polygon(LOWER_OVAL, WORK) > 0.5)] = -1
        # Brows and shadows are islands in the face.
        count, parts = cv2.connectedComponents(((hair > 0) & (person > 0.3)).astype(np.uint8))
        sizes = np.bincount(parts.ravel(), minlength=count)
        sizes[0] = 0
        is_hair = (sizes > 0.1 * sizes.max())[parts] & (hair > 0)
        skin = cv2.blur(self.colours.skin_or_clothes[cells], (5, 5))
        neck = (skin > 0) | ((np.abs(u) < 0.5) & (v < 0.06))
        neck &= (np.abs(u) < 1.0) & (v < 0.6)
        is_hair = (self._full(is_hair.astype(np.float32)) > 0.5) | (above < 0.5)
        is_neck = self._full(neck.astype(np.float32)) > 0.5
        is_head = split >= 0.5
        table = np.array([[TORSO, NECK], [FACE, HAIR]], np.uint8)
        labels = table[is_head.view(np.uint8), np.where(is_head, is_hair, is_neck).view(np.uint8)]
        labels[shape.mouth_interior() & is_head] = MOUTH
        labels[alpha < 0.5] = BACKGROUND
        return labels


def _hung(hair: np.ndarray, head: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Pieces of hair [256, 256] that hang on the head by a fifth of their width or more.

    Hair does by .4 to .9 (four clips); the lit edge of a dark shoulder touches by a corner, .04.
    """
    count, parts = cv2.connectedComponents(hair.astype(np.uint8))
    kept = np.zeros(count, bool)
    for k in range(1, count):
        piece = parts == k
        touch = piece & head
        kept[k] = touch.any() and np.ptp(u[touch]) >= 0.2 * np.ptp(u[piece])
    return kept[parts]


def _loose(person: np.ndarray, head: np.ndarray) -> np.ndarray | None:
    """What hangs on the head but not on the torso (ear rings, ends of hair), float32 [256, 256], or None."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats((person & ~head).astype(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count <= 2:
        return None
    loose = np.zeros(count, bool)
    touching = np.unique(parts[cv2.dilate(head.astype(np.uint8), disc(1)) > 0])
    lowest = stats[:, cv2.CC_STAT_TOP] + stats[:, cv2.CC_STAT_HEIGHT]
    loose[touching] = True
    loose[1:] &= (areas < 0.05 * areas.max()) & (lowest[1:] < WORK)  # what leaves the frame below is a shoulder
    loose[0] = False
    if not loose.any():
        return None
    return cv2.GaussianBlur(cv2.dilate(loose[parts].astype(np.float32), disc(2)), (3, 3), 0)


def _prior_grid(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (u + 3) * ((_PRIOR - 1) / 6), (v + 1.5) * ((_PRIOR - 1) / 2.5)


def head_colours(frame: np.ndarray, behind: np.ndarray, head_alpha: np.ndarray) -> np.ndarray:
    """The head's own colours: those that over `behind` give the frame, F = (I - (1 - a) B) / a.

    Args:
        frame, behind: [S, S, 3] uint8.
        head_alpha: [S, S] uint8.

    Returns:
        [S, S, 3] uint8; the frame's own where alpha is 0 or 255.
    """
    return _unmix(frame, behind, head_alpha)[0]


def steady(landmarks: np.ndarray, valid: np.ndarray, size: int) -> np.ndarray:
    """Landmarks [T, K, 2] with a (1 2 1)/4 filter over time, which has no lag; not across cuts and gaps.

    It moves them by a px (at 512) at most, about what their noise is: a head that starts or stops is no noise.
    """
    out = landmarks.copy()
    if len(landmarks) < 3:
        return out
    before, middle, after = landmarks[:-2], landmarks[1:-1], landmarks[2:]
    jump = np.maximum(np.abs(middle - before).max((1, 2)), np.abs(after - middle).max((1, 2)))
    smooth = (jump < 0.03 * size) & valid[:-2] & valid[1:-1] & valid[2:]
    change = ((before - 2 * middle + after) / 4).clip(-size / 512, size / 512)
    out[1:-1][smooth] += change[smooth]
    return out


def torso_layer(
    frame: np.ndarray,
    plate: np.ndarray,
    head: np.ndarray,
    body: np.ndarray,
    shape: FaceShape,
    shared: np.ndarray | None = None,
) -> np.ndarray:
    """Neck and torso as straight RGBA, continued under the head.

    Each column goes on upwards from just below the head, 53 px (at 512) under the chin and under hair that hangs on the
    shoulders, less between, darkening by 0.98 a px; sideways the body's colours spread a few px under hair. Where the
    body is not under the head the colours are such that the layer over the plate is the frame.

    Args:
        frame, plate: [S, S, 3] uint8.
        head, body: [S, S] float32, shares of each pixel; they add up to the person's alpha.
        shared: [S, S] float32, share of each pixel that the layer shows as it is although it may be head.

    Returns:
        [S, S, 4] uint8.
    """
    size, scale = shape.size, shape.scale
    seen = body / np.maximum(1 - head, 0.5)  # the head lies over the layer: it hides its share
    out = np.dstack(_unmix(frame, plate, np.rint(seen.clip(0, 1) * 255).astype(np.uint8), may_raise=head == 0))
    covered = head > 0.03
    solid = (body > 0.9) & ~covered
    rows = np.flatnonzero(solid.any(1))
    if len(rows):  # all that follows happens below the highest row that the continued body can reach
        y0 = max(0, rows[0] - round(56 * scale))
        box = np.s_[y0:size]
        fill, painted = _under_head(frame[box], covered[box], solid[box], (head + body)[box] > 0.5, shape)
        # Where the head hides half or less the frame itself is the best guess.
        inner = fill & (head[box] > 0.5)
        side = 2 * max(1, round(2 * scale)) + 1
        patch = cv2.copyTo(painted, inner.view(np.uint8), frame[box].copy())
        patch = cv2.copyTo(cv2.GaussianBlur(patch, (side, side), 0), inner.view(np.uint8), frame[box].copy())
        solid_patch = np.dstack([patch, np.full(fill.shape, 255, np.uint8)])
        out[box] = cv2.copyTo(solid_patch, fill.view(np.uint8), out[box].copy())
    if shared is not None:
        both = (shared > 0) & (head > 0)
        colour, alpha = _unmix(
            frame[both][None], plate[both][None], np.rint(255 * (head + body)[both][None]).astype(np.uint8)
        )
        under, weight = out[both], shared[both]
        part, rest = alpha[0] * weight, under[:, 3] * (1 - weight)
        mixed = (colour[0] * part[:, None] + under[:, :3] * rest[:, None]) / np.maximum(part + rest, 1e-3)[:, None]
        out[both] = np.rint(np.column_stack([mixed, part + rest])).astype(np.uint8)
    out = cv2.copyTo(out, out[..., 3], np.zeros_like(out))
    return out


def _unmix(
    frame: np.ndarray, back: np.ndarray, alpha: np.ndarray, may_raise: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Colour [S, S, 3] uint8 that with alpha [S, S] uint8 over `back` is the frame, and alpha.

    Where no colour can do that, alpha becomes as large as it must, if `may_raise` [S, S] allows it.
    """
    colour, alpha = frame.reshape(-1, 3).copy(), alpha.ravel().copy()
    edge = np.flatnonzero((alpha > 0) & (alpha < 255))
    image, behind = colour[edge].astype(np.float32), back.reshape(-1, 3)[edge].astype(np.float32)
    if may_raise is not None:
        offset = image - behind
        room = np.where(offset > 0, 255 - behind, behind)
        needed = np.ceil(255 * (np.abs(offset) / np.maximum(room, 1)).max(1)).clip(0, 255)
        raised = np.maximum(alpha[edge], needed.astype(np.uint8))
        alpha[edge] = np.where(may_raise.ravel()[edge], raised, alpha[edge])
    share = alpha[edge, None].astype(np.float32) / 255
    colour[edge] = np.rint((image - (1 - share) * behind) / share).clip(0, 255).astype(np.uint8)
    return colour.reshape(frame.shape), alpha.reshape(frame.shape[:2])


def _under_head(
    frame: np.ndarray, covered: np.ndarray, solid: np.ndarray, person: np.ndarray, shape: FaceShape
) -> tuple[np.ndarray, np.ndarray]:
    """Which head pixels the body fills, bool [H, S], and with what, uint8 [H, S, 3]; all of a strip of rows."""
    scale, (height, size) = shape.scale, covered.shape
    painted = frame.copy()
    # Sideways and a little upwards: the mean colour of the body near by.
    radius = max(2, round(16 * scale))
    near = cv2.dilate(solid.astype(np.uint8), disc(radius)) > 0
    near &= covered
    if not near.any():
        return near, painted
    half = (-(-size // 2), -(-height // 2))
    stack = np.dstack([frame * solid[..., None], solid.astype(np.uint8) * 255])
    small = cv2.resize(stack, half, interpolation=cv2.INTER_AREA).astype(np.float32)
    sums = cv2.blur(small, (radius + 1, radius + 1))
    mean = (sums[..., :3] * 255 / np.maximum(sums[..., 3:], 0.5)).clip(0, 255).astype(np.uint8)
    np.copyto(painted, cv2.resize(mean, (size, height), interpolation=cv2.INTER_LINEAR), where=near[..., None])
    # Upwards, column by column.
    step = covered[:-1] & solid[1:]
    has = step.any(0)
    columns = np.flatnonzero(has)
    if not len(columns):
        return near, painted
    top = (height - 2 - step[::-1].argmax(0))[columns]  # the lowest head pixel of the column
    deep = _column_colours(frame, solid, columns, top, shape, range(max(2, round(5 * scale)), max(4, round(9 * scale))))
    edge = _column_colours(frame, solid, columns, top, shape, range(1, max(2, round(3 * scale))))
    jaw = shape.jaw()[1:-1, 0]
    middle, reach = (jaw.min() + jaw.max()) / 2, max(float(np.ptp(jaw)) / 2, 1.0)
    aside = np.abs(columns + 0.5 - middle) / reach
    deeper = np.clip(np.maximum(1 - aside, aside - 1.15) * 4, 0, 1)  # under the chin, and under hair on the shoulders
    length = (20 + 33 * deeper) * scale
    rise = top[None] - np.arange(height)[:, None]
    # High up it stays clear of the head's own outline, from behind which a moving head would let it peep.
    clear = cv2.erode(person.astype(np.uint8), disc(max(1, round(8 * scale))))[:, columns] > 0
    up = (rise >= 0) & (rise < length) & covered[:, columns] & (clear | (rise < 20 * scale))
    row, column = np.nonzero(up)
    distance = rise[row, column, None] / scale
    shade = np.maximum(0.98**distance, 0.5)
    value = deep[column] * shade + (edge - deep)[column] * np.exp(-distance / 8)  # no step where the frame ends
    painted[row, columns[column]] = value.clip(0, 255)
    fill = near.copy()
    fill[:, columns] |= up
    fill &= near | (cv2.morphologyEx(fill.astype(np.uint8), cv2.MORPH_OPEN, np.ones((1, 7), np.uint8)) > 0)
    return fill, painted


def _column_colours(
    frame: np.ndarray, solid: np.ndarray, columns: np.ndarray, top: np.ndarray, shape: FaceShape, below: range
) -> np.ndarray:
    """Mean colour of the body `below` px under the head in each column, smooth from column to column, [K, 3]."""
    size, height = shape.size, len(frame)
    colours = np.zeros((1, size, 3), np.float32)
    weight = np.zeros((1, size), np.float32)
    weight[0, columns] = 1
    for k in below:
        row = np.minimum(top + k, height - 1)
        row = np.where(solid[row, columns], row, top + 1)
        colours[0, columns] += frame[row, columns] / len(below)
    kernel = (2 * max(1, round(6 * shape.scale)) + 1, 1)
    blurred = (
        cv2.GaussianBlur(colours, kernel, 0)[0] / np.maximum(cv2.GaussianBlur(weight, kernel, 0)[0], 1e-3)[:, None]
    )
    return blurred[columns]
