"""Lips that part with lip on them: the portrait's dark line of contact, replaced by the colour of each lip."""

from __future__ import annotations

import cv2
import numpy as np

from vocalface.observe.indices import LIPS_OUTER
from vocalface.sadtalker.rig import GREY, LIP_LOWER, LIP_UPPER, PARTED, Rig, px_per_metre, smoothstep

EDGES = (
    (LIP_UPPER, LIPS_OUTER[:11], 0.72),
    (LIP_LOWER, [LIPS_OUTER[0], *LIPS_OUTER[:9:-1]], 0.80),
)  # inner and outer edge of each lip, and what is left of its brightness where it rounds inwards
HEALED = 0.5  # of a lip's height: so far from its inner edge the line of contact may darken it
OWN = (0.35, 0.75)  # of a lip's height: between these it has its own colour
COLUMNS, ROWS = 48, 7  # at which a lip's own colour is looked up
OPENING = (0.0002, 0.0016)  # m further apart than in the portrait: from none to all of the line is gone


class Lips:
    """The lips of a rig that can part."""

    def __init__(self, rig: Rig, image: np.ndarray) -> None:
        """image: [S, S, 3] uint8, the portrait."""
        upper, lower = rig.uv[LIP_UPPER].astype(np.float64), rig.uv[LIP_LOWER].astype(np.float64)
        self.rest = np.linalg.norm(lower - upper, axis=1)  # [11] px between the lips
        self.metre = px_per_metre(rig.uv)
        points = np.concatenate([rig.uv[[*inner, *outer]] for inner, outer, _ in EDGES])
        low = np.clip(np.floor(points.min(0)) - 2, 0, len(image)).astype(int)
        high = np.clip(np.ceil(points.max(0)) + 2, 0, len(image)).astype(int)
        self.spot = slice(low[1], high[1]), slice(low[0], high[0])
        self.seen = np.ascontiguousarray(image[self.spot])
        self.change = np.zeros(self.seen.shape, np.float32)  # from the line of contact to none
        self.across = np.zeros(self.seen.shape[:2], np.float32)  # 0 to 10 along the lips' inner edges
        wide = upper[-1] - upper[0]
        if self.seen.size == 0 or np.linalg.norm(wide) < 2:
            return
        axis = wide / np.linalg.norm(wide)
        axes = np.stack([axis, (-axis[1], axis[0])])  # along the mouth and down

        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]] + 0.5
        a, b = np.einsum("ik,khw->ihw", axes, np.stack([x, y]) - upper[0][:, None, None])
        places = [[(rig.uv[edge].astype(np.float64) - upper[0]) @ axes.T for edge in edges[:2]] for edges in EDGES]
        along = np.maximum.accumulate((places[0][0][:, 0] + places[1][0][:, 0]) / 2)
        self.across = np.interp(a, along, np.arange(len(along))).astype(np.float32)
        top, bottom = (np.interp(a, along, inner[:, 1]) for inner, _ in places)
        below = b > (top + bottom) / 2
        # A closed mouth's line lies between the lips too; in an open one there are teeth.
        reach = np.inf if rig.mouth.gap <= PARTED else 0.5
        seen = image.astype(np.float32)
        for (inner, outer), (_, _, dark), side, mine in zip(places, EDGES, (-1, 1), (~below, below)):
            edge = top if side < 0 else bottom
            tall = np.interp(a, outer[:, 0], outer[:, 1]) - edge
            tall = np.maximum(side * tall, 1.5)
            into = side * (b - edge)  # px from the inner edge, into the lip
            share = np.clip(into / (HEALED * tall), 0, 1)
            own = colours(seen, places_of(inner, outer, axes, upper[0]))
            column = (a - inner[0, 0]) / max(np.ptp(inner[:, 0]), 1.0) * COLUMNS - 0.5
            own = cv2.remap(
                own[None], column.astype(np.float32), np.zeros_like(column, np.float32), cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
            rounded = own * (1 - (1 - dark) * (1 - share) ** 2).astype(np.float32)[..., None]
            part = seen[self.spot]
            darker = 1 - (part @ GREY) / np.maximum(rounded @ GREY, 1.0)
            weight = smoothstep(0.0, 0.15, darker) * (1 - smoothstep(0.6, 1.0, share)) * mine
            weight = weight * np.clip(reach + 0.5 + into, 0, 1) * ((a > inner[0, 0]) & (a < inner[-1, 0]))
            self.change += weight[..., None].astype(np.float32) * (rounded - part)
        y, x = np.nonzero(np.abs(self.change).max(-1) >= 0.5)
        if len(y):  # no more than what changes: it is blended for every frame
            used = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
            self.seen, self.change, self.across = (
                np.ascontiguousarray(part[used]) for part in (self.seen, self.change, self.across)
            )
            self.spot = tuple(slice(low[1 - k] + used[k].start, low[1 - k] + used[k].stop) for k in (0, 1))

    def parted(self, px: np.ndarray) -> np.ndarray | None:
        """The `spot` [h, w, 3] uint8 of a portrait whose vertices are drawn at px [V, 2]; None while nothing parts."""
        gap = np.linalg.norm(px[LIP_LOWER] - px[LIP_UPPER], axis=1)
        wider = smoothstep(*OPENING, (gap - self.rest) / self.metre)
        if not wider.any():
            return None
        share = cv2.remap(wider[None].astype(np.float32), self.across, np.zeros_like(self.across), cv2.INTER_LINEAR)
        return (share[..., None] * self.change + (self.seen + np.float32(0.5))).astype(np.uint8)


def places_of(inner: np.ndarray, outer: np.ndarray, axes: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Places [ROWS, COLUMNS, 2] px within a lip between its edges [11, 2], where it is neither line nor skin."""
    a = inner[0, 0] + (np.arange(COLUMNS) + 0.5) / COLUMNS * np.ptp(inner[:, 0])
    near, far = (np.interp(a, edge[:, 0], edge[:, 1]) for edge in (inner, outer))
    b = near + np.linspace(*OWN, ROWS)[:, None] * (far - near)
    return np.stack([np.broadcast_to(a, b.shape), b], -1) @ axes + origin


def colours(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A lip's own colours [COLUMNS, 3] at `at` [ROWS, COLUMNS, 2] px, evened out along it."""
    x, y = np.ascontiguousarray(np.moveaxis(at - 0.5, -1, 0), np.float32)
    found = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).mean(0)
    return cv2.GaussianBlur(found[None], (0, 0), 2.0, borderType=cv2.BORDER_REPLICATE)[0]
