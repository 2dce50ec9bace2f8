"""Lids that close with skin: painted over the eye in the colours of the portrait's own lid, with its own lash line."""

from __future__ import annotations

import cv2
import numpy as np

from vocalface.sadtalker.rig import LASH, Rig, holes, smoothstep

FINE = 4  # samples an axis
FOLD = 0.35  # eye heights above the lid's edge where the lid's own colour is taken
ROUND = 0.12  # how much darker a closed lid is at its rims than in its middle


class Lids:
    """The eyes of a rig that can close."""

    def __init__(self, rig: Rig, image: np.ndarray) -> None:
        """image: [S, S, 3] uint8, the portrait."""
        self.eyes = []
        smooth = cv2.GaussianBlur(image, (0, 0), max(rig.size / 256, 0.8)).astype(np.float32) / 255
        per_metre = np.linalg.norm(rig.uv[454] - rig.uv[234]) / 0.14
        self.lash = LASH * per_metre  # px
        for rim, _, _ in holes(rig.rest.astype(np.float64))[:-1]:
            upper, lower = rim[: len(rim) // 2], rim[len(rim) // 2 :]
            top, bottom = rig.uv[upper], rig.uv[lower]
            height = float((bottom[:, 1] - top[:, 1]).max())
            lid = sample(smooth, top - (0, self.lash + FOLD * height))
            under = sample(smooth, bottom + np.array([0, 0.35 * height]))
            # A shadow or a strand over one column is no colour of the lid: columns agree, brightness follows the skin.
            lid = 0.5 * lid + 0.5 * np.median(lid, axis=0)
            dark = sample(image.astype(np.float32) / 255, np.concatenate([top - (0, k * self.lash) for k in (0, 0.3)]))
            line = np.percentile(dark, 20, axis=0)
            self.eyes.append((upper, lower, 0.35 * np.minimum(lid, under) + 0.6 * under, 0.96 * under, line, height))

    def paint(self, out: np.ndarray, px: np.ndarray, blink: float) -> None:
        """Close the eyes of a drawn frame [S, S, 3] uint8 in place.

        Args:
            px: [V, 2] where the rig's vertices are drawn; blink: 0 open to 1 closed.
        """
        for upper, lower, lid, under, line, height in self.eyes:
            top, bottom = px[upper], px[lower]
            edge = top + 0.98 * blink * (bottom - top)
            self._one(out, top, edge, blink, lid, under, line, height)

    def _one(self, out, top, edge, blink, lid, under, line, height) -> None:
        pad = int(2 * self.lash) + 3
        low = np.maximum(np.floor(np.minimum(top, edge).min(0)).astype(int) - pad, 0)
        high = np.minimum(np.ceil(np.maximum(top, edge).max(0)).astype(int) + pad, out.shape[1::-1])
        if (high - low < 4).any():
            return
        (x0, y0), (w, h) = low, high - low
        order = np.argsort(top[:, 0])
        x = np.arange(w) + 0.5 + x0
        y = (np.arange(h) + 0.5 + y0)[:, None]
        y_top, y_edge = (np.interp(x, top[order, 0], v[order, 1]) for v in (top, edge))
        inside = (x > top[order[0], 0]) & (x < top[order[-1], 0])
        first, last = top[order[0], 0], top[order[-1], 0]
        near = np.minimum(x - first, last - x) / max(last - first, 1.0)
        corner = np.clip(near / 0.08, 0, 1)  # nothing is painted beyond the corners, little beside them

        # Coverage: from over the old lash line (fading in) down to the new edge.
        span = np.maximum(y_edge - y_top, 1e-3)
        along = (y - y_top) / span
        start = np.clip((y - (y_top - 2.0 * self.lash)) / (1.3 * self.lash), 0, 1)
        cover = (
            start * np.clip(y_edge - y + 0.5, 0, 1) * inside * corner * float(smoothstep(0.0, 0.35, np.float64(blink)))
        )

        t = np.clip(along, 0, 1)[..., None]
        above, below = (
            np.stack([np.interp(x, top[order, 0], c[order, k]) for k in range(3)], -1) for c in (lid, under)
        )
        color = (1 - t) * above + t * below
        color = color * (1 + ROUND * (4 * t * (1 - t) - 0.7))

        spot = out[y0 : y0 + h, x0 : x0 + w].astype(np.float32) / 255
        spot += cover[..., None] * (color - spot)
        stroke = self._stroke(edge[order], (x0, y0), (w, h), height) * float(smoothstep(0.1, 0.5, np.float64(blink)))
        spot += (0.75 * stroke * corner)[..., None] * (line - spot)
        out[y0 : y0 + h, x0 : x0 + w] = (np.clip(spot, 0, 1) * 255 + 0.5).astype(np.uint8)

    def _stroke(self, edge, origin, size, height) -> np.ndarray:
        """The lash line's coverage [h, w]: thin at the corners."""
        w, h = size
        fine = np.zeros((h * FINE, w * FINE), np.uint8)
        points = ((edge - origin) * FINE).round().astype(np.int32)
        thick = max(round(0.08 * height * FINE), 1)
        cv2.polylines(fine, [points[1:-1].reshape(-1, 1, 2)], False, 255, thick, cv2.LINE_AA)
        cv2.polylines(fine, [points.reshape(-1, 1, 2)], False, 255, max(thick // 2, 1), cv2.LINE_AA)
        fine = cv2.GaussianBlur(fine, (0, 0), 0.25 * FINE * max(height / 12, 1))
        return cv2.resize(fine, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def sample(image: np.ndarray, px: np.ndarray) -> np.ndarray:
    """Colours [N, 3] at the nearest pixels."""
    side = image.shape[0] - 1
    x, y = np.clip(np.round(px - 0.5).astype(int), 0, side).T
    return image[y, x]
