"""A hole in a picture filled with the texture around it.

At a coarse size it grows from its rim inwards, each place taking what is likest around it (after "Texture synthesis by
non-parametric sampling", Efros and Leung, 1999): so a frame or a branch goes on. Then, up to the full size, patches of
the hole look for their likes and it becomes the mean of what they found ("Space-time completion of video", Wexler et
al., 2007). What is copied is detail alone, laid over the smoothest filling: so a wall that grows darker towards one
side shows no patches.
"""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from vocalface.observe.plate import push_pull

RADIUS = 2  # a patch has 5 x 5 px
COARSEST = 64  # px, about
TURNS = (4, 2, 2, 0)  # of search at each size; at the coarsest every patch is compared with every other
SLOW = 0.06  # sides of the picture: what is wider is no detail
ALIKE = 0.3  # how much the slow colour of a place counts in a match, against its detail
NEAR = 0.02  # for a patch as far away as the picture is wide, so much colour difference
FEWEST = 30  # patches that must be known
DEEP = 0.2  # sides of the picture: no turning head bares the hole further from its rim

_REACH = range(-RADIUS, RADIUS + 1)
_OFFSETS = np.array([(dy, dx) for dy in _REACH for dx in _REACH])
_WEIGHTS = np.exp(-(_OFFSETS**2).sum(1) / 2).astype(np.float32)


def fill(image: np.ndarray, hole: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """A picture [S, S, 3] uint8 whose hole [S, S] bool shows the texture of its `usable` part [S, S] bool.

    Outside of the hole nothing changes; deep in it, and where too little is usable, it is filled smoothly.
    """
    size = len(image)
    smooth = np.clip(push_pull(image.astype(np.float32) / 255, 1 - hole.astype(np.float32)), 0, 1)
    slow = cv2.GaussianBlur(smooth, (0, 0), SLOW * size)
    near = hole & (cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5) < DEEP * size)
    sides = [size]
    while sides[0] >= 2 * COARSEST:
        sides.insert(0, (sides[0] + 1) // 2)
    places = None
    for level, side in enumerate(sides):
        detail, base, open_, shut, known = (
            cv2.resize(part.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
            for part in (smooth - slow, slow, near, hole, usable)
        )
        sources = np.argwhere(_inner((known > 0.999) & (shut == 0)))
        targets = np.argwhere(cv2.dilate((open_ > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
        if len(sources) < FEWEST or not len(targets):
            break
        found = targets if places is None else _finer(places, targets)
        level_ = Level(detail, base, open_ > 0, sources, targets, _allowed(found, side, sources))
        if places is None:
            level_.grow()
        level_.vote()
        for _ in range(TURNS[min(level, len(TURNS) - 1)]):
            level_.search() if level == 0 else level_.spread()
            level_.vote()
        places = level_.places()
    else:
        smooth = level_.own + slow
    out = (np.clip(smooth, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.where(hole[..., None], out, image)


class Level:
    """The picture at one size: every target's place among the sources, and the detail that follows from them.

    Detail lies in rows of four floats, the last of which is 0, so that a pixel is one item of 16 bytes: gathering such
    items takes a tenth of the time that gathering threes of floats takes, and this is all that a filling does.
    """

    def __init__(self, detail, base, open_, sources, targets, found) -> None:
        self.base, self.open, self.sources, self.targets, self.found = base, open_, sources, targets, found
        self.side, self.row = len(base), len(base) + 2 * RADIUS
        self.around = _OFFSETS @ (self.row, 1)
        self.within = cv2.distanceTransform(open_.astype(np.uint8), cv2.DIST_L2, 5)[tuple(targets.T)]
        self.detail = np.zeros((self.row, self.row, 4), np.float32)
        self._set(detail)
        here = np.zeros((self.row, self.row), np.float32)
        here.reshape(-1)[self.flat(targets)] = 1
        # What the targets' patches weigh at each pixel.
        self.share = cv2.filter2D(here, -1, _WEIGHTS.reshape(2 * RADIUS + 1, -1), borderType=cv2.BORDER_CONSTANT)

    def _set(self, own: np.ndarray) -> None:
        edge = (RADIUS, RADIUS)
        self.detail[..., :3] = np.pad(own, (edge, edge, (0, 0)), mode="reflect")

    @property
    def own(self) -> np.ndarray:
        """Detail [S, S, 3]."""
        return self.detail[RADIUS:-RADIUS, RADIUS:-RADIUS, :3]

    @property
    def items(self) -> np.ndarray:
        """The rows of detail as items [R]."""
        return self.detail.reshape(-1).view(np.complex128)

    @cached_property
    def theirs(self) -> np.ndarray:
        """Features of the sources, whose patches nothing changes."""
        return self.features(self.sources)

    def places(self) -> np.ndarray:
        """Places [S, S, 2], -1 where there is no target."""
        out = np.full((self.side, self.side, 2), -1)
        out[tuple(self.targets.T)] = self.found
        return out

    def flat(self, at: np.ndarray) -> np.ndarray:
        return (at + RADIUS) @ (self.row, 1)

    def features(self, at: np.ndarray) -> np.ndarray:
        """[N, 105] of places [N, 2], whose squared distance says how unlike two of them are."""
        patches = self.items.take(self.flat(at)[:, None] + self.around).view(np.float32)
        slow = self.base[tuple(at.T)] * (ALIKE * len(_OFFSETS) ** 0.5)
        where = at * (NEAR * (3 * len(_OFFSETS)) ** 0.5 / self.side)
        return np.concatenate([patches, slow, where], axis=-1, dtype=np.float32)

    def grow(self) -> None:
        """From the rim inwards every target takes the source that is likest in what is there by then."""
        there = np.pad(~self.open, RADIUS).reshape(-1)
        patch = 4 * len(_OFFSETS)
        squares = (self.theirs[:, :patch] ** 2).reshape(-1, len(_OFFSETS), 4).sum(-1)
        length = (self.theirs[:, patch:] ** 2).sum(1)
        for deep in range(int(self.within.max()) + 1):
            rows = np.flatnonzero((self.within > deep) & (self.within <= deep + 1))
            if not len(rows):
                continue
            spots = self.flat(self.targets[rows])
            mask = there[spots[:, None] + self.around].astype(np.float32)
            own = self.features(self.targets[rows])
            own[:, :patch] *= np.repeat(mask, 4, axis=1)
            far = length + mask @ squares.T - 2 * own @ self.theirs.T
            self.found[rows] = self.sources[far.argmin(1)]
            self.items[spots] = self.items[self.flat(self.found[rows])]
            there[spots] = True

    def search(self) -> None:
        """Every target takes the likest of all sources."""
        length = (self.theirs**2).sum(1) / 2
        for k in range(0, len(self.targets), 2048):
            likest = (length - self.features(self.targets[k : k + 2048]) @ self.theirs.T).argmin(1)
            self.found[k : k + 2048] = self.sources[likest]

    def spread(self) -> None:
        """Every target tries what its neighbours found, moved along."""
        number = np.full((self.side, self.side), -1)
        number[tuple(self.sources.T)] = np.arange(len(self.sources))
        before, wanted = self.places(), self.features(self.targets)

        def unlike(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
            off = self.theirs[number[tuple(places.T)]]
            off -= wanted[rows]
            return np.einsum("ij,ij->i", off, off)

        best = unlike(np.arange(len(wanted)), self.found)
        for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            beside = before[tuple(np.clip(self.targets + step, 0, self.side - 1).T)]
            tried = beside - step
            able = (beside[:, 0] >= 0) & ((tried >= 0) & (tried < self.side)).all(1) & (tried != self.found).any(1)
            able[able] = number[tuple(tried[able].T)] >= 0
            rows = np.flatnonzero(able)
            far = unlike(rows, tried[rows])
            rows, far = rows[far < best[rows]], far[far < best[rows]]
            self.found[rows], best[rows] = tried[rows], far

    def vote(self) -> None:
        """The hole becomes the mean of what the patches over each pixel found."""
        total, taken = (np.zeros((self.row**2, 4), np.float32) for _ in range(2))
        here, there, items = self.flat(self.targets), self.flat(self.found), taken.reshape(-1).view(np.complex128)
        for step, weight in zip(self.around, _WEIGHTS):
            items[here] = self.items.take(there + step)  # all else stays 0
            low, high = max(step, 0), min(step, 0) + len(total)
            total[low:high] += weight * taken[low - step : high - step]
        mean = total.reshape(self.row, self.row, 4)[..., :3] / np.maximum(self.share, 1e-6)[..., None]
        self._set(np.where(self.open[..., None], mean[RADIUS:-RADIUS, RADIUS:-RADIUS], self.own))


def _inner(known: np.ndarray) -> np.ndarray:
    """Where whole patches are known [S, S] bool."""
    square = np.ones((2 * RADIUS + 1,) * 2, np.uint8)
    return cv2.erode(known.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


def _finer(places: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Places [N, 2] of the targets of the next size, from those [S, S, 2] of this."""
    coarse = places[tuple(np.minimum(targets // 2, len(places) - 1).T)]
    return 2 * coarse + targets % 2


def _allowed(found: np.ndarray, side: int, sources: np.ndarray) -> np.ndarray:
    """Places [N, 2] brought to the nearest source."""
    far = np.ones((side, side), np.uint8)
    far[tuple(sources.T)] = 0
    _, labels = cv2.distanceTransformWithLabels(far, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    near = np.zeros((labels.max() + 1, 2), int)
    near[labels[tuple(sources.T)]] = sources
    return near[labels[tuple(np.clip(found, 0, side - 1).T)]]
