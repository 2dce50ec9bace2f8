"""The background plate: what the camera sees when the person is not there.

Per pixel the median over the sampled frames in which the person is far away; where the person never gives the pixel
free, a smooth continuation of what surrounds it. (HM-Talker's data preparation takes the one frame with the largest
distance; the median gives the same on a still background and is quieter on a noisy one.)
"""

from __future__ import annotations

import cv2
import numpy as np

CLEARANCES = (10, 6, 3)
"""Distances to the person, px at S = 512, in the order in which they are trusted."""


def push_pull(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fill an image smoothly where it is not known, keeping it where it is.

    Args:
        image: [H, W, C] float32.
        weight: [H, W] float32 in [0, 1]: 0 where the pixel is unknown, 1 where it is kept as it stands.

    Returns:
        [H, W, C] float32. Unknown pixels are interpolated from the nearest known ones over an image pyramid.
    """
    height, width = weight.shape
    if min(height, width) <= 2 or weight.min() >= 1:
        total = max(float(weight.sum()), 1e-6)
        mean = (image * weight[..., None]).sum((0, 1)) / total
        return image * weight[..., None] + mean * (1 - weight[..., None])
    half = (-(-width // 2), -(-height // 2))
    small_weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    small = cv2.resize(image * weight[..., None], half, interpolation=cv2.INTER_AREA)
    small = small.reshape(half[1], half[0], -1) / np.maximum(small_weight, 1e-6)[..., None]
    below = push_pull(small, np.minimum(small_weight * 2, 1))
    below = cv2.GaussianBlur(below, (3, 3), 0)
    full = cv2.resize(below, (width, height), interpolation=cv2.INTER_LINEAR).reshape(image.shape)
    return image * weight[..., None] + full * (1 - weight[..., None])


class PlateBuilder:
    """Collects frames with their person masks and gives the background plate.

    Args:
        size: S, px. Memory is about `frames * S * S * 4` bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._frames: list[np.ndarray] = []
        self._distances: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: np.ndarray, person: np.ndarray) -> None:
        """Take a frame [S, S, 3] uint8 with its person mask [S, S] float32 in [0, 1]."""
        free = (person < 0.1).astype(np.uint8)
        distance = cv2.distanceTransform(free, cv2.DIST_L2, 5) if free.any() else np.zeros_like(person)
        if free.all():  # nobody there: as far as can be
            distance = np.full_like(person, 255)
        self._frames.append(np.array(frame))
        self._distances.append(np.clip(distance * (512 / self.size), 0, 255).astype(np.uint8))

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """The plate [S, S, 3] uint8 and where it was really seen, [S, S] bool."""
        size = self.size
        plate = np.zeros((size, size, 3), np.uint8)
        seen = np.zeros((size, size), bool)
        for y in range(0, size, 32):  # strips bound the memory of the sort
            strip = slice(y, min(y + 32, size))
            frames = np.stack([f[strip] for f in self._frames])
            distances = np.stack([d[strip] for d in self._distances])
            for clearance in CLEARANCES:
                free = distances > clearance
                count = free.sum(0)
                new = (count > 0) & ~seen[strip]
                if not new.any():
                    continue
                plate[strip][new] = _masked_median(frames[:, new], free[:, new], count[new])
                seen[strip] |= new
        if not seen.any():  # a close-up: a plain colour is the only honest guess
            return np.full_like(plate, 127), seen
        filled = push_pull(plate.astype(np.float32), seen.astype(np.float32))
        plate = np.where(seen[..., None], plate, np.clip(np.rint(filled), 0, 255).astype(np.uint8))
        return plate, seen


def _masked_median(values: np.ndarray, free: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Lower median over axis 0 of values [K, M, 3] uint8 where free [K, M]; count [M] = free.sum(0) > 0."""
    keyed = np.where(free[..., None], values, 255)  # masked samples sort to the end
    keyed = np.sort(keyed, axis=0)
    middle = ((count - 1) // 2)[None, :, None]
    return np.take_along_axis(keyed, np.broadcast_to(middle, (1, keyed.shape[1], 3)), axis=0)[0]
