"""Speech in, motion of a face out, frame by frame: lips from the articulatory network, blinks, a head that lives.

Nothing looks further ahead than the speech feature does (`look_ahead` frames), so that a stream and a file agree, and
memory does not grow with the speech.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vocalface.hmtalker.drive import BLINK, SilenceGate, Smoother, levels
from vocalface.observe.speech.articulatory import MOTIONS, ArticulatoryFeature
from vocalface.types import FPS, SPEECH_RATE, frames_for

JAW, APERTURE, WIDTH = 0.013, 0.0165, 0.0045  # m at full motion: drop at the incisors, lips' gap, a corner's way
BROW = 0.0035  # m
SWING = np.radians([3.2, 1.7, 1.3])  # deviation of yaw, pitch, roll
HOP = SPEECH_RATE // FPS


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
    blink: float = 0.0  # 0..1
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0)  # rad: yaw to the image's right, pitch down, roll clockwise
    shift: tuple[float, float] = (0.0, 0.0)  # m, right and down


@dataclass(frozen=True)
class Style:
    """How lively the motion is."""

    expression_scale: float = 1.0
    head_scale: float = 1.0
    still: bool = False  # the head rests; lips and lids move
    seed: int = 0


class Blinks:
    """Closure frame after frame; intervals are log-normal about 3.5 s."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.frame = rng, 0
        self.next = int(FPS * rng.uniform(0.8, 2.5))

    def __call__(self) -> float:
        k = self.frame - self.next
        self.frame += 1
        if k >= len(BLINK):
            self.next = self.frame + int(FPS * np.clip(self.rng.lognormal(np.log(3.5), 0.45), 0.8, 9))
        return float(BLINK[k]) if 0 <= k < len(BLINK) else 0.0


class Sway:
    """Head angles: slow waves of unrelated periods, and a nod that follows the beats of the voice."""

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
        self.feature = ArticulatoryFeature()
        self.stream = self.feature.stream()
        self.look_ahead = self.feature.lookahead
        rng = np.random.default_rng([self.style.seed, 11])
        self.blinks, self.sway = Blinks(rng), Sway(rng)
        self.gate, self.smooth = SilenceGate(), Smoother(0.6)
        self.rows: list[np.ndarray] = []  # motions that wait for their loudness
        self.heard: list[tuple[float, float]] = []  # silence and loudness of the frames to come
        self.level, self.levels = -30.0, []
        self.tail = np.zeros(0, np.float32)
        self.samples = self.done = 0

    def push(self, samples: np.ndarray) -> Iterator[Pose]:
        """The frames that these samples [n] float32 complete."""
        self.samples += len(samples)
        self._motions(self.stream.push(samples))
        self._hear(samples)
        yield from self._emit()

    def flush(self) -> Iterator[Pose]:
        """The frames still owed."""
        if len(self.tail):
            self._hear(np.zeros(HOP - len(self.tail), np.float32))
        for _ in range(SilenceGate.ahead):
            self._level(-100.0)
        self._motions(self.stream.flush())
        yield from self._emit(frames_for(self.samples))

    def _motions(self, rows: np.ndarray) -> None:
        if len(rows):
            network = self.feature.network
            self.rows.extend(network.motions(rows[:, : network.hidden]))

    def _hear(self, samples: np.ndarray) -> None:
        self.tail = np.concatenate([self.tail, samples])
        whole = len(self.tail) // HOP
        for level in levels(self.tail[: whole * HOP]) if whole else ():
            self._level(float(level))
        self.tail = self.tail[whole * HOP :]

    def _level(self, level: float) -> None:
        gate = self.gate.push(level)
        self.level += (0.3 if level > self.level else 0.004) * (level - self.level) if level > -55 else 0
        self.levels.append(float(np.clip((level - self.level + 28) / 28, 0, 1)))
        if len(self.levels) > SilenceGate.ahead:
            self.heard.append((gate, self.levels.pop(0)))

    def _emit(self, last: int | None = None) -> Iterator[Pose]:
        ready = min(len(self.rows), len(self.heard))
        if last is not None:
            ready = min(ready, last - self.done)
        for row, (silent, loud) in zip(self.rows[:ready], self.heard[:ready]):
            yield self._pose(dict(zip(MOTIONS, self.smooth(row)[0].tolist())), silent, loud)
        del self.rows[:ready], self.heard[:ready]
        self.done += ready

    def _pose(self, m: dict[str, float], silent: float, loud: float) -> Pose:
        style = self.style
        k = style.expression_scale
        angles, shift, beat = self.sway(loud)
        blink = self.blinks()
        sealed = max(ramp(0.30, 0.62, m["closure"]), silent)
        opened = 1 - sealed
        gap = max(0.0, 1.35 * (m["gap"] - 0.06))
        jaw = max(0.0, 1.3 * (m["jaw"] - 0.10))
        head = 0.0 if style.still else style.head_scale
        return Pose(
            jaw=k * JAW * jaw * (0.35 + 0.65 * opened) * (1 - 0.9 * silent),
            aperture=k * APERTURE * gap * opened,
            width=k * WIDTH * float(np.clip(m["width"], -1, 1)) * (1 - silent),
            round=float(np.clip(k * 1.2 * (m["round"] - 0.12), 0, 1.2)) * (1 - silent),
            tuck=float(np.clip(m["tuck"], 0, 1)) * (1 - silent),
            upper=float(np.clip(k * m["upper"], 0, 1)) * opened,
            tongue=float(np.clip(m["tongue"], 0, 1)) * opened,
            brow=k * BROW * (0.8 * beat - 0.1) * (1 - silent),
            blink=blink,
            angles=tuple((head * angles).tolist()),
            shift=tuple((head * shift).tolist()),
        )


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
