"""Lids that close with skin: the portrait healed where its eyes are, uncovered from above, with its own lashes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu

from vocalface.observe.indices import BROW_LEFT, BROW_RIGHT
from vocalface.observe.masks import disc
from vocalface.render.mesh import render_mesh
from vocalface.sadtalker.rig import GREY, LASH, Rig, holes, px_per_metre, smoothstep, window

COLUMNS, ROWS = 48, 24  # of the strip that holds an eye's lashes
DARK = 0.72  # of the skin about the eye: darker is a lash, and no colour of a lid
FAINTEST = 0.62  # of a lid's brightness: where two lids meet there is always a line
BESIDE = 0.25  # of an eye's width: so far beside it its lashes reach
SHUT = 0.94  # share of the way at which the lids meet: the lower one comes up a little


@dataclass(frozen=True)
class Eye:
    upper: list[int]  # vertices of the upper lid's edge, from the image's left
    lower: list[int]
    reach: np.ndarray  # [2] px about the rims that the healed skin may change
    lashes: np.ndarray  # [ROWS, COLUMNS] float32, brightness against the healed skin
    above: float  # px over the lid's edge that the strip's first row stands for
    below: float  # px under it that the last row stands for


class Lids:
    """The eyes of a rig that can close."""

    def __init__(self, rig: Rig, image: np.ndarray) -> None:
        """image: [S, S, 3] uint8, the portrait."""
        self.rig, self.eyes = rig, []
        seen = image.astype(np.float32) / 255
        healed = seen.copy()
        lash = LASH * px_per_metre(rig.uv)
        for rim, _, _ in holes(rig.rest.astype(np.float64))[:-1]:
            upper, lower = rim[: len(rim) // 2], rim[len(rim) // 2 :]
            eye = self._heal(seen, healed, upper, lower, lash)
            if eye is not None:
                self.eyes.append(eye)
        closed = (np.clip(healed, 0, 1) * 255 + 0.5).astype(np.uint8)
        self.texture = np.concatenate([closed, np.full_like(closed[..., :1], 255)], axis=2)

    def _heal(self, seen: np.ndarray, healed: np.ndarray, upper, lower, lash: float) -> Eye | None:
        """Lay skin over one eye of `healed` [S, S, 3], in place."""
        top, bottom = self.rig.uv[upper].astype(np.float64), self.rig.uv[lower].astype(np.float64)
        height, width = float((bottom[:, 1] - top[:, 1]).max()), float(np.ptp(top[:, 0]))
        up, down = 0.20 * height + 1.2 * lash, 0.15 * height + 0.5 * lash
        reach = np.array([0.10 * width + lash + BESIDE * width, up + 0.5 * height + lash])
        box = bounds(np.concatenate([top, bottom]), reach, healed.shape[0])
        if box is None:
            return None
        x0, y0, x1, y1 = box
        part = seen[y0:y1, x0:x1]
        rim = np.concatenate([top - np.array([0, up]), bottom[::-1] + np.array([0, down])])
        rim[[0, len(top) - 1, len(top), -1], 1] = top[[0, -1, -1, 0], 1] + np.array([-0.5, -0.5, 0.5, 0.5]) * down
        rim[[0, -1], 0] -= 0.05 * width
        rim[[len(top) - 1, len(top)], 0] += 0.05 * width
        inside = np.zeros(part.shape[:2], np.uint8)
        cv2.fillPoly(inside, [np.round((rim - (x0, y0) - 0.5) * 16).astype(np.int32)], 1, shift=4)
        # Lashes, make-up and the rim's shadow beside the eye are no skin either.
        near = cv2.dilate(inside, np.ones((3, 3), np.uint8), iterations=max(round(0.25 * height + 0.3 * lash), 1))
        grey = part @ GREY
        ring = (near > 0) & (inside == 0)
        unsure = inside > 0
        if ring.any():
            dark = grey < DARK * np.median(grey[ring])
            unsure |= (near > 0) & dark | ends_inside(dark & (near == 0), beside_too(near, BESIDE * width, lash))
        # The soft rim lies wholly outside of them, lest their outline shine through it.
        rim_px = max(round(0.4 * lash), 2)
        unsure = cv2.dilate(unsure.astype(np.uint8), disc(rim_px)) > 0
        unsure &= cv2.dilate(brows(self.rig, seen.shape[0]), disc(rim_px))[y0:y1, x0:x1] == 0
        unsure[[0, -1]] = unsure[:, [0, -1]] = False
        skin = membrane(part, unsure, max(0.04 * width, 1.0))
        skin += grain(seen, box, height, up + down)
        away = cv2.distanceTransform(unsure.astype(np.uint8), cv2.DIST_L2, 3)
        weight = smoothstep(0, rim_px, away)[..., None]
        y = (np.arange(y0, y1) + 0.5)[:, None]
        x = np.arange(x0, x1) + 0.5
        y_top, y_bottom = (np.interp(x, top[:, 0], v[:, 1]) for v in (top, bottom))
        along = np.clip((y - y_top) / np.maximum(y_bottom - y_top, 1.0), 0, 1)
        round_ = smoothstep(0, 0.3, np.minimum(x - top[0, 0], top[-1, 0] - x) / width)
        lit = 1 + 0.30 * round_ * along * (1 - along) - 0.06 * round_ * along**3  # a lid lies over a ball
        closed = part + weight * (skin * lit[..., None] - part)
        healed[y0:y1, x0:x1] = closed
        above, below = 0.15 * height + 0.8 * lash, 0.10 * height
        return Eye(upper, lower, reach, lashes(part, skin, top - (x0, y0), above, below), above, below)

    def paint(self, out: np.ndarray, points: np.ndarray, px: np.ndarray, blink: float) -> None:
        """Close the eyes of a drawn frame [S, S, 3] uint8 in place.

        Args:
            points, px: where the rig's vertices are [V, 3], and where they are drawn [V, 2]; blink: 0 open to 1 closed.
        """
        for eye in self.eyes:
            self._one(out, points, px, blink, eye)

    def _one(self, out: np.ndarray, points: np.ndarray, px: np.ndarray, blink: float, eye: Eye) -> None:
        top, bottom = px[eye.upper].astype(np.float64), px[eye.lower].astype(np.float64)
        view = window(np.concatenate([top, bottom]), self.rig.camera, eye.reach.max())
        if view is None:
            return
        x0, y0, camera = view
        skin = render_mesh(
            points, self.rig.faces, camera, uv=self.rig.uv, texture=self.texture, samples=1,
            cutout=np.zeros(len(self.rig.faces), np.uint8), threads=1,
        )  # fmt: skip
        order = np.argsort(top[:, 0])
        edge = top[order] + SHUT * blink * (bottom - top)[order]
        x = np.arange(camera.width, dtype=np.float32) + np.float32(0.5 + x0)
        y = (np.arange(camera.height, dtype=np.float32) + np.float32(0.5 + y0))[:, None]
        under = y - np.interp(x, top[order, 0], edge[:, 1]).astype(np.float32)  # px below the lid's edge
        beside = np.maximum(top[order[0], 0] - x, x - top[order[-1], 0]) / max(BESIDE * np.ptp(top[:, 0]), 1.0)
        over = np.clip(0.5 - under, 0, 1) * np.clip(1 - beside, 0, 1) * float(smoothstep(0.0, 0.3, np.float64(blink)))
        cover = np.maximum(over, float(smoothstep(0.7, 1.0, np.float64(blink)))) * skin.alpha

        spot = out[y0 : y0 + camera.height, x0 : x0 + camera.width]
        color = spot.astype(np.float32)
        color += cover[..., None] * (255 * skin.color - color)
        color *= self._line(eye, x, under, top[order], blink)[..., None]
        np.rint(color, out=color)
        spot[:] = np.clip(color, 0, 255)

    def _line(self, eye: Eye, x: np.ndarray, under: np.ndarray, top: np.ndarray, blink: float) -> np.ndarray:
        """What the lashes leave of the light [h, w]; those of a closed eye point down."""
        along = (x - top[0, 0]) / max(top[-1, 0] - top[0, 0], 1.0)
        across = np.broadcast_to((along * COLUMNS - 0.5).astype(np.float32), under.shape)
        down = float(smoothstep(0.3, 0.8, np.float64(blink)))
        left = np.zeros_like(under)
        for share, sign in ((1 - down, 1), (down, -1)):
            row = (sign * under + eye.above) / (eye.above + eye.below) * ROWS - 0.5
            strip = cv2.remap(
                eye.lashes, np.ascontiguousarray(across), row.astype(np.float32), cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT, borderValue=1.0,
            )  # fmt: skip
            left += share * strip
        return 1 - float(smoothstep(0.1, 0.5, np.float64(blink))) * (1 - left)


def beside_too(near: np.ndarray, sideways: float, lash: float) -> np.ndarray:
    """A mask [h, w] uint8 widened, px sideways, and hardly up or down."""
    across, up = max(round(sideways), 1), max(round(0.3 * lash), 1)
    return cv2.dilate(near, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * across + 1, 2 * up + 1)))


def ends_inside(dark: np.ndarray, far: np.ndarray) -> np.ndarray:
    """What of `dark` [h, w] bool lies wholly in `far`: a lash ends there, a lock of hair goes on."""
    _, number = cv2.connectedComponents(dark.astype(np.uint8))
    beyond = np.unique(number[dark & (far == 0)])
    return dark & ~np.isin(number, beyond)


def brows(rig: Rig, size: int) -> np.ndarray:
    """1 where the brows are [S, S] uint8: as dark as lashes, but nothing that a closed lid hides."""
    out = np.zeros((size, size), np.uint8)
    for brow in (BROW_LEFT, BROW_RIGHT):  # the upper edge's five, then the lower edge's, both inwards
        outline = rig.uv[[*brow[:5], *brow[:4:-1]]]
        cv2.fillPoly(out, [np.round((outline - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return out


def bounds(points: np.ndarray, reach: np.ndarray, size: int) -> tuple[int, int, int, int] | None:
    """The pixels about points [N, 2]: x0, y0, x1, y1 within the picture; None when there are hardly any."""
    x0, y0 = np.maximum(np.floor(points.min(0) - reach), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(points.max(0) + reach), size).astype(int).tolist()
    return (x0, y0, x1, y1) if x1 - x0 > 4 and y1 - y0 > 4 else None


def membrane(image: np.ndarray, unknown: np.ndarray, blur: float) -> np.ndarray:
    """The smoothest surface that meets the known pixels.

    Args:
        image: [h, w, 3] float32; unknown: [h, w] bool, False along the border; blur: px, so much of the known side is
            averaged at the seam, lest its grain be drawn out into streaks.
    """
    known = (~unknown).astype(np.float32)
    total = cv2.GaussianBlur(known, (0, 0), blur)
    smooth = cv2.GaussianBlur(image * known[..., None], (0, 0), blur) / np.maximum(total, 1e-4)[..., None]
    out = np.where(unknown[..., None], 0, smooth).astype(np.float32)
    count = int(unknown.sum())
    if not count:
        return out
    number = np.full(unknown.shape, -1)
    number[unknown] = np.arange(count)
    y, x = np.nonzero(unknown)
    rows, columns, given = [np.arange(count)], [np.arange(count)], np.zeros((count, 3))
    values = [np.full(count, 4.0)]
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        beside = number[y + dy, x + dx]
        free = beside >= 0
        rows.append(np.flatnonzero(free))
        columns.append(beside[free])
        values.append(np.full(int(free.sum()), -1.0))
        given[~free] += out[y + dy, x + dx][~free]
    system = coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count)
    ).tocsc()
    out[unknown] = splu(system).solve(given)
    return out


def grain(seen: np.ndarray, box: tuple[int, int, int, int], height: float, tall: float) -> np.ndarray:
    """The skin's texture for a lid [h, w, 3], taken from the cheek below it: brush strokes, pores, marble."""
    x0, y0, x1, y1 = box
    shift = min(round(1.2 * height + tall), seen.shape[0] - y1)
    part = seen[y0 + shift : y1 + shift, x0:x1]
    return np.clip(part - cv2.GaussianBlur(part, (0, 0), max(0.12 * height, 1.0)), -0.05, 0.05)


def lashes(part: np.ndarray, skin: np.ndarray, top: np.ndarray, above: float, below: float) -> np.ndarray:
    """The dark line over an eye, straightened out [ROWS, COLUMNS] float32: brightness against the skin's, at most 1.

    Args:
        part, skin: [h, w, 3], the portrait and its healed skin; top: [N, 2] px of `part`, the upper lid's edge.
        above, below: px that the strip reaches over and under the edge.
    """
    along = (np.arange(COLUMNS) + 0.5) / COLUMNS
    x = top[0, 0] + along * (top[-1, 0] - top[0, 0])
    down = -above + (np.arange(ROWS) + 0.5)[:, None] / ROWS * (above + below)
    at_x = np.broadcast_to(x - 0.5, (ROWS, COLUMNS)).astype(np.float32)
    at_y = (np.interp(x, top[:, 0], top[:, 1]) + down - 0.5).astype(np.float32)
    eye, lid = (cv2.remap(image @ GREY, at_x, at_y, cv2.INTER_LINEAR) for image in (part, skin))
    # In the strip the eye itself, under the edge, and the fold, far over it, do not count.
    own = np.exp(-((np.minimum(down, 0) / (0.5 * above)) ** 2)) * smoothstep(0, 0.3, (down + above) / above)
    own *= 1 - smoothstep(0.0, 1.0, down / max(below, 1e-3))
    left = 1 - own * (1 - np.clip(eye / np.maximum(lid, 0.02), 0.15, 1))
    left = cv2.GaussianBlur(left.astype(np.float32), (0, 0), 1.2)
    line = 1 - (1 - FAINTEST) * np.exp(-((down / max(0.08 * above, 0.7)) ** 2))
    ends = smoothstep(0, 0.06, np.minimum(along, 1 - along))
    return (1 - ends * (1 - np.minimum(left, line))).astype(np.float32)
