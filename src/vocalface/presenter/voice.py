"""A formant voice: script in, speech and phone times out. Nothing is recorded; every sound is computed.

The synthesiser is of Klatt's kind ("Software for a cascade/parallel formant synthesizer", JASA 1980): a glottal
source and aspiration pass a cascade of resonators, frication noise passes a branch of its own.

A script is text in ARPAbet: phones of a word joined by `-`, a `1` after a stressed vowel, words between spaces,
`,` `.` `?` for pauses and `pau:0.8` for a pause of that many seconds.

    speak("hh-ax-l-ow1 , w-er1-l-d .", voice="ben").sound
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter, resample_poly, sosfilt

from vocalface.errors import ConfigError
from vocalface.types import SPEECH_RATE, Sound

PAUSE = "pau"
_CONTROL = 80  # samples a control frame: 5 ms at 16 kHz
_OVERSAMPLE = 4  # the glottal pulse closes abruptly; oversampling keeps its aliases down


@dataclass(frozen=True)
class Phone:
    """One phone of an utterance, ARPAbet in lower case or `pau`."""

    symbol: str
    start: float  # s
    end: float  # s


@dataclass(frozen=True)
class Utterance:
    """Speech whose phones are known exactly; the phones tile [0, sound.seconds]."""

    sound: Sound
    phones: list[Phone]


@dataclass(frozen=True)
class Voice:
    """What tells one speaker from another."""

    pitch: float  # Hz, the middle of the speaker's range
    formants: float  # formant scale: 1 is an adult man, about 1.17 an adult woman
    rate: float = 1.0  # speaking rate
    breath: float = 0.03  # aspiration under the voice
    open_quotient: float = 0.6  # share of a period in which the glottis is open
    tilt: float = 0.3  # one-pole low-pass on the source; more is darker
    liveliness: float = 1.0  # how far the pitch moves


VOICES = {
    "ada": Voice(198, 1.16, 1.00, 0.04, 0.62, 0.28, 1.0),
    "ben": Voice(112, 1.00, 1.00, 0.02, 0.55, 0.22, 1.0),
    "cleo": Voice(226, 1.20, 1.10, 0.06, 0.68, 0.34, 1.3),
    "dan": Voice(92, 0.95, 0.90, 0.03, 0.58, 0.32, 0.7),
    "eve": Voice(176, 1.12, 0.94, 0.05, 0.66, 0.36, 0.8),
    "finn": Voice(134, 1.04, 1.12, 0.02, 0.52, 0.15, 1.2),
}


@dataclass(frozen=True)
class _Sound:
    """Acoustic targets of a steady stretch of speech."""

    formants: tuple[float, float, float]  # Hz, for a man
    voice: float = 1.0
    breath: float = 0.0
    noise: float = 0.0
    band: tuple[float, float] = (4000.0, 4000.0)  # frication: centre and width, Hz
    nasal: float = 0.0
    width: float = 1.0  # formant bandwidth factor


_VOWELS = {  # first target, last target (diphthongs move), ms
    "aa": ((700, 1220, 2600), None, 110), "ae": ((640, 1690, 2430), None, 110), "ah": ((620, 1220, 2550), None, 85),
    "ao": ((590, 930, 2570), None, 110), "ax": ((500, 1450, 2450), None, 55), "eh": ((530, 1680, 2500), None, 90),
    "er": ((470, 1270, 1560), None, 105), "ih": ((400, 1830, 2570), None, 75), "iy": ((300, 2080, 2960), None, 100),
    "uh": ((440, 1080, 2350), None, 75), "uw": ((320, 880, 2200), None, 105),
    "ay": ((690, 1250, 2550), (360, 1900, 2600), 150), "aw": ((690, 1280, 2550), (380, 900, 2350), 155),
    "oy": ((560, 930, 2500), (370, 1850, 2550), 160), "ey": ((480, 1780, 2520), (320, 2050, 2700), 125),
    "ow": ((540, 1080, 2350), (380, 820, 2300), 130),
}  # fmt: skip

_CONSONANTS = {  # target, ms
    "m": (_Sound((270, 950, 2130), 0.5, nasal=1.0, width=1.8), 75),
    "n": (_Sound((270, 1400, 2480), 0.5, nasal=1.45, width=1.8), 65),
    "ng": (_Sound((270, 1900, 2780), 0.5, nasal=1.8, width=1.8), 75),
    "l": (_Sound((320, 1050, 2880), 0.65), 65), "r": (_Sound((320, 1060, 1420), 0.7), 65),
    "w": (_Sound((290, 610, 2150), 0.6), 65), "y": (_Sound((270, 2070, 3020), 0.65), 60),
    "f": (_Sound((340, 1100, 2080), 0, 0.03, 0.10, (5600, 5000)), 105),
    "v": (_Sound((240, 1100, 2080), 0.4, 0.0, 0.06, (5600, 5000)), 65),
    "th": (_Sound((320, 1290, 2540), 0, 0.03, 0.09, (6200, 3500)), 95),
    "dh": (_Sound((270, 1290, 2540), 0.4, 0.0, 0.05, (6200, 3500)), 50),
    "s": (_Sound((320, 1390, 2530), 0, 0.02, 0.34, (5600, 1700)), 110),
    "z": (_Sound((250, 1390, 2530), 0.3, 0.0, 0.22, (5600, 1700)), 80),
    "sh": (_Sound((300, 1840, 2750), 0, 0.02, 0.36, (2900, 1100)), 115),
    "zh": (_Sound((260, 1840, 2750), 0.3, 0.0, 0.24, (2900, 1100)), 80),
    "hh": (_Sound((500, 1450, 2450), 0, 0.40, 0.0, width=2.0), 60),
}  # fmt: skip

_STOPS = {  # locus of the closure, burst, is it voiced, ms of closure, ms of aspiration or frication after it
    "p": ((220, 850, 2150), (0.22, (900, 1500)), False, 75, 40),
    "b": ((220, 850, 2150), (0.16, (700, 1200)), True, 70, 5),
    "t": ((220, 1700, 2650), (0.50, (4300, 2200)), False, 60, 45),
    "d": ((220, 1700, 2650), (0.34, (3900, 2200)), True, 50, 5),
    "k": ((220, 1950, 2700), (0.42, (2000, 700)), False, 65, 45),
    "g": ((220, 1950, 2700), (0.30, (1900, 700)), True, 55, 10),
    "ch": ((240, 1800, 2750), (0.45, (3100, 1300)), False, 55, 70),
    "jh": ((240, 1800, 2750), (0.32, (3000, 1300)), True, 45, 50),
}  # fmt: skip

PHONES = (*_VOWELS, *_CONSONANTS, *_STOPS, PAUSE)
"""Every symbol a script may hold."""

_PAUSES = {",": 0.25, ".": 0.6, "?": 0.6}

_WORDS = """
dh-ax ah-v ae-n-d ih-n t-uw y-uw1 ih-z m-ay1 b-ih1-g m-ae1-p p-iy1-p-ax-l b-eh1-t-er p-ey1-p-er m-ao1-r-n-ih-ng b-ay1
f-ay1-v v-oy1-s f-ae1-m-ax-l-iy ow1-p-ax-n w-ih1-n-d-ow w-ao1-t-er r-ow1-d s-ih1-t-iy s-ih1-m-p-ax-l t-ay1-m sh-ow1
ch-uw1-z m-y-uw1-z-ih-k g-aa1-r-d-ax-n k-ah1-l-er l-ay1-t s-ah1-m-er w-ih1-n-t-er b-uh1-k m-uw1-v-iy hh-aw1-s
th-ih1-ng-k b-r-ah1-dh-er m-ah1-dh-er f-aa1-dh-er p-l-eh1-zh-er jh-ah1-m-p y-eh1-l-ow p-er1-p-ax-l b-l-uw1 g-r-iy1-n
hh-ow1-m w-iy1 d-uw1 aw1-t ax-b-aw1-t k-ae1-n n-eh1-v-er ao1-l-w-ey-z m-ey1-b-iy b-iy-f-ao1-r ae1-f-t-er s-p-iy1-k
l-ih1-p-s t-ao1-k l-ih1-s-ax-n s-t-ao1-r-iy w-er1-l-d ch-iy1-z f-ih1-sh sh-ih1-p v-ae1-l-iy m-aw1-n-t-ax-n r-ih1-v-er
s-k-ay1 f-r-ah1-m w-ih1-dh ih-t b-ah1-t n-aw1 p-l-ey1 m-ey1-k k-ah1-m g-ow1 s-iy1 th-r-iy1 f-ao1-r s-eh1-v-ax-n
w-ah1-n-d-er hh-ae1-p-iy k-w-ay1-ax-t r-ah1-n-ih-ng t-ax-m-aa1-r-ow p-r-aa1-m-ax-s n-ah1-m-b-er ae1-p-ax-l l-uh1-k
b-oy1 t-oy1-z y-uw1-zh-uw-ax-l
"""
_LEXICON = tuple(_WORDS.split())


def script(seconds: float, seed: int = 0) -> str:
    """Pseudo-sentences with pauses that last about `seconds`; the same for the same seed.

    It begins and ends with a pause, and holds at least one short word.
    """
    rng = np.random.default_rng([seed, 1])
    words, left = ["pau:0.3"], seconds - 0.6
    while True:
        for _ in range(rng.integers(3, 9)):
            word = str(rng.choice(_LEXICON)) if rng.random() < 0.8 else _invented_word(rng)
            needs = sum(token.seconds for token in _split_word(word))
            if left < needs and len(words) > 1:
                return " ".join([*_without_trailing_pause(words), "pau:0.3"])
            words.append(word)
            left -= needs
        mark = str(rng.choice([",", ".", ".", "?"]))
        words.append(mark)
        left -= _PAUSES[mark]


def _without_trailing_pause(words: list[str]) -> list[str]:
    return words[:-1] if words[-1] in _PAUSES else words


def _invented_word(rng: np.random.Generator) -> str:
    """One to three open or closed syllables over the whole phone set."""
    onsets = [p for p in (*_CONSONANTS, *_STOPS) if p != "ng"]
    codas = [p for p in (*_CONSONANTS, *_STOPS) if p not in ("hh", "w", "y")]
    phones, stressed = [], rng.integers(0, 2)
    for syllable in range(rng.integers(1, 4)):
        phones += [str(rng.choice(onsets)), str(rng.choice(list(_VOWELS))) + ("1" if syllable == stressed else "")]
    return "-".join([*phones, str(rng.choice(codas))] if rng.random() < 0.4 else phones)


@dataclass(frozen=True)
class _Token:
    symbol: str
    seconds: float
    stressed: bool = False
    question: bool = False


def _split_word(word: str) -> list[_Token]:
    tokens = []
    for part in word.split("-"):
        symbol = part.rstrip("1")
        if symbol not in PHONES or symbol == PAUSE:
            raise ConfigError(f"Unknown phone {part!r}", f"script, word {word!r}", f"use one of: {' '.join(PHONES)}")
        tokens.append(_Token(symbol, _duration(symbol) * (1.2 if part.endswith("1") else 1.0), part.endswith("1")))
    return tokens


def _duration(symbol: str) -> float:
    if symbol in _VOWELS:
        return _VOWELS[symbol][2] / 1000
    if symbol in _CONSONANTS:
        return _CONSONANTS[symbol][1] / 1000
    closure, after = _STOPS[symbol][3:]
    return (closure + 10 + after) / 1000


def _tokens(text: str) -> list[_Token]:
    tokens = []
    for word in text.split():
        if word in _PAUSES:
            tokens.append(_Token(PAUSE, _PAUSES[word], question=word == "?"))
        elif word.split(":")[0] == PAUSE:
            try:
                tokens.append(_Token(PAUSE, float(word.partition(":")[2] or 0.25)))
            except ValueError:
                raise ConfigError(f"Bad pause {word!r}", "script", "write pau:SECONDS, such as pau:0.8") from None
        else:
            tokens += _split_word(word)
    if not tokens:
        raise ConfigError("The script is empty", "script", "write phones such as 'hh-ax-l-ow1 .'")
    return tokens


def speak(
    script: str, *, voice: str | Voice = "ada", seed: int = 0, rate: int = SPEECH_RATE, seconds: float | None = None
) -> Utterance:
    """Speaks a script; the same bytes for the same arguments.

    Args:
        script: text of the form this module describes.
        voice: a name of `VOICES`, or a `Voice`.
        seed: varies durations, pitch and noise.
        rate: sample rate of the result, Hz.
        seconds: when given, durations are stretched so that the utterance lasts exactly this long.

    Raises:
        ConfigError: unknown voice or phone, empty script.
    """
    speaker = named(voice)
    rng = np.random.default_rng([seed, 2])
    tokens = _tokens(script)
    phones = _time(tokens, speaker, rng, seconds)
    pitch = _pitch(tokens, phones, speaker, rng)
    samples = _synthesise(phones, pitch, speaker, rng)
    if rate != SPEECH_RATE:
        common = np.gcd(rate, SPEECH_RATE)
        samples = resample_poly(samples, rate // common, SPEECH_RATE // common)
    samples = samples[: round(phones[-1].end * rate)]
    return Utterance(Sound(np.clip(samples, -1, 1).astype(np.float32), rate), phones)


def named(voice: str | Voice) -> Voice:
    """A voice by its name; a voice is itself. Raises ConfigError for a name that is none."""
    if isinstance(voice, Voice):
        return voice
    if voice not in VOICES:
        raise ConfigError(f"Unknown voice {voice!r}", "voice", f"use one of: {', '.join(VOICES)}")
    return VOICES[voice]


def _time(tokens: list[_Token], speaker: Voice, rng: np.random.Generator, seconds: float | None) -> list[Phone]:
    """Durations: nominal, livened by chance, longer before a pause."""
    lengths = np.array([t.seconds for t in tokens])
    is_pause = np.array([t.symbol == PAUSE for t in tokens])
    before_pause = np.append(is_pause[1:], True) & ~is_pause
    two_before = np.append(before_pause[1:], False) & ~is_pause
    lengths *= np.exp(rng.normal(0, np.where(is_pause, 0.02, 0.12)))
    lengths *= np.where(before_pause, 1.35, np.where(two_before, 1.2, 1.0))
    lengths[~is_pause] /= speaker.rate * 1.03  # the lengthening above takes about 3 %
    if seconds is not None:
        lengths *= seconds / lengths.sum()
    ends = np.cumsum(lengths)
    if seconds is not None:
        ends[-1] = seconds
    starts = np.concatenate([[0.0], ends[:-1]])
    return [Phone(t.symbol, float(a), float(b)) for t, a, b in zip(tokens, starts, ends)]


def _pitch(tokens: list[_Token], phones: list[Phone], speaker: Voice, rng: np.random.Generator) -> np.ndarray:
    """Fundamental frequency [control frames] Hz: declination over the phrase, accents, a final fall or rise."""
    time = (np.arange(_control_frames(phones)) + 0.5) * _CONTROL / SPEECH_RATE
    octaves = np.zeros_like(time)
    for start, end in _phrases(tokens):
        a, b = phones[start].start, phones[end - 1].end
        asks = end < len(tokens) and tokens[end].question
        inside = (time >= a - 0.15) & (time < b + 0.15)
        place = np.clip((time[inside] - a) / max(b - a, 0.1), 0, 1)
        final = np.clip((time[inside] - (b - 0.25)) / 0.25, 0, 1)
        octaves[inside] = 0.16 - 0.34 * place + final * (0.42 if asks else -0.16) + rng.normal(0, 0.04)
    for token, phone in zip(tokens, phones):
        if token.stressed:
            middle = phone.start + 0.4 * (phone.end - phone.start)
            octaves += rng.uniform(0.08, 0.24) * np.exp(-(((time - middle) / 0.07) ** 2))
    flutter = sum(np.sin(2 * np.pi * (f * time + rng.random())) for f in (12.7, 7.1, 4.7)) * 0.008
    vibrato = 0.010 * np.sin(2 * np.pi * (5.3 * time + rng.random()))
    jitter = 0.008 * rng.normal(size=len(time))
    octaves = np.convolve(np.pad(octaves, 8, mode="edge"), np.hanning(17) / np.hanning(17).sum(), mode="valid")
    return speaker.pitch * 2 ** (speaker.liveliness * octaves + flutter + vibrato + jitter)


def _phrases(tokens: list[_Token]) -> list[tuple[int, int]]:
    """[start, end) token ranges between pauses."""
    spoken = np.array([False, *(t.symbol != PAUSE for t in tokens), False])
    edges = np.flatnonzero(np.diff(spoken.astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def _control_frames(phones: list[Phone]) -> int:
    return int(np.ceil(phones[-1].end * SPEECH_RATE / _CONTROL)) + 1


def _segments(phones: list[Phone]) -> list[tuple[float, _Sound]]:
    """Steady stretches (end s, targets). Stops are split into closure, burst and aspiration."""
    segments = []
    for index, phone in enumerate(phones):
        start, end, symbol = phone.start, phone.end, phone.symbol
        following = _onset(phones[index + 1].symbol) if index + 1 < len(phones) else None
        if symbol == PAUSE:
            near = following or _Sound((500, 1500, 2500))
            segments.append((end, _Sound(near.formants, 0.0)))
        elif symbol in _VOWELS:
            first, last, _ = _VOWELS[symbol]
            segments.append((start + (0.45 if last else 1.0) * (end - start), _Sound(first)))
            if last:
                segments.append((end, _Sound(last, 0.9)))
        elif symbol in _CONSONANTS:
            target = _CONSONANTS[symbol][0]
            if symbol == "hh" and following:
                target = _Sound(following.formants, target.voice, target.breath, width=target.width)
            segments.append((end, target))
        else:
            segments += _stop(symbol, start, end, following)
    return segments


def _stop(symbol: str, start: float, end: float, following: _Sound | None) -> list[tuple[float, _Sound]]:
    locus, (level, band), voiced, closure, after = _STOPS[symbol]
    scale = (end - start) / ((closure + 10 + after) / 1000)
    closed = start + scale * closure / 1000
    burst = min(closed + 0.010, end)
    onward = following.formants if following and following.voice > 0 else locus
    if symbol in ("ch", "jh"):
        tail = _Sound(locus, 0.25 if voiced else 0.0, 0.0, 0.8 * level, band)
    elif voiced:
        tail = _Sound(onward, 0.7)
    else:
        tail = _Sound(onward, 0.0, 0.35, 0.15 * level, band, width=1.6)
    return [
        (closed, _Sound(locus, 0.12 if voiced else 0.0)),
        (burst, _Sound(locus, 0.2 if voiced else 0.0, 0.0, level, band)),
        (end, tail),
    ]


def _onset(symbol: str) -> _Sound | None:
    """What a phone begins with."""
    if symbol in _VOWELS:
        return _Sound(_VOWELS[symbol][0])
    if symbol in _CONSONANTS:
        return _CONSONANTS[symbol][0]
    return _Sound(_STOPS[symbol][0], 0.1) if symbol in _STOPS else None


def _synthesise(phones: list[Phone], pitch: np.ndarray, speaker: Voice, rng: np.random.Generator) -> np.ndarray:
    """Samples [n] at 16 kHz, level about -20 dB RMS while speaking."""
    frames = _control_frames(phones)
    ends, sounds = zip(*_segments(phones))
    time = (np.arange(frames) + 0.5) * _CONTROL / SPEECH_RATE
    index = np.minimum(np.searchsorted(np.array(ends), time, side="right"), len(ends) - 1)

    def track(values, smoothing: int) -> np.ndarray:
        steps = np.array(values, dtype=float)[index]
        window = np.hanning(smoothing + 2)[1:-1]
        half = smoothing // 2
        padded = np.pad(steps, [(half, half)] + [(0, 0)] * (steps.ndim - 1), mode="edge")
        return lfilter(window / window.sum(), 1.0, padded, axis=0)[2 * half :]

    formants = track([s.formants for s in sounds], 11) * speaker.formants
    width = track([s.width for s in sounds], 7)
    voice = track([s.voice for s in sounds], 5)
    breath = track([s.breath for s in sounds], 5)
    noise = track([s.noise for s in sounds], 3)
    nasal = track([s.nasal for s in sounds], 5)
    band = np.array([s.band for s in sounds])[index]

    glottis, open_glottis = _glottis(pitch, speaker, rng)
    white = rng.normal(size=frames * _CONTROL)
    shaped = white * (1 - 0.45 * np.interp(np.arange(len(white)), np.arange(frames) * _CONTROL, voice) * ~open_glottis)
    throat = _spread(voice) * glottis + 0.5 * _spread(breath + speaker.breath * voice) * shaped
    speech = _time_varying(throat, _cascade(formants, width, nasal, speaker))
    speech += 1.3 * _time_varying(_spread(noise) * shaped, _band_pass(band * np.sqrt(speaker.formants)))
    loud = np.sqrt(np.mean(speech**2) / max(np.mean(voice > 0.02), 0.05) + 1e-12)
    return np.tanh(speech * (0.11 / loud))


def _spread(track: np.ndarray) -> np.ndarray:
    """Control frames to samples, linear."""
    return np.interp(np.arange(len(track) * _CONTROL) + 0.5, (np.arange(len(track)) + 0.5) * _CONTROL, track)


def _glottis(pitch: np.ndarray, speaker: Voice, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Derivative of the glottal flow (KLGLOTT88: t^2 - t^3 while open) and where the glottis is open, both [n]."""
    fine = np.repeat(pitch, _CONTROL * _OVERSAMPLE) / (SPEECH_RATE * _OVERSAMPLE)
    cycles = np.cumsum(fine)
    period = cycles.astype(int)
    phase = cycles - period
    shimmer = 1 + 0.04 * rng.normal(size=period[-1] + 1)
    t = phase / speaker.open_quotient
    flow = np.where(t < 1, 2 * t - 3 * t * t, 0.0) * shimmer[period]
    flow = resample_poly(flow, 1, _OVERSAMPLE)
    darkened = lfilter([1 - speaker.tilt], [1, -speaker.tilt], flow)
    return darkened, t[::_OVERSAMPLE] < 1


def _resonator(frequency: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    """Klatt's two-pole resonator as second-order sections [frames, 6], gain 1 at 0 Hz."""
    c = -np.exp(-2 * np.pi * bandwidth / SPEECH_RATE)
    b = 2 * np.exp(-np.pi * bandwidth / SPEECH_RATE) * np.cos(2 * np.pi * frequency / SPEECH_RATE)
    one, zero = np.ones_like(b), np.zeros_like(b)
    return np.stack([one - b - c, zero, zero, one, -b, -c], axis=-1)


def _cascade(formants: np.ndarray, width: np.ndarray, nasal: np.ndarray, speaker: Voice) -> np.ndarray:
    """Sections [frames, 7, 6]: a nasal pole and zero, three moving formants, three fixed ones."""
    frames = len(formants)
    base = np.array([60.0, 90.0, 130.0])
    sections = [_resonator(formants[:, i], base[i] * width) for i in range(3)]
    for frequency, bandwidth in ((3500, 220), (4500, 300), (5700, 500)):
        frequency = min(frequency * speaker.formants, 7300)
        sections.append(_resonator(np.full(frames, frequency), np.full(frames, float(bandwidth))))
    pole = _resonator(np.full(frames, 270.0), np.full(frames, 100.0))
    zero = _resonator(270.0 + 700.0 * nasal, np.full(frames, 100.0))  # on the pole, so without effect, unless nasal
    gain = pole[:, 0] / zero[:, 0]
    nasal_pair = np.stack([gain, gain * zero[:, 4], gain * zero[:, 5], pole[:, 3], pole[:, 4], pole[:, 5]], axis=-1)
    return np.stack([nasal_pair, *sections], axis=1)


def _band_pass(band: np.ndarray) -> np.ndarray:
    """Sections [frames, 1, 6] with gain about 1 at the band's centre; band [frames, 2] Hz."""
    poles = _resonator(np.minimum(band[:, 0], 7200), band[:, 1])
    gain = (1 + poles[:, 5]) / 2
    zero = np.zeros_like(gain)
    return np.stack([gain, zero, -gain, poles[:, 3], poles[:, 4], poles[:, 5]], axis=-1)[:, None]


def _time_varying(samples: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """Filters `samples` with coefficients that change every control frame; the filter's state goes on."""
    state = np.zeros((sections.shape[1], 2))
    out = np.empty_like(samples)
    for frame, coefficients in enumerate(sections):
        part = slice(frame * _CONTROL, (frame + 1) * _CONTROL)
        out[part], state = sosfilt(coefficients, samples[part], zi=state)
    return out
