"""What a step learns from: a frame as tensors, and the order in which easy frames come first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vocalface.hmtalker.data import Frame, Material
from vocalface.types import FACE, HAIR, MOUTH


@dataclass
class View:
    """A frame as tensors, cut to a box of the image."""

    index: int
    image: Tensor  # [h, w, 3]
    behind: Tensor  # [h, w, 3]
    alpha: Tensor  # [h, w]
    mouth: Tensor  # [h, w] bool
    face: Tensor  # [h, w] bool
    hair: Tensor  # [h, w] bool
    box: tuple[int, int, int, int]  # of the image, px
    lips: tuple[slice, slice]  # lips_rect within the box


def view_of(
    frame: Frame, material: Material, i: int, lips_only: bool = False, device: torch.device | str = "cpu"
) -> View:
    x0, y0, x1, y1 = material.lips[i]
    bx, by = material.box[:2]
    if lips_only:
        pad = 4
        h, w = frame.labels.shape
        x0, y0, x1, y1 = max(x0 - pad, 0), max(y0 - pad, 0), min(x1 + pad, w), min(y1 + pad, h)
        cut, box = np.s_[y0:y1, x0:x1], (bx + x0, by + y0, bx + x1, by + y1)
        lips = np.s_[:, :]
    else:
        cut, box, lips = np.s_[:, :], material.box, np.s_[y0:y1, x0:x1]

    def tensor(a: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a[cut])).to(device).float().div_(255)

    labels = torch.from_numpy(np.ascontiguousarray(frame.labels[cut])).to(device)
    image, behind, alpha = tensor(frame.image), tensor(frame.behind), tensor(frame.alpha)
    return View(
        i, image, _hidden(image, behind, alpha), alpha,
        labels == MOUTH, labels == FACE, labels == HAIR, box, lips,
    )  # fmt: skip


def _hidden(image: Tensor, behind: Tensor, alpha: Tensor) -> Tensor:
    """What lies behind the head [h, w, 3], in another colour where the head hides the very same: there a head that is
    transparent would look right, and long hair would end where the torso layer begins to show it too."""
    same = (alpha > 0.9) & ((behind - image).abs().amax(-1) < 3 / 255)
    return torch.where(same[..., None], (image + 0.5) % 1, behind)


@dataclass
class Incremental:
    """Frame lists for the incremental schedule, computed once: a request always gets frames (the nearest if none)."""

    rows: np.ndarray
    gap: np.ndarray
    au45: np.ndarray
    open_frames: np.ndarray
    visible: np.ndarray

    def _near(self, values: np.ndarray, low: float, high: float) -> np.ndarray:
        inside = self.rows[(values >= low) & (values <= high)]
        if len(inside):
            return inside
        return self.rows[[int(np.abs(values - (low + high) / 2).argmin())]]

    def opening(self, done: float) -> np.ndarray:
        """Frames whose mouth opening lies in a window that slides from small to large."""
        low, high = float(self.gap.min()), float(self.gap.max())
        low = low + 0.2 * (high - low)
        centre = low + (high - low) * done
        half = 0.2 * (high - low)
        return self._near(self.gap, centre - half, centre + half)

    def blink(self, done: float) -> np.ndarray:
        return self._near(self.au45 / 2, done - 0.15, done + 0.3)


def incremental_lists(material: Material, rows: np.ndarray) -> Incremental:
    gap = material.gap[rows]
    order = np.argsort(-gap)
    return Incremental(
        rows,
        gap,
        material.upper[rows, 6],
        rows[order[: max(1, len(rows) // 20)]],
        rows[order[: max(1, len(rows) // 2)]],
    )
