"""A head and speech in, frames out: a generator with constant memory, on a CPU without torch.

What is computed from speech looks ahead a stated number of frames (`look_ahead`) and nowhere else, so that a stream
and a file give the same frames.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import ConfigError, HeadError
from vocalface.hmtalker.head import Head, Layers
from vocalface.hmtalker.runtime import Runtime, parse_au_edits
from vocalface.media.synthetic import Made, record
from vocalface.nn.shaping import BLINK, Amplitude, SilenceGate, Smoother
from vocalface.observe.speech import extractor
from vocalface.observe.speech.intake import at_least, levels, listen, pieces
from vocalface.render import composite, rasterize
from vocalface.training.files import check_writable, scratch
from vocalface.types import FPS, SPEECH_RATE, UPPER_AUS, Camera, Sound, frames_for


@dataclass(frozen=True)
class Options:
    """How a head is driven. See `vocalface speak --help`."""

    upper: str = "reference"  # reference | blink | still
    pose: str = "reference"  # reference | still | path of a .npy [T, 4, 4]
    background: str = "plate"  # plate | alpha | a colour (#rrggbb or a name)
    au: tuple[str, ...] = ()  # edits of the predicted action units
    close_in_silence: bool = True
    match_voice: bool = True  # give other voices the swing of the trained one; see `Amplitude`
    smooth: float = 0.5  # strength of the light zero-lag smoothing of the controls
    mouth_gain: float = 1.0  # opening of the mouth about its closed template
    start: int = 0  # first frame of the reference track
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.smooth <= 1:
            raise ConfigError(f"cannot smooth by {self.smooth}", "--smooth", "use 0 to 1")
        if not 0 <= self.mouth_gain <= 10:
            raise ConfigError(f"cannot open the mouth {self.mouth_gain} times as far", "--mouth-gain", "use 0 to 10")


@dataclass(frozen=True)
class Spoken:
    """One generated frame."""

    image: np.ndarray  # [S, S, 3] uint8, or [S, S, 4] straight alpha with background="alpha"
    index: int
    track: int  # the frame of the reference track whose pose and torso it uses
    aus: np.ndarray  # [10] predicted lower action units
    pose: np.ndarray  # [4, 4]


def mirror(i: np.ndarray | int, n: int) -> np.ndarray | int:
    """Ping-pong index: N = 5 -> 0 1 2 3 4 4 3 2 1 0 0 1 …"""
    k = np.asarray(i) % (2 * n)
    return np.where(k < n, k, 2 * n - 1 - k)


COLORS = {"green": (0, 255, 0), "black": (0, 0, 0), "white": (255, 255, 255), "blue": (0, 0, 255), "gray": (128,) * 3}


def parse_color(text: str) -> np.ndarray:
    """A colour name or #rrggbb -> [3] uint8. Raises ConfigError."""
    if text in COLORS:
        return np.array(COLORS[text], np.uint8)
    digits = text.lstrip("#")
    try:
        if len(digits) != 6:
            raise ValueError
        return np.array([int(digits[k : k + 2], 16) for k in (0, 2, 4)], np.uint8)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no background", "--background", f"use plate, alpha, #rrggbb or {', '.join(COLORS)}"
        ) from None


# ----------------------------------------------------------------------------------------------------- speech controls
@dataclass(frozen=True)
class Control:
    """What speech asks of the face in one frame."""

    c_f: np.ndarray  # [32] fused lower-face vector
    mouth: np.ndarray  # [32] for the mouth's interior
    aus: np.ndarray  # [10] predicted lower action units, before the silence rule


class SpeechControls:
    """Speech in pieces of any length -> control vectors, frame by frame, with a bounded memory."""

    def __init__(self, runtime: Runtime, feature_name: str, options: Options) -> None:
        feature = extractor(feature_name)
        self.runtime, self.options = runtime, options
        self.edits = parse_au_edits(options.au) if options.au else None
        self.stream = feature.stream()
        self.after = runtime.config.window - runtime.config.window // 2  # a window ends `after - 1` frames ahead
        self.before = runtime.config.window // 2
        self.look_ahead = max(feature.lookahead + self.after - 1, SilenceGate.ahead)
        self.gate, self.gates, self.levels_seen = SilenceGate(), [], 0
        self.smoother = Smoother(options.smooth)
        self.swing = None  # of the face's vector and the mouth's
        if options.match_voice and runtime.voice is not None:
            self.swing = [Amplitude(mean, spread) for mean, spread in runtime.voice]
        self.rows: list[np.ndarray] = []  # speech features from frame `base` on
        self.base = self.done = self.samples = 0
        self.tail = np.zeros(0, np.float32)  # samples of an unfinished frame

    def push(self, samples: np.ndarray) -> Iterator[Control]:
        """The frames that these samples complete."""
        self.samples += len(samples)
        self.rows.extend(self.stream.push(samples))
        self._hear(samples)
        ready = self.base + len(self.rows) - self.after + 1
        yield from self._emit(min(ready, self.levels_seen - SilenceGate.ahead))

    def flush(self) -> Iterator[Control]:
        """The last frames, when the speech has ended."""
        if len(self.tail):
            self._hear(np.zeros(SPEECH_RATE // FPS - len(self.tail), np.float32))
        self.rows.extend(self.stream.flush())
        self.gates += [self.gate.push(-100.0) for _ in range(SilenceGate.ahead)]
        yield from self._emit(frames_for(self.samples))

    def _hear(self, samples: np.ndarray) -> None:
        hop = SPEECH_RATE // FPS
        self.tail = np.concatenate([self.tail, samples])
        whole = len(self.tail) // hop
        for level in levels(self.tail[: whole * hop]):
            value = self.gate.push(float(level))
            self.levels_seen += 1
            if self.levels_seen > SilenceGate.ahead:
                self.gates.append(value)
        self.tail = self.tail[whole * hop :]

    def _emit(self, last: int) -> Iterator[Control]:
        if last <= self.done or not self.rows:
            return
        block = self.runtime.normalise(np.stack(self.rows))
        at = np.arange(self.done, last)[:, None] + np.arange(-self.before, self.after) - self.base
        windows = block[np.clip(at, 0, len(block) - 1)]
        out = said = self.runtime.controls(windows)
        if self.edits is not None:
            out = self.runtime.controls(windows, self.edits)
        edited = out["c_f"] - said["c_f"]
        for c_f, edit, mouth, aus in zip(said["c_f"], edited, said["mouth"], out["aus"]):
            yield self._shape(c_f, edit, mouth, aus)
        self.done = last
        drop = max(self.done - self.before - self.base, 0)
        del self.rows[:drop]
        self.base += drop

    def _shape(self, c_f: np.ndarray, edit: np.ndarray, mouth: np.ndarray, aus: np.ndarray) -> Control:
        closed_f, closed_m = self.runtime.closed
        shut = self.gates.pop(0) if self.gates else 0.0
        if self.swing:  # before the user's edits, which it would learn and undo
            c_f, mouth = (rule(x, shut < 0.5) for rule, x in zip(self.swing, (c_f, mouth)))
        c_f = c_f + edit
        if self.options.mouth_gain != 1:
            c_f = closed_f + self.options.mouth_gain * (c_f - closed_f)
        if self.options.close_in_silence and shut > 0:
            c_f = (1 - shut) * c_f + shut * closed_f
            mouth = (1 - shut) * mouth + shut * closed_m
        return Control(*self.smoother(c_f, mouth), aus)


# ------------------------------------------------------------------------------------------------------- the other face
def upper_face(head: Head, options: Options, frames: int | None = None) -> Callable[[int, int], np.ndarray]:
    """Function (output frame, track frame) -> the upper face's condition [U]."""
    track = head.arrays["track.upper"]
    if options.upper == "reference":
        return lambda i, j: track[j]
    calm = np.median(track, axis=0)
    lids = track[:, UPPER_AUS.index("AU45")]
    calm[UPPER_AUS.index("AU45")] = np.percentile(lids, 30)
    if options.upper == "still":
        return lambda i, j: calm
    if options.upper != "blink":
        raise ConfigError(f"unknown upper face {options.upper!r}", "--upper", "use reference, blink or still")
    shut = np.median(track[lids >= np.percentile(lids, 97)], axis=0)  # what the whole condition is in a blink
    closing = np.where(np.arange(len(calm)) < len(UPPER_AUS), 0, shut - calm)
    closing[UPPER_AUS.index("AU45")] = max(min(2.0, float(np.percentile(lids, 95))) - calm[6], 0)
    rng = np.random.default_rng(options.seed)
    state = {"next": int(FPS * max(1.0, rng.lognormal(np.log(3.5), 0.45)))}

    def blink(i: int, j: int) -> np.ndarray:
        if i >= state["next"] + len(BLINK):
            state["next"] = i + int(FPS * max(1.0, rng.lognormal(np.log(3.5), 0.45)))
        k = i - state["next"]
        return calm + closing * BLINK[k] if 0 <= k < len(BLINK) else calm

    return blink


def pose_track(head: Head, options: Options) -> np.ndarray:
    """Poses [T, 4, 4] to play by mirror."""
    if options.pose == "reference":
        return head.arrays["track.pose"]
    if options.pose == "still":
        track = head.arrays["track.pose"]
        middle = np.abs(track[:, :3, 3] - np.median(track[:, :3, 3], axis=0)).sum(1).argmin()
        return track[middle : middle + 1]
    path = Path(options.pose)
    try:
        poses = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError("cannot read the pose file", path, "give a .npy of [T, 4, 4] world-to-camera") from error
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise ConfigError(f"poses have shape {poses.shape}, expected [T, 4, 4]", path, "save world-to-camera matrices")
    return poses.astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------- drive
def drive(head: Head, sound: Sound | Iterator[np.ndarray], options: Options | None = None) -> Iterator[Spoken]:
    """Frames of `head` saying `sound` (16 kHz mono, whole or in pieces).

    Raises HeadError when the head's speech feature cannot be computed here, ConfigError for wrong options.
    """
    options = options or Options()
    if not 0 <= options.start < head.frames:
        raise ConfigError(f"the reference track has no frame {options.start}", "--start", f"use 0 to {head.frames - 1}")
    runtime = Runtime(head)
    if isinstance(sound, Sound):
        sound = pieces(sound.samples)
    poses = pose_track(head, options)
    still = len(poses) == 1
    still_at = 0
    if still:
        distance = np.abs(head.arrays["track.pose"] - poses[0]).sum((1, 2))
        still_at = int(distance.argmin())
    upper = upper_face(head, options)
    box = tuple(int(v) for v in head.arrays["box"])
    alpha_out = options.background == "alpha"
    color = None if options.background in ("plate", "alpha") else parse_color(options.background)
    first, last = head.segment(options.start)  # a jump cut of the source is never played across
    n, offset = last - first, max(options.start - first, 0)
    dim = len(head.arrays["feature_mean"])
    if extractor(head.feature_name).dim != dim:
        raise HeadError(
            f"the head was trained with {dim} {head.feature_name} features, this version computes "
            f"{extractor(head.feature_name).dim}", head.feature_name, "train the head again with this version",
        )  # fmt: skip
    controls = SpeechControls(runtime, head.feature_name, options)

    def stream() -> Iterator[Control]:
        for piece in at_least(sound):
            yield from controls.push(piece)
        yield from controls.flush()

    with scratch() as folder:
        layers = Layers(head, folder)
        for i, control in enumerate(stream()):
            track = still_at if still else first + int(mirror(i + offset, n))
            pose = poses[track] if options.pose == "reference" else poses[int(mirror(i, len(poses)))]
            behind = layers.behind(track)
            torso_alpha = layers.torso_alpha(track) if (alpha_out or color is not None) else None
            image = compose(
                runtime, head.camera, box, control.c_f, upper(i, track), control.mouth, pose, behind, torso_alpha,
                color, alpha_out,
            )  # fmt: skip
            yield Spoken(image, i, track, control.aus, pose)


def layers_of(
    runtime: Runtime, camera: Camera, box: tuple, c_f: np.ndarray, c_u: np.ndarray, mouth: np.ndarray, pose: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Face and mouth drawn over the box: F [h, w, 3], A_f [h, w], M [h, w, 3], A_m [h, w]."""
    face, inner = runtime.gaussians(c_f, c_u, mouth, pose)
    x0, y0, x1, y1 = box
    view = Camera(camera.fx, camera.fy, camera.cx - x0, camera.cy - y0, x1 - x0, y1 - y0, runtime.identity_pose)
    f = rasterize(face, view)
    m = rasterize(inner, view)
    return f.image, f.alpha, m.image, m.alpha


def compose(
    runtime: Runtime, camera: Camera, box: tuple, c_f, c_u, mouth, pose, behind: np.ndarray,
    torso_alpha: np.ndarray | None, color: np.ndarray | None, alpha_out: bool,
) -> np.ndarray:  # fmt: skip
    """One output frame: eq. 10 in the head's box, the layers around it."""
    x0, y0, x1, y1 = box
    f, fa, m, ma = layers_of(runtime, camera, box, c_f, c_u, mouth, pose)
    out = behind.copy() if color is None else media.over(behind, color, torso_alpha)
    out[y0:y1, x0:x1] = composite(f, fa, m, ma, np.ascontiguousarray(out[y0:y1, x0:x1]))
    if not alpha_out:
        return out
    alpha = torso_alpha.astype(np.float32) / 255
    head_alpha = fa + (1 - fa) * ma
    inside = alpha[y0:y1, x0:x1]
    alpha[y0:y1, x0:x1] = head_alpha + (1 - head_alpha) * inside
    return np.dstack([out, np.rint(alpha * 255).astype(np.uint8)])


def speak(
    head: Head | Path | str,
    speech: Sound | Path | str,
    output: Path | str,
    *,
    options: Options | None = None,
    paste_back: Path | str | None = None,
    progress=None,
) -> Made:
    """Write a video of `head` saying `speech`, the sound muxed, to `output`.

    Args:
        paste_back: the uncropped source of the head; the result is pasted into its frames with a feathered edge.

    Raises:
        HeadError, MediaError, ConfigError, OutputError.
    """
    options = options or Options()
    output = Path(output)
    name = Path(head).name if isinstance(head, (str, Path)) else "head"
    head = Head.load(head) if isinstance(head, (str, Path)) else head
    alpha = options.background == "alpha"
    if alpha and output.suffix.lower() not in (".mov", ".webm"):
        raise ConfigError(
            f"{output.suffix or 'this file type'} cannot hold alpha", output, "write .mov (ProRes 4444) or .webm (VP9)"
        )
    if alpha and paste_back:
        raise ConfigError("alpha and paste-back exclude each other", "--background alpha", "leave one of them out")
    check_writable(output)
    spoken, frames = listen(speech)
    size = head.camera.width
    source = media.open_clip(paste_back) if paste_back else None
    width, height = (source.width, source.height) if source else (size, size)
    about = {
        "head": head.digest, "head_name": name, "consent": str(head.provenance.get("consent", "not recorded")),
    }  # fmt: skip
    behind = PasteBack(source, head, options) if source else None
    with contextlib.closing(drive(head, spoken, options)) as made:
        images = (behind(frame) if behind else frame.image for frame in made)
        return record(
            images, output, width, height, speech, method="HM-Talker", about=about, alpha=alpha,
            doing="speaking", frames=frames, progress=progress,
        )  # fmt: skip


class PasteBack:
    """Pastes generated crops into the source's frames, which it plays forwards and backwards with the track."""

    def __init__(self, source, head: Head, options: Options) -> None:
        self.view, self.crop = source.at(FPS), head.crop
        self.offset = int(head.provenance.get("start_frame", 0))
        self.group, self.cache = -1, []
        if len(self.view) < self.offset + head.frames:
            raise ConfigError(
                f"the video has {len(self.view)} frames, the head's source {self.offset + head.frames}", source.path,
                "give the uncropped video that the head was trained on",
            )  # fmt: skip
        if self.crop.x >= source.width or self.crop.y >= source.height:
            raise ConfigError(
                f"the head's crop begins at {self.crop.x}, {self.crop.y}, the frame has {source.width}x{source.height}",
                source.path, "give the uncropped video that the head was trained on",
            )  # fmt: skip

    def __call__(self, frame: Spoken) -> np.ndarray:
        step = 32
        at = frame.track + self.offset
        if at // step != self.group:
            self.group = at // step
            self.cache = list(self.view.iterate(self.group * step, min((self.group + 1) * step, len(self.view))))
        native = self.cache[min(at % step, len(self.cache) - 1)]
        return media.paste_back(native, frame.image, self.crop, 0.04)
