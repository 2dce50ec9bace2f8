"""What the open motion networks learn from: generated speech whose lips are known, and heads that go with it.

Lips come from `presenter.articulation` and the phones' known times. Heads come from a process of events and drifts
built on what is published of speakers' heads, not on footage:
    "Kinematics of head movements accompanying speech" and "Head movement correlates of juncture and stress" (Hadar et
    al., 1983, 1984): wide linear movements where speech sets in after a pause, medium ones at terminal junctures,
    sharp small ones at peaks of loudness; stillness in pauses; hardly ever quite at rest in speech.
    "Linking facial animation, head motion and speech acoustics" (Yehia et al., 2002): the head's pitch follows the
    voice's. "Visual prosody" (Graf et al., 2002): nods and brow raises at accents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import resample
from scipy.special import expit

from vocalface.articulation import spoken
from vocalface.observe.speech.articulatory import ArticulatoryFeature
from vocalface.presenter.articulation import articulate
from vocalface.presenter.voice import PAUSE, Phone
from vocalface.sadtalker.open_posevae import HEAD, STYLES
from vocalface.sadtalker.prosody import rows_of
from vocalface.types import FPS, SPEECH_RATE, Sound, frames_for


@dataclass(frozen=True)
class Example:
    """One utterance at 25 fps."""

    source: str  # the synthesiser
    speech: np.ndarray  # [F, 176] articulatory feature
    prosody: np.ndarray  # [F, 5]
    lips: np.ndarray  # [F, 10] columns MOTIONS
    phones: list[Phone]


def examples(hours: float, seed: int, tell: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Example]:
    """About `hours` of speech; the same for the same seed and the same tools on PATH."""
    feature = ArticulatoryFeature()
    seconds, done = hours * 3600, 0.0
    for number, (source, share) in enumerate(spoken.sources().items()):
        rng = np.random.default_rng([seed, 31, number])
        left, misses = seconds * share, 0
        while left > 0 and misses < 20:
            said = spoken.say(source, rng)
            misses = misses + 1 if said is None else 0
            if said is None:
                continue
            example = _example(source, *said, feature, rng)
            left, done = left - len(example.lips) / FPS, done + len(example.lips) / FPS
            tell(min(int(done), int(seconds)), int(seconds))
            yield example


def _example(source: str, samples: np.ndarray, phones: list[Phone], feature, rng: np.random.Generator) -> Example:
    speed = rng.uniform(0.86, 1.16)  # formants, pitch and pace together
    samples = resample(samples, round(len(samples) / speed))
    phones = [Phone(p.symbol, p.start / speed, p.end / speed) for p in phones]
    samples = samples * 10 ** (_effort(len(samples), rng) / 20)
    sound = Sound(spoken.record(samples, rng).astype(np.float32), SPEECH_RATE)
    frames = frames_for(len(samples))
    rest = float(rng.uniform(0.02, 0.25)) if rng.random() < 0.6 else 0.0  # real lips often stay open in pauses
    # The effort has nothing to do with the loudness: coupling the two lost .01 of r on real clips.
    _, motions = articulate(phones, frames, seed=int(rng.integers(2**31)), rest=rest, effort=0.08)
    lips = np.stack(list(motions.values()), axis=1)
    return Example(source, feature(sound)[:frames], rows_of(sound)[:frames], lips, phones)


def _effort(count: int, rng: np.random.Generator) -> np.ndarray:
    """A slow random gain [count], dB: some words are said louder."""
    knots = np.arange(0, count / SPEECH_RATE + 2, 0.7)
    return np.interp(np.arange(count) / SPEECH_RATE, knots, rng.normal(0, 3.5, len(knots)))


# --------------------------------------------------------------------------------------------------------------- heads
@dataclass(frozen=True)
class Manner:
    """How somebody moves the head while talking."""

    amplitude: float  # of postures, 1 = usual
    nods: float  # share of the accents that get a nod
    nod: float  # rad, a usual one
    tilt: float  # how much of a nod goes to yaw and roll
    melody: float  # rad of lifted chin per octave of pitch
    dwell: float  # s, median time in a posture
    drift: float  # of slow wander, 1 = usual
    brows: float  # share of accents that raise the brows


def manner(style: int, rng: np.random.Generator) -> Manner:
    """A style with its own spread: no two speakers of a style are the same."""
    life = 0.6 + 1.5 * style / (STYLES - 1)

    def about(value: float, spread: float = 0.2) -> float:
        return value * float(np.exp(rng.normal(0, spread)))

    return Manner(
        about(life), min(about(0.3 + 0.3 * life), 0.95), about(np.radians(1.7) * (0.6 + 0.4 * life)),
        about(0.45), about(np.radians(2.2)) * (0.5 + 0.5 * life), about(2.8 / (0.6 + 0.4 * life)), about(life),
        min(about(0.22 * (0.5 + life)), 0.8),
    )  # fmt: skip


_POSTURE = np.array([*np.radians([3.6, 2.1, 2.4]), 0.0045, 0.0022])  # deviation of yaw, pitch, roll, right, down
_WANDER = np.array([*np.radians([1.0, 0.8, 0.8]), 0.0013, 0.0008])
_LIMIT = np.array([*np.radians([14.0, 9.0, 8.0]), 0.02, 0.012])


def head_motion(prosody: np.ndarray, phones: list[Phone], style: int, rng: np.random.Generator) -> np.ndarray:
    """A head [F, 6], columns `HEAD`, that goes with an utterance."""
    frames = len(prosody)
    how = manner(style, rng)
    talks = gaussian_filter1d(1 - prosody[:, 4].astype(float), 4)
    out = np.zeros((frames, len(HEAD)))
    out[:, :5] = how.amplitude * _postures(prosody, how, rng)
    out[:, :5] += how.drift * _WANDER * _wander(frames, rng) * (0.35 + 0.65 * talks)[:, None]
    _accents(out, prosody, phones, how, rng)
    _junctures(out, phones, how, rng)
    tone = gaussian_filter1d(prosody[:, 3].astype(float), 3.0)
    out[:, 1] -= how.melody * tone
    out[:, 5] += 0.35 * np.maximum(tone, 0) + 0.10 * _wander(frames, rng)[:, 0]
    breath = np.sin(2 * np.pi * (rng.uniform(0.2, 0.32) * np.arange(frames) / FPS + rng.random()))
    out[:, 4] += 0.0006 * breath
    out[:, 3] += 0.045 * out[:, 0]  # the head turns about the neck, behind and below the face
    out[:, 4] += 0.030 * out[:, 1]
    out[:, :5] = _LIMIT * np.tanh(out[:, :5] / _LIMIT)
    return out.astype(np.float32)


def _postures(prosody: np.ndarray, how: Manner, rng: np.random.Generator) -> np.ndarray:
    """A semi-Markov chain of postures [F, 5]: log-normal dwell, minimum-jerk ways between, onsets that set one off."""
    frames = len(prosody)
    silent = prosody[:, 4] > 0.5
    sets_in = set((np.flatnonzero(silent[:-1] & ~silent[1:]) + 1).tolist())
    out = np.zeros((frames, 5))
    at = rng.normal(0, 0.7, 5) * _POSTURE
    start, due = 0, int(FPS * how.dwell * np.exp(rng.normal(0, 0.6)))
    going: tuple[int, int, np.ndarray, np.ndarray] | None = None
    for i in range(frames):
        fires = i >= due and (not silent[i] or rng.random() < 0.02)  # few shifts while nothing is said
        wide = i in sets_in and rng.random() < 0.6
        if (fires or wide) and (going is None or i >= going[1]):
            step = rng.normal(0, 1.0 if not wide else 1.25, 5) * _POSTURE
            goal = 0.45 * at + 0.75 * step * (rng.random(5) < 0.75)
            size = np.abs((goal - at)[:3]).max()
            last = int(FPS * np.clip(0.35 + 4.0 * size + rng.normal(0, 0.08), 0.28, 1.6))
            going, due = (i, i + last, at, goal), i + last + int(FPS * how.dwell * np.exp(rng.normal(0, 0.6)))
        if going is not None and start <= i < going[1]:
            t = (i - going[0] + 1) / (going[1] - going[0])
            at = going[2] + (going[3] - going[2]) * (10 * t**3 - 15 * t**4 + 6 * t**5)
        out[i] = at
    return out


def _wander(frames: int, rng: np.random.Generator) -> np.ndarray:
    """1/f noise [F, 5] of deviation about 1: as much in each octave from a fifth of a second to 20 s."""
    out = np.zeros((frames, 5))
    for seconds in (0.16, 0.5, 1.6, 5.0, 16.0):
        reach = seconds * FPS / 2
        white = rng.normal(size=(frames + int(8 * reach) + 2, 5))
        smooth = gaussian_filter1d(white, reach, axis=0, mode="wrap")[:frames]
        out += smooth * np.sqrt(2 * np.sqrt(np.pi) * reach) * (0.25 if seconds < 0.3 else 0.48)
    return out


def accents(prosody: np.ndarray, phones: list[Phone]) -> list[tuple[float, float]]:
    """(time in s, prominence 0..1) of the vowels that stand out in loudness, pitch and length."""
    found = []
    length = np.median([p.end - p.start for p in phones if p.symbol[0] in "aeiou"] or [0.1])
    for phone in phones:
        if phone.symbol[0] not in "aeiou" or phone.symbol == "ax":
            continue
        middle = (phone.start + phone.end) / 2
        i = min(int(middle * FPS), len(prosody) - 1)
        near = prosody[max(i - 1, 0) : i + 2].max(0)
        strength = 1.6 * near[1] + 0.9 * near[3] + 0.5 * ((phone.end - phone.start) / length - 1)
        found.append((middle, float(np.clip(strength, 0, 1))))
    return found


def _accents(out: np.ndarray, prosody: np.ndarray, phones: list[Phone], how: Manner, rng) -> None:
    """Nods, some the other way up, and brows, at vowels that stand out."""
    time, last = (np.arange(len(out)) + 0.5) / FPS, -1.0
    for middle, strength in accents(prosody, phones):
        if middle - last < 0.32 or rng.random() > how.nods * 2.2 * strength:
            continue
        last = middle
        stroke = middle + rng.normal(0.02, 0.05)  # where it goes fastest: on the accent
        width = rng.uniform(0.10, 0.19)
        size = how.nod * strength**0.5 * np.exp(rng.normal(0, 0.35)) * (-0.6 if rng.random() < 0.2 else 1.0)
        # The head is lifted for it first, goes down through the accent, and comes back slower.
        t = (time - stroke) / width
        hump = np.exp(-((t - 1.0) ** 2) / np.where(t < 1.0, 1.0, 2.6)) - 0.45 * np.exp(-((t + 1.3) ** 2) / 1.6)
        out[:, 1] += size * hump
        out[:, 0] += rng.normal(0, how.tilt) * abs(size) * hump
        out[:, 2] += rng.normal(0, 0.6 * how.tilt) * abs(size) * hump
        if rng.random() < how.brows * 1.6:
            late = stroke - 0.02
            out[:, 5] += (
                rng.uniform(0.4, 1.0) * strength**0.5 * np.exp(-(((time - late) / rng.uniform(0.14, 0.3)) ** 2))
            )


def _junctures(out: np.ndarray, phones: list[Phone], how: Manner, rng: np.random.Generator) -> None:
    """The head sinks over the last syllables of a phrase and comes up again in the pause."""
    time = (np.arange(len(out)) + 0.5) / FPS
    for k, phone in enumerate(phones):
        if phone.symbol != PAUSE or phone.end - phone.start < 0.18 or k == 0 or rng.random() > 0.7:
            continue
        size = how.nod * rng.uniform(0.5, 1.5)
        down = expit((time - phone.start + rng.uniform(0.2, 0.4)) / 0.08)
        up = expit((time - phone.start - rng.uniform(0.1, 0.3)) / 0.08)
        out[:, 1] += size * (down - 1.35 * up + 0.35 * expit((time - phone.end - 0.2) / 0.15))
