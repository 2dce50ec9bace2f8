"""The published SadTalker, end to end, for those who bring its checkpoints: `animate --renderer official`.

Portrait -> crop -> coefficients; speech -> coefficients; both -> keypoints -> pictures -> back into the whole picture.
Everything is a stream: memory does not grow with the speech.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vocalface import assets, media
from vocalface.errors import AssetError, ConfigError, FaceError
from vocalface.observe.landmarks import Landmarker
from vocalface.observe.speech.intake import at_least
from vocalface.sadtalker import checkpoints, fast, framing
from vocalface.sadtalker.align import MODES, PASTED, Crop, PasteBack, aligned, crop_for, cut, landmarks_68
from vocalface.sadtalker.coefficients import CROPPED, WHOLE, Settings, idle_windows, mel_windows, rows_of
from vocalface.sadtalker.direction import LONGEST, blink_track, landmarks_of
from vocalface.sadtalker.drive import Result, check_scales, heard, written
from vocalface.sadtalker.enhance import Enhancer
from vocalface.sadtalker.expnet import EXPRESSIONS
from vocalface.sadtalker.gaze import check as check_gaze
from vocalface.sadtalker.gaze import look
from vocalface.sadtalker.keypoints import transform
from vocalface.sadtalker.mapping import RADIUS, WINDOW
from vocalface.sadtalker.open_weights import Context
from vocalface.sadtalker.portrait import Search, picked
from vocalface.sadtalker.recon import motion_coefficients
from vocalface.types import FPS, Sound

LARGEST_TURN = 90.0  # degrees of free view
SIZES = (256, 512)
OLDER_RENDERER = checkpoints.OLDER["generator"][0]


@dataclass(frozen=True)
class Networks:
    """All that a portrait needs to speak."""

    recon: nn.Module
    expnet: nn.Module
    posevae: nn.Module  # Audio2Pose
    mapping: nn.Module  # of 70 or of 73 channels
    keypoints: nn.Module
    generator: nn.Module
    size: int = 256
    drawing: fast.FastGenerator | None = None
    """`generator` made ready, for many portraits; without it each portrait makes its own."""

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    def to(self, device: str) -> Networks:
        for name in ("recon", "expnet", "posevae", "mapping", "keypoints", "generator"):
            getattr(self, name).to(device)
        return replace(self, drawing=None)

    def ready(self, precision: str = "auto") -> Networks:
        """With `drawing` of a precision, see `fast.precision`: for those who draw several portraits."""
        return replace(self, drawing=fast.FastGenerator(self.generator, fast.precision(precision, self.device)))


def load_networks(mode: str, size: int = 256, device: str = "cpu") -> Networks:
    """The published networks, as `vocalface fetch sadtalker` lays them down; or, of 256 px, the older set of files in
    the same folder, where the newer file is absent.

    Raises AssetError (absent, altered), ConfigError (another size).
    """
    if size not in SIZES:
        raise ConfigError(f"there are no published weights of {size} px", "--size", "choose 256 or 512")
    mapping = "sadtalker/mapping_00109-model.pth.tar" if mode in PASTED else "sadtalker/mapping_00229-model.pth.tar"
    newer, older = f"sadtalker/SadTalker_V0.0.2_{size}.safetensors", assets.find(f"sadtalker/{OLDER_RENDERER}")
    if size == 256 and older is not None and assets.find(newer) is None:
        found = checkpoints.load_older(older.parent)
    else:
        found = checkpoints.load_published(assets.path(newer))
    path = assets.path(mapping)
    networks = Networks(
        found["face_3drecon"], found["audio2exp"], found["audio2pose"], checkpoints.load_mapping(path),
        found["kp_extractor"], found["generator"], size,
    )  # fmt: skip
    wanted = WHOLE if mode in PASTED else CROPPED
    if networks.mapping.channels != wanted:
        raise AssetError(
            f"this mapping has {networks.mapping.channels} channels instead of {wanted}", path,
            "vocalface fetch sadtalker",
        )  # fmt: skip
    return networks.to(device)


# -------------------------------------------------------------------------------------------- portrait
@dataclass(frozen=True)
class Subject:
    """A portrait as the published networks take it."""

    square: np.ndarray  # [S, S, 3] uint8
    coefficients: np.ndarray  # [73] float32
    crop: Crop
    picture: np.ndarray  # [H, W, 3] uint8
    faces: int


def subject_of(
    path: Path | str,
    networks: Networks,
    mode: str,
    face: str = "largest",
    search: Search | None = None,
    gaze: tuple[float, float] | None = None,
) -> Subject:
    """The chosen face of a picture, its eyes turned by `gaze` (degrees to the right and down).

    Raises MediaError, FaceError, AssetError, ConfigError.
    """

    def read(find: Search) -> Subject:
        picture, points, faces = picked(path, find, face)
        height, width = picture.shape[:2]
        crop = crop_for(landmarks_68(points), width, height, mode)
        square = cut(picture, crop, networks.size)
        # The published code looks for the landmarks once more, in the square.
        inside = placed(points, crop, networks.size)
        again = [f.landmarks for f in find(square) if near(f.landmarks, inside)]
        points = again[0] if again else inside
        seen = landmarks_68(points)
        if gaze is not None:
            square = look(square, points, check_gaze(gaze))
        return Subject(square, coefficients_of([(square, seen)], networks.recon)[0], crop, picture, faces)

    if search is not None:
        return read(search)
    with Landmarker() as landmarker:
        return read(landmarker.search)


def placed(points: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Landmarks [N, 2 or 3] of the picture in px of the square [N, 2]."""
    return (points[:, :2] - crop.box[:2]) * (size / crop.width, size / crop.height)


def near(found: np.ndarray, wanted: np.ndarray) -> bool:
    return float(np.abs(found[:, :2] - wanted[:, :2]).mean()) < 0.15 * float(np.ptp(wanted[:, 1]))


@torch.no_grad()
def coefficients_of(faces: Iterable[tuple[np.ndarray, np.ndarray]], recon: nn.Module, batch: int = 8) -> np.ndarray:
    """Pictures [H, W, 3] uint8 with their 68 landmarks -> coefficients [N, 73] float32."""
    device = next(recon.parameters()).device
    rows, waiting = [], []

    def ask() -> None:
        if waiting:
            pictures = torch.from_numpy(np.stack([p for p, _ in waiting])).to(device).permute(0, 3, 1, 2) / 255
            crops = torch.from_numpy(np.stack([c for _, c in waiting])).to(device)
            rows.append(motion_coefficients(recon(pictures), crops).cpu().numpy())
            waiting.clear()

    for picture, points in faces:
        waiting.append(aligned(picture, framing.five_points(points)))
        if len(waiting) == batch:
            ask()
    ask()
    return np.concatenate(rows) if rows else np.zeros((0, WHOLE), np.float32)


def head_of(video: Path | str, networks: Networks, search: Search | None = None) -> np.ndarray:
    """The head [N, 6] of a reference video against its first frame, at 25 frames a second whatever the video's rate.

    Raises MediaError, FaceError (seen in under half of the frames), AssetError.
    """
    clip = media.open_clip(video)
    read = seen = 0

    def faces(find: Search) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal read, seen
        crop = last = None
        for image in clip.at(FPS):
            if read == LONGEST:
                return
            read += 1
            found = find(image)
            seen += bool(found)
            last = found[0].landmarks if found else last
            if last is None:
                continue
            crop = crop or crop_for(landmarks_68(last), image.shape[1], image.shape[0], "crop")
            yield cut(image, crop, networks.size), placed(landmarks_68(last), crop, networks.size)

    if search is not None:
        rows = coefficients_of(faces(search), networks.recon)
    else:
        with Landmarker() as landmarker:
            rows = coefficients_of(faces(landmarker), networks.recon)
    if seen < 0.5 * read or not seen:
        raise FaceError(
            f"a face in {seen} of {read} frames", video, "give a video in which one face is seen throughout"
        )
    pose = rows[:, EXPRESSIONS:CROPPED]
    return pose - pose[:1]


# -------------------------------------------------------------------------------------------- pictures
@dataclass(frozen=True)
class View:
    """Turning schedules, degrees as the published networks count them: they take the place of the driven angles."""

    yaw: tuple[float, ...] = ()
    pitch: tuple[float, ...] = ()
    roll: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("yaw", "pitch", "roll"):
            for angle in getattr(self, name):
                if not abs(angle) <= LARGEST_TURN:
                    raise ConfigError(f"--{name} of {angle:g} degrees", f"--{name}", "stay within -90 to 90")

    def paths(self, frames: int) -> dict[str, np.ndarray]:
        given = {name: getattr(self, name) for name in ("yaw", "pitch", "roll")}
        return {name: framing.camera_path(keys, frames) for name, keys in given.items() if keys}


class Renderer:
    """Draws a portrait by rows of coefficients; what depends on the portrait alone is computed once."""

    @torch.no_grad()
    def __init__(
        self, networks: Networks, square: np.ndarray, row: np.ndarray, batch: int | None = None,
        precision: str = "auto", record: bool = True,
    ) -> None:  # fmt: skip
        """Args:
            square, row: [S, S, 3] uint8 and the row [70 or 73] of the portrait.
            batch: frames drawn at once; by default 8 on a CUDA device and 2 elsewhere.
            precision: of the convolutions, see `fast.precision`.
            record: whether batches may be recorded on a CUDA device, see `fast.Lanes`.

        Raises ConfigError.
        """
        device = networks.device
        self.batch = (8 if device.type == "cuda" else 2) if batch is None else batch
        if not 1 <= self.batch <= 64:
            raise ConfigError(f"{batch} frames at once", "--batch", "give 1 to 64")
        dtype = fast.precision(precision, device)
        self.networks = networks
        with fast.exact():
            image = torch.from_numpy(square).to(device).permute(2, 0, 1)[None] / 255
            self.canonical = networks.keypoints(image)
            windows = np.repeat(row[None, :, None], WINDOW, axis=2)
            source = networks.generator.encode(image, self._driven(windows, {}))
        drawing = networks.drawing
        if drawing is None or (precision != "auto" and drawing.dtype != dtype):
            drawing = fast.FastGenerator(networks.generator, dtype)
        self.draw = fast.Lanes(drawing, drawing.prepare(source), self.batch, record)

    def __call__(self, rows: Iterable[np.ndarray], paths: dict[str, np.ndarray] | None = None) -> Iterator[np.ndarray]:
        """Rows [70 or 73] -> frames [S, S, 3] uint8, 13 frames and a batch later."""
        return self.draw(self._keypoints(rows, paths or {}))

    def _keypoints(self, rows: Iterable[np.ndarray], paths: dict[str, np.ndarray]) -> Iterator[torch.Tensor]:
        done = 0
        for windows in batched(windows_around(rows), self.batch):
            span = np.arange(done, done + len(windows))
            yield self._driven(windows, {name: path[np.minimum(span, len(path) - 1)] for name, path in paths.items()})
            done += len(windows)

    @torch.no_grad()
    def _driven(self, windows: np.ndarray, angles: dict[str, np.ndarray]) -> torch.Tensor:
        """Windows [B, 70 or 73, 27], angles [B] that replace the driven ones -> keypoints [B, 15, 3]."""
        device = self.networks.device
        given = {name: torch.from_numpy(value.astype(np.float32)).to(device) for name, value in angles.items()}
        with fast.exact():
            motion = self.networks.mapping(torch.from_numpy(windows).to(device))
        return transform(self.canonical, motion, **given)


def windows_around(rows: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Rows [C] -> windows [C, 27] about each; before the first and after the last they repeat."""
    context = Context(RADIUS, RADIUS)

    def windows(block: np.ndarray | None) -> Iterator[np.ndarray]:
        for k in range(0 if block is None else len(block) - 2 * RADIUS):
            yield block[k : k + WINDOW].T

    for row in rows:
        yield from windows(context.push(row[None]))
    yield from windows(context.flush())


def batched(items: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    waiting = []
    for item in items:
        waiting.append(item)
        if len(waiting) == count:
            yield np.ascontiguousarray(np.stack(waiting))
            waiting = []
    if waiting:
        yield np.ascontiguousarray(np.stack(waiting))


# ----------------------------------------------------------------------------------------------- whole
class Speaker:
    """A portrait made ready: the size of its frames, and the frames of any speech."""

    def __init__(
        self, networks: Networks, subject: Subject, settings: Settings | None = None, view: View | None = None,
        batch: int | None = None, precision: str = "auto",
    ) -> None:  # fmt: skip
        self.networks, self.subject = networks, subject
        self.settings, self.view = settings or Settings(), view or View()
        self.whole = subject.crop.pasted
        row = subject.coefficients if self.whole else subject.coefficients[:CROPPED]
        self.renderer = Renderer(networks, subject.square, row, batch, precision)
        if self.whole:
            self.height, self.width = subject.picture.shape[:2]
        else:  # the square was squeezed: the picture is not
            larger = networks.size / min(subject.crop.height, subject.crop.width)
            self.height, self.width = (round(larger * v / 2) * 2 for v in (subject.crop.height, subject.crop.width))

    def rows(self, pieces: Iterable[np.ndarray] | None, frames: int) -> Iterator[np.ndarray]:
        """Coefficients of speech in pieces [n] at 16 kHz, or of `frames` idle ones."""
        windows = idle_windows(frames) if pieces is None else mel_windows(pieces)
        n = self.networks
        return rows_of(windows, n.expnet, n.posevae, self.subject.coefficients, frames, self.settings, self.whole)

    def frames(
        self,
        pieces: Iterable[np.ndarray] | None,
        frames: int,
        enhance: Enhancer | None = None,
    ) -> Iterator[np.ndarray]:
        """Frames [H, W, 3] uint8; arguments as of `rows`; `enhance` betters each square before it is put back."""
        back = PasteBack(self.subject.picture, self.subject.crop) if self.whole else None
        for square in self.renderer(self.rows(pieces, frames), self.view.paths(frames)):
            if enhance is not None:
                square = enhance(square)
            yield back(square) if back else media.resize(square, self.width, self.height)


def animate(
    portrait: Path | str, speech: Sound | Path | str | None, output: Path | str, *, networks: Networks | None = None,
    mode: str = "crop", size: int = 256, device: str = "cpu", settings: Settings | None = None,
    view: View | None = None, idle: float = 0.0, face: str = "largest", batch: int | None = None,
    precision: str = "auto", pose_from: Path | str | None = None, blink_from: Path | str | None = None,
    search: Search | None = None, gaze: tuple[float, float] | None = None, enhance: Enhancer | None = None,
    progress=None,
) -> Result:  # fmt: skip
    """Write a video of a portrait saying `speech`, drawn by the published networks.

    Args:
        networks: already loaded; by default those that `vocalface fetch sadtalker` lays down.
        mode: crop, extcrop, resize, full or extfull, see `align.crop_for`.
        settings, view: how the face moves, and free view.
        pose_from, blink_from: videos whose head motion is added, whose lids are taken (the eyes' alone).
        batch, precision: frames drawn at once and the type of the convolutions, see `Renderer`.
        Others as of `drive.animate`.

    Raises:
        MediaError, FaceError, AssetError, ConfigError, OutputError.
    """
    settings = settings or Settings()
    check_scales(settings.expression_scale, settings.head_scale)
    if mode not in MODES:
        raise ConfigError(f"there is no crop {mode!r}", "--crop", f"choose {', '.join(MODES)}")
    networks = networks or load_networks(mode, size, device)
    spoken, count = heard(speech, idle)
    subject = subject_of(portrait, networks, mode, face, search, gaze)
    if pose_from is not None:
        settings = replace(settings, head=head_of(pose_from, networks, search))
    if blink_from is not None:
        settings = replace(settings, lids=blink_track(landmarks_of(blink_from, search)))
    speaker = Speaker(networks, subject, settings, view, batch, precision)
    images = speaker.frames(None if speech is None else at_least(spoken), count, enhance)
    size, chosen = (speaker.width, speaker.height), (subject.faces, face)
    return written(images, output, size, speech, count, "published networks", chosen, progress)
