"""Speech in, motion of a face out, frame by frame: lips, blinks, a head that lives.

Lips come from the open ExpNet on the articulatory feature, the head from the open PoseVAE on the prosody. Nothing looks
further ahead than `look_ahead` frames, so that a stream and a file agree, and memory does not grow with the speech.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from vocalface.errors import ConfigError
from vocalface.nn.shaping import BLINK, Smoother
from vocalface.observe.speech.articulatory import MOTIONS, ArticulatoryFeature
from vocalface.sadtalker.open_expnet import OpenExpNet
from vocalface.sadtalker.open_posevae import HEAD, OpenPoseVAE, check_style
from vocalface.sadtalker.prosody import PROSODY, Prosody
from vocalface.types import FPS, frames_for

JAW, WIDTH = 0.016, 0.0045  # m at full motion: drop at the incisors, a corner's way
APERTURE = 0.012  # m between the lips that a speaker exceeds in a tenth of their speech
BROW = 0.0035  # m
SWING = np.radians([3.2, 1.7, 1.3])  # deviation of yaw, pitch, roll of `Sway`


@dataclass(frozen=True)
class Pose:
    """What the face does in one frame; all zero but `aperture` None is the portrait as it stands."""

    jaw: float = 0.0  # m, drop at the lower incisors
    aperture: float | None = None  # m between the lips; None leaves them as in the portrait
    width: float = 0.0  # m, each corner outwards
    round: float = 0.0  # 0..1
    tuck: float = 0.0  # 0..1, lower lip under the upper teeth
    upper: float = 0.0  # 0..1, upper lip raised
    tongue: float = 0.0  # 0..1, tip behind the teeth
    brow: float = 0.0  # m, up
    inner: float = 0.0  # m, inner ends of the brows up
    smile: float = 0.0  # 0..1, corners of the mouth up and out, cheeks up
    frown: float = 0.0  # 0..1, corners down
    cheek: float = 0.0  # 0..1, cheeks up under the eyes
    sneer: float = 0.0  # 0..1, nose wrinkled
    blink: float = 0.0  # 0..1
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0)  # rad: yaw to the image's right, pitch down, roll clockwise
    shift: tuple[float, float] = (0.0, 0.0)  # m, right and down

    def sized(self, mouth: float) -> Pose:
        """An adult's motion on a mouth of another size: a child's lips part by fewer millimetres."""
        names = ("jaw", "width", "round", "tuck", "upper", "smile", "frown")
        own = {name: mouth * getattr(self, name) for name in names}
        return replace(self, aperture=None if self.aperture is None else mouth * self.aperture, **own)


@dataclass(frozen=True)
class Style:
    """How lively the motion is."""

    expression_scale: float = 1.0
    head_scale: float = 1.0
    still: bool = False  # the head rests; lips and lids move
    seed: int = 0
    head_style: float = 3.0  # how the head moves: 0 calm to 7 lively, styles between are mixed
    expnet: str | None = None  # other weights than those that ship: of `train sadtalker.expnet --preset open`
    posevae: str | None = None


def style_of(pose_style: int | None, head_style: float | None) -> float:
    """A head style 0..7 of one of the published 46, laid out from calm to lively, or given itself.

    Raises ConfigError.
    """
    if pose_style is None:
        return 3.0 if head_style is None else check_style(head_style)
    if head_style is not None:
        raise ConfigError("--pose-style and --head-style say the same", "--pose-style", "leave one of them out")
    if not 0 <= pose_style <= 45:
        raise ConfigError(f"There is no pose style {pose_style}", "--pose-style", "choose 0 to 45")
    return 7 * pose_style / 45


class Blinks:
    """Closure frame after frame: renewals at log-normal intervals about 2.9 s, and some where a pause begins.

    People who talk blink 17 to 26 times a minute ("Analysis of blink rate patterns in normal subjects", Bentivoglio et
    al., 1997), and more often than chance where a phrase has ended.
    """

    REST = FPS  # frames after a blink in which a pause sets none off

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.frame, self.quiet = rng, 0, True
        self.next = int(FPS * rng.uniform(0.8, 2.5))
        self.last = -self.REST

    def __call__(self, silent: float = 0.0) -> float:
        begins, self.quiet = silent > 0.5 and not self.quiet, silent > 0.5
        if begins and self.frame - self.last > self.REST and self.frame < self.next and self.rng.random() < 0.35:
            self.next = self.frame
        k = self.frame - self.next
        self.frame += 1
        if k >= len(BLINK):
            self.last = self.frame
            self.next = self.frame + int(FPS * np.clip(self.rng.lognormal(np.log(2.9), 0.55), 0.7, 9))
        return float(BLINK[k]) if 0 <= k < len(BLINK) else 0.0


class Opening:
    """How far a speaker opens the mouth, brought to a usual amount, frame by frame.

    A network that is not sure says little: it opens every mouth about half as far as people do, and some voices less
    than others. The running 90th percentile of its gap (causal, from a prior that counts as 4 s of speech) is mapped
    to `APERTURE`, and the curve is bent so that small gaps close and wide ones open.
    """

    USUAL, BEND, WIDEST = 0.45, 1.4, 0.024  # network's gap; exponent; m

    def __init__(self) -> None:
        self.high, self.heard = self.USUAL, 4.0 * FPS

    def __call__(self, gap: float, speaks: float) -> tuple[float, float]:
        """Gap of the network, share of speech in this frame 0..1 -> m between the lips; factor for the jaw."""
        if speaks > 0.5 and gap > 0.1:  # a step of the quantile: up 0.9, down 0.1
            self.heard = min(self.heard + 1, 20 * FPS)
            self.high += 0.8 / self.heard * (0.9 if gap > self.high else -0.1)
        gain = float(np.clip(self.USUAL / self.high, 0.75, 1.6))
        wide = APERTURE * (max(gap - 0.04, 0.0) * gain / (self.USUAL - 0.04)) ** self.BEND
        return self.WIDEST * float(np.tanh(wide / self.WIDEST)), gain


class Sway:
    """The bare generator of head motion that the PoseVAE is measured against: slow waves, and a nod with the beats."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rates = 1 / rng.uniform([2.9, 4.7, 8.3], [4.1, 7.1, 13.0], (5, 3))  # Hz
        self.phases = rng.uniform(0, 2 * np.pi, (5, 3))
        self.frame = 0
        self.slow = self.fast = self.nod = self.speed = 0.0
        self.life = 0.4

    def __call__(self, loud: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Loudness 0..1 -> yaw, pitch, roll [3] rad; shift [2] m; beat 0..1."""
        t = self.frame / FPS
        self.frame += 1
        wave = (np.array([0.45, 0.75, 1.0]) * np.sin(2 * np.pi * self.rates * t + self.phases)).sum(1)
        start = (np.array([0.45, 0.75, 1.0]) * np.sin(self.phases)).sum(1)
        wave = wave - start * np.exp(-t / 2.0)  # the first frame is the portrait's own pose
        self.life += 0.04 * ((1.0 if loud > 0.25 else 0.4) - self.life)
        self.fast += 0.45 * (loud - self.fast)
        self.slow += 0.06 * (loud - self.slow)
        beat = float(np.clip(2.2 * (self.fast - self.slow), 0, 1))
        self.speed += 0.22 * (beat - self.nod) - 0.55 * self.speed  # damped: the head is heavy
        self.nod += self.speed
        angles = SWING * wave[:3] * self.life * 0.75
        angles[1] += np.radians(3.0) * self.nod
        return angles, 0.0022 * wave[3:] * self.life, beat


class SpeechMotion:
    """Pieces of speech (16 kHz) -> poses."""

    def __init__(self, style: Style | None = None) -> None:
        self.style = style or Style()
        feature = ArticulatoryFeature()
        lips, head = OpenExpNet(self.style.expnet), OpenPoseVAE(self.style.posevae)
        self.feature, self.lips = feature.stream(), lips.stream()
        self.prosody, self.head = Prosody(), head.stream(check_style(self.style.head_style), self.style.seed)
        self.look_ahead = max(feature.lookahead + lips.after, Prosody.look_ahead + head.after)
        self.blinks = Blinks(np.random.default_rng([self.style.seed, 11]))
        self.smooth, self.opening = Smoother(0.6), Opening()
        self.moved: list[np.ndarray] = []  # lips, prosody and head that wait for each other
        self.heard: list[np.ndarray] = []
        self.turned: list[np.ndarray] = []
        self.start: np.ndarray | None = None  # the head in frame 0: the portrait's own pose
        self.samples = self.done = 0

    def push(self, samples: np.ndarray) -> Iterator[Pose]:
        """The frames that these samples [n] float32 complete."""
        self.samples += len(samples)
        self.moved.extend(self.lips.push(self.feature.push(samples)))
        self._hear(self.prosody.push(samples))
        yield from self._emit()

    def flush(self) -> Iterator[Pose]:
        """The frames still owed."""
        self.moved.extend([*self.lips.push(self.feature.flush()), *self.lips.flush()])
        self._hear(self.prosody.flush())
        self.turned.extend(self.head.flush())
        yield from self._emit(frames_for(self.samples))

    def _hear(self, rows: np.ndarray) -> None:
        self.heard.extend(rows)
        self.turned.extend(self.head.push(rows))

    def _emit(self, last: int | None = None) -> Iterator[Pose]:
        ready = min(len(self.moved), len(self.heard), len(self.turned))
        if last is not None:
            ready = min(ready, last - self.done)
        for moved, heard, turned in zip(self.moved[:ready], self.heard[:ready], self.turned[:ready]):
            lips = dict(zip(MOTIONS, self.smooth(moved)[0].tolist()))
            yield self._pose(lips, dict(zip(PROSODY, heard.tolist())), turned)
            self.done += 1
        for waiting in (self.moved, self.heard, self.turned):
            del waiting[:ready]

    def _pose(self, m: dict[str, float], heard: dict[str, float], turned: np.ndarray) -> Pose:
        style, silent = self.style, heard["silent"]
        k = style.expression_scale
        blink = self.blinks(silent)
        sealed = max(ramp(0.28, 0.58, m["closure"]), silent)
        opened = 1 - sealed
        aperture, gain = self.opening(m["gap"], 1 - silent)
        jaw = gain * max(0.0, 1.3 * (m["jaw"] - 0.08))
        head = self._turn(turned) * (0.0 if style.still else style.head_scale)
        return Pose(
            jaw=k * JAW * jaw * (0.35 + 0.65 * opened) * (1 - 0.9 * silent),
            aperture=k * aperture * opened,
            width=k * WIDTH * float(np.clip(1.2 * m["width"], -1, 1)) * (1 - silent),
            round=float(np.clip(k * 1.2 * (m["round"] - 0.12), 0, 1.2)) * (1 - silent),
            tuck=float(np.clip(m["tuck"], 0, 1)) * (1 - silent),
            upper=float(np.clip(k * m["upper"], 0, 1)) * opened,
            tongue=float(np.clip(m["tongue"], 0, 1)) * opened,
            brow=k * BROW * float(np.clip(turned[5] - 0.05, -0.2, 1.2)),
            blink=blink,
            angles=tuple(head[:3].tolist()),
            shift=tuple(head[3:5].tolist()),
        )

    def _turn(self, turned: np.ndarray) -> np.ndarray:
        """The head [5] about the portrait's own pose, which frame 0 has."""
        if self.start is None:
            self.start = turned
        return (turned - self.start * np.exp(-self.done / FPS / 2.0))[: len(HEAD) - 1]


def ramp(low: float, high: float, x: float) -> float:
    """Smoothly 0 below `low`, 1 above `high`."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def poses(pieces: Iterable[np.ndarray], style: Style | None = None) -> Iterator[Pose]:
    """Poses of speech that comes in pieces [n] float32 at 16 kHz; ceil(25 n / 16000) in all."""
    motion = SpeechMotion(style)
    for piece in pieces:
        yield from motion.push(piece)
    yield from motion.flush()
