"""Stand-ins for the models that `observe` looks with, so that its conduct is tested where they are not at hand."""

import numpy as np

from vocalface.observe.landmarks import Face
from vocalface.types import FACE


def shape() -> np.ndarray:
    """A face of height 1 about its middle, [478, 3]."""
    from vocalface.presenter.landmarks import table

    turn, rise = np.array(table()["chart"]).T[:, :468]  # angles on the head
    points = np.stack([np.sin(turn) * np.cos(rise), -np.sin(rise), -np.cos(turn) * np.cos(rise)], axis=1)
    points = np.concatenate([points, points[np.repeat([33, 263], 5)]])  # irises at the corners of the eyes
    return (points - points.mean(0)) / np.ptp(points[:, 1])


def face(x: float, y: float, size: float, jaw: float = 0.5) -> Face:
    """A face of `size` px about (x, y)."""
    return Face((shape() * size + [x, y, 0]).astype(np.float32), np.full(52, jaw, np.float32))


def landmarker(see) -> type:
    """A Landmarker that finds what `see(picture)` says."""

    class Landmarker:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def __call__(self, picture):
            return see(picture)

        search = __call__

    return Landmarker


class Layers:
    """A LayerBuilder whose layers are the picture's gray."""

    def __init__(self, size, points, valid, threads=1):
        self.plate_indices = [0]

    def observe_plate(self, pictures):
        return next(iter(pictures))[1]

    def build_all(self, pictures):
        for _, image in pictures:
            gray = image.mean(-1).astype(np.uint8)
            yield np.full(gray.shape, FACE, np.uint8), gray, np.dstack([image, gray])


def moving(picture: np.ndarray) -> list[Face]:
    """One face in the middle, whose size and jaw follow the picture a little."""
    h, w = picture.shape[:2]
    return [face(w / 2, h / 2, 64 + float(picture[::8, ::8].mean()) / 256, picture.mean() / 256)]
