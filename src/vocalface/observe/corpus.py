"""A folder of clips as training material: aligned faces, mel columns, landmarks and coefficients of every talking run.

Each clip is looked at once and kept in a cache under the hash of its content; a clip that cannot be used is kept there
as a reason. An interrupted preparation goes on, and no more than 20 s of a clip are in memory at a time.

Convention: a run is a stretch of a clip's 25 fps grid in which one face is seen without a cut. Its faces are one fixed
square of the source, 256 px; landmarks are px of that square.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from vocalface import media
from vocalface.errors import FaceError, MediaError, ObservationsError, OutputError, VocalfaceError
from vocalface.observe import landmarks, pose, shots, store
from vocalface.observe.speech.mel import BANDS, COLUMN_RATE, MelStream, normalise
from vocalface.types import AU_NAMES, FPS, SPEECH_RATE, CropBox

Progress = Callable[[int, int, str], None]
VERSION = 1
SIDE = 256
COEFFICIENTS = 73
LEAST, MOST = 2 * FPS, 20 * FPS  # frames of a run
GAP = 3  # frames without a face that are bridged
FACES = 1.7  # faces that the square is high
VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg")
HELD_OUT = 0.1
WINDOW = 16  # mel columns that a frame hears


@dataclass(frozen=True)
class Seen:
    """A run before it is stored."""

    first: int  # frame of the clip
    points: np.ndarray  # [T, 478, 3] px of the source
    valid: np.ndarray  # [T] bool; the others are interpolated

    def __len__(self) -> int:
        return len(self.points)


class Coefficients(Protocol):
    """What tells the 73 numbers of a frame: expression 64, angles 3 (pitch, yaw, roll; rad), translation 3, crop 3."""

    name: str

    def __call__(self, faces: Iterable[np.ndarray], points: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Faces [256, 256, 3] uint8 and their landmarks [T, 478, 3] px -> [T, 73] float32."""
        ...


class Fitted:
    """Coefficients of the project's own procedural face, where no network for a published face model is at hand.

    Expression: its 17 action units, 0..1, then zeros. Angles: R = Rz Ry Rx, x right, y up, z to the camera.
    Translation: dm about the run's median. Crop: what brings the eyes 78 px apart, and the face's place, y up.
    """

    name = "procedural face"

    def __call__(self, faces: Iterable[np.ndarray], points: np.ndarray, valid: np.ndarray) -> np.ndarray:
        from scipy.spatial.transform import Rotation

        from vocalface.faces import load
        from vocalface.faces.fit import fit_expressions
        from vocalface.observe.action_units import lift

        found = pose.track_pose(points, valid, SIDE, (SIDE / 2, SIDE / 2))
        lifted = lift(points, found.poses, found.camera)
        out = np.zeros((len(points), COEFFICIENTS), np.float32)
        out[:, : len(AU_NAMES)] = fit_expressions(load("procedural"), lifted, valid)
        flip = np.diag([1.0, -1.0, -1.0])  # camera axes with y up and z to the camera
        turned = Rotation.from_matrix(flip @ found.poses[:, :3, :3].astype(np.float64))
        out[:, 64:67] = turned.as_euler("xyz")  # about fixed axes x, then y, then z: Rz Ry Rx
        shift = found.poses[:, :3, 3] @ flip
        out[:, 67:70] = 10 * (shift - np.median(shift, axis=0))
        eyes = np.linalg.norm(points[:, 33, :2] - points[:, 263, :2], axis=1)
        centre = points[:, :468, :2].mean(1)
        out[:, 70] = 0.35 * 224 / np.maximum(np.median(eyes), 1)
        out[:, 71:73] = np.stack([centre[:, 0], SIDE - centre[:, 1]], 1)
        return out


# ------------------------------------------------------------------------------------------------------------- reading
@dataclass(frozen=True)
class Run:
    """A stored run; its arrays are read from disk when they are asked for."""

    stem: Path
    clip: str  # name of the source
    identity: str
    held_out: bool
    frames: int
    first: int  # frame of the clip
    has_sound: bool

    def __len__(self) -> int:
        return self.frames

    def _array(self, name: str) -> np.ndarray:
        return np.load(f"{self.stem}.{name}.npy", mmap_mode="r")

    @property
    def coefficients(self) -> np.ndarray:
        """[T, 73] float32."""
        return self._array("coefficients")

    @property
    def landmarks(self) -> np.ndarray:
        """[T, 478, 3] float32, px of the faces."""
        return self._array("landmarks")

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.array(self._array("offsets"))

    def face(self, frame: int) -> np.ndarray:
        """[256, 256, 3] uint8."""
        start, stop = self._offsets[frame : frame + 2]
        with open(f"{self.stem}.faces", "rb") as file:
            file.seek(int(start))
            return media.decode_image(file.read(int(stop - start)))

    def mel(self, start: int, stop: int) -> np.ndarray:
        """What frames [start, stop) hear, [n, 1, 80, 16] float32. Raises MediaError for a run without sound."""
        if not self.has_sound:
            raise MediaError("no sound track", self.clip, "leave the clip out")
        columns = self._array("mel")
        index = np.array([column(self.first + k) for k in range(start, stop)]) - column(self.first)
        return np.ascontiguousarray(columns[index[:, None] + np.arange(WINDOW)].transpose(0, 2, 1)[:, None])


class Corpus:
    """The usable runs of a folder's clips, and what could not be used.

    Attributes:
        runs: of all clips, in order of name. skipped: name -> reason. coefficients: what they were made by.
    """

    def __init__(self, runs: list[Run], skipped: dict[str, str], coefficients: str) -> None:
        self.runs, self.skipped, self.coefficients = runs, skipped, coefficients

    @property
    def training(self) -> list[Run]:
        """Runs of people who are not held out; all where that would leave none."""
        return [r for r in self.runs if not r.held_out] or self.runs

    @property
    def held_out(self) -> list[Run]:
        return [r for r in self.runs if r.held_out] if len(self.training) < len(self.runs) else []

    def __len__(self) -> int:
        return len(self.runs)


# ----------------------------------------------------------------------------------------------------------- preparing
def prepare(
    folder: Path | str, cache: Path | str | None = None, *, coefficients: Coefficients | None = None,
    progress: Progress | None = None,
) -> Corpus:  # fmt: skip
    """Look at every clip of a folder that the cache does not hold yet.

    A clip with observations beside it (NAME.obs) is not searched for faces again. The first folder below `folder` is
    the person; clips that lie in `folder` itself are people of their own. About every tenth person is held out, by the
    hash of the name, so that a clip never changes sides.

    Args:
        folder: of clips, with folders in it.
        cache: default FOLDER/.corpus.
        coefficients: default `Fitted`.

    Raises:
        ObservationsError: no clip, or none that can be used. OutputError: the cache cannot be written.
        AssetError: faces have to be searched, and the landmarker is not here.
    """
    folder = Path(folder)
    sources = clips(folder)
    cache = Path(cache) if cache else folder / ".corpus"
    coefficients = coefficients or Fitted()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write here ({error.strerror})", cache, "choose another folder") from error
    runs: list[Run] = []
    skipped: dict[str, str] = {}
    known: dict[str, str] = {}
    for done, (path, observed) in enumerate(sources):
        name = str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
        content = store.file_hash(path)
        if content in known:
            skipped[name] = f"the same as {known[content]}"
            continue
        known[content] = name
        key = hashlib.sha256(f"{VERSION} {SIDE} {content} {coefficients.name}".encode()).hexdigest()[:24]
        target = cache / key
        about = _about(target)
        if about is None:
            about = _look(path, observed, target, coefficients)
        if about.get("skipped"):
            skipped[name] = about["skipped"]
        parent = Path(name).parts[0] if len(Path(name).parts) > 1 else content
        for k, (first, frames) in enumerate(about["runs"]):
            runs.append(
                Run(target / f"{k:04d}", name, parent, held_out(parent), frames, first, bool(about["has_sound"]))
            )
        if progress:
            progress(done + 1, len(sources), "clips")
    if not runs:
        reasons = "; ".join(f"{n}: {r}" for n, r in list(skipped.items())[:3])
        raise ObservationsError(f"no clip can be used ({reasons})", folder, "give clips of talking people, 2 s or more")
    return Corpus(runs, skipped, coefficients.name)


def clips(folder: Path) -> list[tuple[Path, Path | None]]:
    """Videos of a folder by name, each with its observations when there are any.

    Raises:
        ObservationsError: no such folder, or no video in it.
    """
    if not folder.is_dir():
        raise ObservationsError("no such folder of clips", folder, "give a folder with videos in it")

    def hidden(path: Path) -> bool:
        *above, name = path.relative_to(folder).parts
        return name.startswith(".") or any(p.startswith(".") or p.endswith(".obs") for p in above)

    videos: dict[Path, Path] = {}  # where it really is -> how it is called here
    observed: dict[Path, Path] = {}
    for path in sorted(folder.rglob("*")):
        if hidden(path):
            continue
        if path.suffix == ".obs" and path.is_dir():
            with contextlib.suppress(VocalfaceError):
                source = store.load(path).clip
                observed[source.resolve()] = path
                videos.setdefault(source.resolve(), source)
        elif path.suffix.lower() in VIDEOS and path.is_file():
            videos[path.resolve()] = path
    if not videos:
        raise ObservationsError("no video in this folder", folder, f"put clips there ({', '.join(VIDEOS[:4])} …)")
    return sorted(((p, observed.get(real)) for real, p in videos.items()), key=lambda pair: pair[0])


def held_out(identity: str, share: float = HELD_OUT) -> bool:
    """Whether a person is kept from training: a function of the name alone."""
    return int(hashlib.sha256(identity.encode()).hexdigest()[:8], 16) < share * 16**8


def column(frame: int) -> int:
    """The first mel column that a frame hears: trunc(3.2 (i - 2))."""
    return int(COLUMN_RATE * (frame - 2) / FPS)


def _about(target: Path) -> dict | None:
    try:
        return json.loads((target / "clip.json").read_text())
    except (OSError, ValueError):
        return None


def _look(path: Path, observed: Path | None, target: Path, coefficients: Coefficients) -> dict:
    """Store a clip's runs; what cannot be used becomes a reason. The folder appears when it is whole."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    about: dict = {"source": path.name, "runs": [], "has_sound": False, "coefficients": coefficients.name}
    try:
        clip = media.open_clip(path)
        about["has_sound"] = clip.has_sound
        heard = _Heard(clip) if clip.has_sound else None
        for seen in _observed(observed) if observed else _searched(clip):
            about["runs"].append([seen.first, len(seen)])
            _store(part / f"{len(about['runs']) - 1:04d}", clip, seen, heard, coefficients)
        if not about["runs"]:
            raise FaceError(f"no face for {LEAST / FPS:.0f} s on end", path, "give longer shots")
    except (MediaError, FaceError) as error:
        about["skipped"] = error.what
        for file in part.iterdir():  # a clip that breaks off is not used in part
            file.unlink()
        about["runs"] = []
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(f"cannot write ({error.strerror})", target, "free some disk space") from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    (part / "clip.json").write_text(json.dumps(about))
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    return about


def _store(stem: Path, clip: media.Clip, seen: Seen, heard: _Heard | None, coefficients: Coefficients) -> None:
    box = square(seen.points)
    scale = SIDE / box.side
    points = ((seen.points - np.array([box.x, box.y, 0])) * scale).astype(np.float32)
    offsets = [0]
    with open(f"{stem}.faces", "wb") as file:
        for image in clip.at(FPS).iterate(seen.first, seen.first + len(seen)):
            offsets.append(offsets[-1] + file.write(media.encode_image(media.crop(image, box, SIDE), ".jpg")))
    if len(offsets) <= len(seen):
        raise MediaError(f"frame {seen.first + len(offsets) - 1} cannot be read", clip.path, "the file breaks off")

    def faces() -> Iterator[np.ndarray]:
        with open(f"{stem}.faces", "rb") as file:
            for start, stop in itertools.pairwise(offsets):
                yield media.decode_image(file.read(stop - start))

    arrays = {
        "landmarks": points,
        "offsets": np.array(offsets),
        "coefficients": coefficients(faces(), points, seen.valid),
    }
    if heard is not None:
        arrays["mel"] = heard.columns(column(seen.first), column(seen.first + len(seen) - 1) + WINDOW)
    for name, array in arrays.items():
        np.save(f"{stem}.{name}.npy", array)


def square(points: np.ndarray) -> CropBox:
    """The square about a face that moves, px of the source: 1.7 faces high, or what it takes to keep the face in."""
    low, high = np.percentile(points[..., :2].min(1), 2, axis=0), np.percentile(points[..., :2].max(1), 98, axis=0)
    face = float(np.median(np.ptp(points[..., 1], axis=1)))
    side = float(round(max(FACES * face, 1.15 * (high - low).max())))
    centre = (low + high) / 2 - np.array([0, 0.1 * face])  # hair above
    return CropBox(*np.round(centre - side / 2).tolist(), side)


class _Heard:
    """Mel columns of a clip, in order; edges repeat."""

    def __init__(self, clip: media.Clip) -> None:
        self.mel = MelStream()
        self.pieces = (p[:, 0] for p in media.read_pieces(clip.path, SPEECH_RATE, 1, clip.start))
        self.known, self.start, self.ended = np.zeros((0, BANDS), np.float32), 0, False

    def columns(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, 80] float32; start never falls."""
        while not self.ended and self.start + len(self.known) < stop:
            piece = next(self.pieces, None)
            self.ended = piece is None
            new = normalise(self.mel.flush() if piece is None else self.mel.push(piece))
            self.known = np.concatenate([self.known, new])
        if not len(self.known):
            raise MediaError("the sound track is empty", "-", "give a clip with sound")
        index = np.clip(np.arange(start, stop), self.start, self.start + len(self.known) - 1)
        out = self.known[index - self.start]
        drop = int(np.clip(start - self.start, 0, len(self.known) - 1))
        self.known, self.start = self.known[drop:], self.start + drop
        return out


# ---------------------------------------------------------------------------------------------------------- whom we see
def _observed(folder: Path) -> Iterator[Seen]:
    """Runs of an observed clip."""
    obs = store.load(folder)
    begin = int(obs.info.get("start_frame", 0))
    scale = obs.crop.side / obs.size
    for start, stop in obs.shots or [(0, len(obs))]:
        for a, b in parts(start, stop):
            points = obs.track.landmarks[a:b] * np.float32(scale) + np.array([obs.crop.x, obs.crop.y, 0], np.float32)
            yield from _runs(begin + a, points, obs.track.valid[a:b])


def _searched(clip: media.Clip) -> Iterator[Seen]:
    """Runs of a clip whose face is looked for."""
    from vocalface.observe.watch import follow

    size, near = 0.0, np.zeros(2)
    whole = CropBox(0, 0, max(clip.width, clip.height))
    with landmarks.Landmarker() as landmarker:
        for start, stop in parts(0, len(clip.at(FPS))):
            points, valid = np.zeros((stop - start, 478, 3), np.float32), np.zeros(stop - start, bool)
            marks, last = [], None
            for k, image in enumerate(clip.at(FPS).iterate(start, stop)):
                marks.append(shots.signature(image))
                last = follow(landmarker, image, last, whole, near, size) if last is not None else None
                if last is None:
                    last = next(iter(landmarker.search(image)), None)
                if last is None or last.size < landmarks.LEAST_FACE:
                    last = None
                    continue
                size, near = last.size, (last.box[:2] + last.box[2:]) / 2
                points[k], valid[k] = last.landmarks, True
            cuts, jumps = shots.find(marks)
            edges = sorted({e for cut in cuts for e in cut} | set(jumps))
            for a, b in itertools.pairwise(edges):
                yield from _runs(start + a, points[a:b], valid[a:b])


def parts(start: int, stop: int) -> list[tuple[int, int]]:
    """[start, stop) in even parts of at most 20 s."""
    count = max(-(-(stop - start) // MOST), 1)
    edges = np.linspace(start, stop, count + 1).round().astype(int).tolist()
    return list(itertools.pairwise(edges))


def _runs(first: int, points: np.ndarray, valid: np.ndarray) -> Iterator[Seen]:
    """Runs of at least 2 s in which the face is seen, short gaps bridged."""
    bridged = valid.copy()
    for a, b in landmarks.runs(~valid):
        if b - a <= GAP and a > 0 and b < len(valid):
            bridged[a:b] = True
    for a, b in landmarks.runs(bridged):
        if b - a >= LEAST:
            yield Seen(first + a, landmarks.fill(points[a:b], valid[a:b]), valid[a:b])
