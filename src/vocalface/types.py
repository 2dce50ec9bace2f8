"""The nouns. Arrays are NumPy unless said; every field names its shape and unit.

Convention:
    World = the head's frame, metres: +x to the image's right when the face looks at the camera, +y up, +z out of
    the face; the origin lies midway between landmarks 234 and 454, at the ears. `head_pose` = world-to-camera 4x4 in
    OpenCV axes (x right, y down, z forward).
    Pixel (i, j) spans [i, i+1), its centre is at +0.5; the image's centre is at W/2.
    Images are float32 RGB [0, 1] HWC inside the methods and uint8 RGB HWC at the borders of `media`.
    Quaternions are wxyz. Frame i covers [i/25, (i+1)/25) s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FPS = 25
"""The frame rate of every observation and of every generated head."""

SPEECH_RATE = 16_000
"""The sample rate of speech everywhere inside the package."""

AU_NAMES = (
    "AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU12",
    "AU14", "AU15", "AU17", "AU20", "AU23", "AU25", "AU26", "AU45",
)  # fmt: skip
"""The 17 action units, in the order of every `action_units` array (OpenFace's order)."""

UPPER_AUS = ("AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU45")
LOWER_AUS = ("AU09", "AU10", "AU12", "AU14", "AU15", "AU17", "AU20", "AU23", "AU25", "AU26")
UPPER_AU_INDEX = np.array([AU_NAMES.index(a) for a in UPPER_AUS])
LOWER_AU_INDEX = np.array([AU_NAMES.index(a) for a in LOWER_AUS])

BACKGROUND, FACE, HAIR, MOUTH, NECK, TORSO = range(6)
"""The values of a label mask. `MOUTH` is the mouth's interior, teeth and tongue included."""


def frames_for(samples: int, rate: int = SPEECH_RATE) -> int:
    """Number of 25 fps frames that cover `samples` at `rate`: ceil(25 n / r)."""
    return -(-FPS * samples // rate)


@dataclass(frozen=True)
class Sound:
    """Mono sound."""

    samples: np.ndarray  # [N] float32 in [-1, 1]
    rate: int  # Hz

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class Camera:
    """A pinhole camera, intrinsics in px of a `width` x `height` image."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    world_to_camera: Any = None  # [4, 4] float32, NumPy or torch; OpenCV axes

    def scaled(self, factor: float) -> Camera:
        """The same camera for an image resized by `factor`."""
        return Camera(
            self.fx * factor, self.fy * factor, self.cx * factor, self.cy * factor,
            round(self.width * factor), round(self.height * factor), self.world_to_camera,
        )  # fmt: skip

    def posed(self, world_to_camera: Any) -> Camera:
        """The same intrinsics at another pose."""
        return Camera(self.fx, self.fy, self.cx, self.cy, self.width, self.height, world_to_camera)


@dataclass(frozen=True)
class Gaussians:
    """3D Gaussians after their activations; NumPy arrays or torch tensors alike."""

    means: Any  # [N, 3] metres, world
    quats: Any  # [N, 4] wxyz, need not be unit length
    scales: Any  # [N, 3] standard deviations, metres, > 0
    opacities: Any  # [N] in (0, 1)
    colors: Any  # [N, C], C = 3 for RGB, more for extra channels

    def __len__(self) -> int:
        return len(self.means)


@dataclass(frozen=True)
class CropBox:
    """A square of the source frame, px; it may reach over the frame's edge (edge pixels repeat there)."""

    x: float
    y: float
    side: float


@dataclass(frozen=True)
class FaceTrack:
    """One face through a clip, on the 25 fps grid, px of the crop at `Observations.size`.

    Rows of frames in which the face was not seen (`valid` False) hold interpolated values: indices stay those of
    the video.
    """

    valid: np.ndarray  # [T] bool
    landmarks: np.ndarray  # [T, 478, 3] float32: x, y px; z px, relative, smaller is nearer
    blendshapes: np.ndarray  # [T, 52] float32 in [0, 1], MediaPipe's order
    action_units: np.ndarray  # [T, 17] float32, 0..5, AU_NAMES' order
    head_pose: np.ndarray  # [T, 4, 4] float32 world-to-camera

    def __len__(self) -> int:
        return len(self.valid)


@dataclass(frozen=True)
class ObservedFrame:
    """One frame of Observations with its layers, size S x S."""

    index: int
    image: np.ndarray  # [S, S, 3] uint8, the crop of the source
    labels: np.ndarray  # [S, S] uint8, values BACKGROUND..TORSO
    head_alpha: np.ndarray  # [S, S] uint8, matted: 255 where the pixel is wholly face, hair or mouth
    torso: np.ndarray  # [S, S, 4] uint8, straight alpha; in-painted under the head
    behind: np.ndarray  # [S, S, 3] uint8, torso over the background plate


@dataclass(frozen=True)
class Observations:
    """What is seen and heard in a clip. The pixels stay in the source and in the folder's layer videos."""

    folder: Path | None
    clip: Path  # the source video (it holds the sound as well)
    clip_hash: str  # sha256 of the source
    crop: CropBox  # in source px
    size: int  # S, px of the crop as observed
    camera: Camera  # intrinsics at S x S; its pose is None
    track: FaceTrack
    plates: np.ndarray  # [P, S, S, 3] uint8, the background alone, one a shot
    shots: list[tuple[int, int]] = field(default_factory=list)  # P continuous runs, [start, end) frames
    info: dict = field(default_factory=dict)  # providers, grade, provenance

    @property
    def plate(self) -> np.ndarray:
        """The background of the longest shot, [S, S, 3] uint8."""
        lengths = [b - a for a, b in self.shots] or [0]
        return self.plates[int(np.argmax(lengths))]

    def plate_at(self, index: int) -> np.ndarray:
        """The background behind frame `index`, [S, S, 3] uint8."""
        return self.plates[next((k for k, (a, b) in enumerate(self.shots) if a <= index < b), 0)]

    def __len__(self) -> int:
        return len(self.track)
