"""A drawn head that speaks: an oval with hair, eyes and a mouth whose opening follows the loudness of a tone.

Small enough for tests, and every truth is known.
"""

import numpy as np

from vocalface import media
from vocalface.observe import store
from vocalface.types import AU_NAMES, FACE, HAIR, MOUTH, NECK, TORSO, Camera, CropBox, FaceTrack, Sound

SIZE = 64


def opening(frames: int, seed: int = 0) -> np.ndarray:
    """Mouth opening of every frame in [0, 1], smooth, closed in a pause."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames) / 25
    x = sum(np.sin(2 * np.pi * f * t + p) for f, p in zip(rng.uniform(1.0, 3.5, 4), rng.uniform(0, 6, 4)))
    x = np.clip((x - x.min()) / (x.max() - x.min()), 0, 1)
    x[frames // 2 : frames // 2 + 8] = 0
    return x


def sound(open_: np.ndarray) -> Sound:
    """A buzz whose loudness and brightness follow the opening."""
    n = len(open_) * 640
    level = np.interp(np.arange(n) / 640 - 0.5, np.arange(len(open_)), open_)
    t = np.arange(n) / 16_000
    buzz = sum(np.sin(2 * np.pi * 130 * k * t) / k * (level if k > 4 else 1) for k in range(1, 20))
    return Sound((0.25 * level * buzz + 1e-3 * np.sin(t * 900)).astype(np.float32), 16_000)


def draw(o: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Image [S, S, 3] uint8 and labels [S, S] of one frame."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    x = x - 32 - shift
    image = np.stack([70 + y, 90 + 0 * y, 140 - y], axis=-1)
    labels = np.zeros((SIZE, SIZE), np.uint8)
    torso = (y > 52) & (np.abs(x) < 24)
    neck = (np.abs(x) < 6) & (y > 44)
    head = (x / 15) ** 2 + ((y - 30) / 20) ** 2 < 1
    hair = head & (y < 20)
    mouth = (x / 5) ** 2 + ((y - 40) / (0.4 + 3.6 * o)) ** 2 < 1
    for region, color, label in (
        (torso, (40, 60, 120), TORSO), (neck, (190, 150, 130), NECK),
        (head, (220, 175, 150), FACE), (hair, (60, 40, 30), HAIR),
    ):  # fmt: skip
        image[region], labels[region] = color, label
    for side in (-6, 6):
        image[(x - side) ** 2 + (y - 27) ** 2 < 4] = (30, 30, 60)
    image[head & ((x / 6.5) ** 2 + ((y - 40) / (1.8 + 3.6 * o)) ** 2 < 1)] = (190, 90, 95)
    if o > 0.15:
        image[mouth], labels[mouth] = (70, 25, 30), MOUTH
    return image.clip(0, 255).astype(np.uint8), labels


def observations(folder, frames=75, seed=0, mute=False):
    """The drawn head as a clip with its Observations."""
    folder.mkdir(parents=True, exist_ok=True)
    o = opening(frames, seed)
    shift = 1.5 * np.sin(np.arange(frames) / 11)
    camera = Camera(140, 140, 32, 32, SIZE, SIZE)
    writer = store.ObservationsWriter(folder / "drawn.obs", SIZE)
    plate, _ = draw(0, 1000)
    points = np.zeros((frames, 478, 3), np.float32)
    rng = np.random.default_rng(1)
    face = rng.uniform(-1, 1, (478, 2)) * [9, 14]
    face[[33, 263, 2]] = [(-8, -3), (8, -3), (0, 4)]
    from vocalface.observe.indices import FACE_OVAL, LIPS_INNER, LIPS_OUTER

    turn = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    face[FACE_OVAL] = np.stack([14 * np.sin(turn), -19 * np.cos(turn)], axis=1)
    lips = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    poses = np.tile(np.diag([1.0, -1, -1, 1]), (frames, 1, 1))
    with media.VideoWriter(folder / "drawn.mp4", SIZE, SIZE, sound=None if mute else sound(o), crf=2) as video:
        for k in range(frames):
            image, labels = draw(o[k], shift[k])
            video.write(image)
            head = np.isin(labels, (FACE, HAIR, MOUTH))
            torso = np.zeros((SIZE, SIZE, 4), np.uint8)
            y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
            x = x - 32 - shift[k]
            torso[(y > 52) & (np.abs(x) < 24)] = (40, 60, 120, 255)
            torso[(np.abs(x) < 6) & (y > 30) & (y <= 52)] = (190, 150, 130, 255)
            torso[(np.abs(x) < 6) & (y > 44)] = (190, 150, 130, 255)
            writer.add(labels, head.astype(np.uint8) * 255, torso)
            points[k, :, :2] = face + np.array([32 + shift[k], 30])
            for row, width, height in ((LIPS_OUTER, 6.5, 1.8), (LIPS_INNER, 5, 0.4)):
                points[k, row, 0] = 32 + shift[k] - width * np.cos(lips)
                points[k, row, 1] = 40 - (height + 3.6 * o[k]) * np.sin(lips)
            poses[k, 0, 3], poses[k, 2, 3] = shift[k] / 140 * 0.7, 0.7
    units = np.zeros((frames, 17), np.float32)
    units[:, AU_NAMES.index("AU25")] = 4 * o
    units[:, AU_NAMES.index("AU26")] = 3 * o
    track = FaceTrack(
        np.ones(frames, bool), points, np.zeros((frames, 52), np.float32), units, poses.astype(np.float32)
    )
    return writer.finish(
        clip=folder / "drawn.mp4", clip_hash=store.file_hash(folder / "drawn.mp4"), crop=CropBox(0, 0, SIZE),
        camera=camera, track=track, plate=plate, shots=[(0, frames)], info={"action_units": "exact"},
    )  # fmt: skip
