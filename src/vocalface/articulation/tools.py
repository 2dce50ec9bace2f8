"""Speech with known phone times from espeak-ng and flite, where they are installed. Used only while training.

Both give phones in time: espeak-ng through the phoneme events of its library, flite by printing its segments.
Their phones are brought to the symbols of `presenter.articulation`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from vocalface.presenter.articulation import SYMBOLS
from vocalface.presenter.voice import PAUSE, Phone
from vocalface.types import SPEECH_RATE

ESPEAK_VARIANTS = (
    "", "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "adam", "anika", "antonio",
    "belinda", "benjamin", "boris", "caleb", "david", "ed", "gustave", "linda", "marcelo", "max", "michael", "norbert",
    "pablo", "paul", "pedro", "quincy", "rob", "sandro", "steph", "travis",
)  # fmt: skip
FLITE_VOICES = ("kal16", "awb", "rms", "slt")

# fmt: off
_PAIRS = {
    "oʊ": "ow", "əʊ": "ow", "aɪ": "ay", "aʊ": "aw", "ɔɪ": "oy", "eɪ": "ey", "tʃ": "ch", "dʒ": "jh", "tɕ": "ch",
    "dʑ": "jh", "ʈʂ": "ch", "tʂ": "ch",
}
_SINGLES = {
    "a": "aa", "ɐ": "ah", "ɑ": "aa", "ɒ": "ao", "æ": "ae", "ʌ": "ah", "ə": "ax", "ɘ": "ax", "ɵ": "oe", "ɜ": "er",
    "ɚ": "er", "ɝ": "er", "ɛ": "eh", "e": "eh", "i": "iy", "ɪ": "ih", "ɨ": "ih", "ᵻ": "ih", "o": "ao", "ɔ": "ao",
    "u": "uw", "ʊ": "uh", "ʉ": "uw", "ɯ": "ih", "y": "ue", "ʏ": "ue", "ø": "oe", "œ": "oe", "ɤ": "ah",
    "p": "p", "b": "b", "t": "t", "d": "d", "ʈ": "t", "ɖ": "d", "k": "k", "g": "g", "ɡ": "g", "c": "k", "ɟ": "g",
    "q": "k", "m": "m", "ɱ": "m", "n": "n", "ɲ": "n", "ɳ": "n", "ŋ": "ng", "ɴ": "ng", "f": "f", "v": "v", "ɸ": "f",
    "β": "v", "ʋ": "v", "θ": "th", "ð": "dh", "s": "s", "z": "z", "ʃ": "sh", "ʒ": "zh", "ɕ": "sh", "ʑ": "zh",
    "ʂ": "sh", "ʐ": "zh", "ç": "y", "ʝ": "y", "x": "x", "χ": "x", "ɣ": "x", "ʁ": "x", "ʀ": "x", "h": "hh", "ɦ": "hh",
    "l": "l", "ɫ": "l", "ɭ": "l", "ʎ": "l", "r": "d", "ɾ": "d", "ɽ": "d", "ɹ": "r", "ɻ": "r", "j": "y", "w": "w",
    "ɥ": "ue",
}
# fmt: on
_VOICELESS = ("p", "t", "k", "ch")
_CLOSURE_BEFORE = 0.055  # s: espeak-ng reports a voiceless stop at its release


def phones_of_ipa(ipa: str) -> list[str]:
    """Our symbols for an IPA string; what is not a sound (tones, length, stress) is left out."""
    symbols, at = [], 0
    while at < len(ipa):
        if ipa[at : at + 2] in _PAIRS:
            symbols.append(_PAIRS[ipa[at : at + 2]])
            at += 2
            continue
        if ipa[at] in _SINGLES:
            symbols.append(_SINGLES[ipa[at]])
        at += 1
    return symbols


def has_espeak() -> bool:
    """Whether espeak-ng's program and library are here."""
    return shutil.which("espeak-ng") is not None and _library_name() is not None


def has_flite() -> bool:
    """Whether flite is on PATH."""
    return shutil.which("flite") is not None


def _library_name() -> str | None:
    return ctypes.util.find_library("espeak-ng")


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _Id),
    )  # fmt: skip


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_RETRIEVAL, _PHONEME_EVENTS, _AS_IPA, _UTF8, _PHONEME = 1, 1, 2, 1, 7
_RATE_PARAMETER, _PITCH_PARAMETER, _RANGE_PARAMETER = 1, 3, 4


class _Espeak:
    """espeak-ng's library, opened once."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_library_name())
        self.rate = self._library.espeak_Initialize(_RETRIEVAL, 0, None, _PHONEME_EVENTS | _AS_IPA)
        self._samples: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _CALLBACK(self._receive)  # kept, or it would be collected while the library holds it
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count, events) -> int:
        if samples and count > 0:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        at = 0
        while events[at].type != 0:
            if events[at].type == _PHONEME:
                self._events.append((events[at].sample, events[at].id.string.decode("utf-8", "ignore")))
            at += 1
        return 0

    def say(self, text: str, voice: str, words_per_minute: int, pitch: int, liveliness: int):
        """Samples [n] float64 at `rate`, and (sample, IPA) events."""
        self._samples, self._events = [], []
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            return np.zeros(0), []
        for parameter, value in (
            (_RATE_PARAMETER, words_per_minute), (_PITCH_PARAMETER, pitch), (_RANGE_PARAMETER, liveliness)
        ):  # fmt: skip
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate(self._samples) / 32768 if self._samples else np.zeros(0)
        return samples, self._events


@cache
def _espeak() -> _Espeak:
    return _Espeak()


def espeak(text: str, language: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]] | None:
    """Samples [n] at 16 kHz and phones of `text`, spoken by a variant chosen at random; None if it stays silent."""
    variant = str(rng.choice(ESPEAK_VARIANTS))
    engine = _espeak()
    voice = f"{language}+{variant}" if variant else language
    samples, events = engine.say(
        text, voice, int(rng.integers(125, 210)), int(rng.integers(25, 75)), int(rng.integers(30, 80))
    )
    if len(samples) < engine.rate:
        return None
    phones = _phones_of_events([(s / engine.rate, ipa) for s, ipa in events], len(samples) / engine.rate)
    return resample_poly(samples, 320, 441) if engine.rate == 22050 else _resample(samples, engine.rate), phones


def _phones_of_events(events: list[tuple[float, str]], end: float) -> list[Phone]:
    spans: list[list] = [[0.0, PAUSE]]
    for start, ipa in events:
        if ipa.startswith("("):  # a change of language
            continue
        symbols = phones_of_ipa(ipa) or ([PAUSE] if not ipa.strip() else [])
        # Several sounds in one event share its time; where it ends is known only with the next event.
        spans.extend([start, s, k, len(symbols)] if k else [start, s] for k, s in enumerate(symbols))
    starts = _resolve(spans, end)
    symbols = [span[1] for span in spans]
    for i in range(1, len(starts)):
        if symbols[i] in _VOICELESS and starts[i - 1] < starts[i]:
            starts[i] -= min(_CLOSURE_BEFORE, 0.6 * (starts[i] - starts[i - 1]))
    return _merge(symbols, [*starts, end])


def _resolve(spans: list[list], end: float) -> list[float]:
    """Start times; the later parts of a shared event divide the time up to the next event evenly."""
    starts = [float(span[0]) for span in spans]
    for i, span in enumerate(spans):
        if len(span) == 4:
            first, after = i - span[2], i - span[2] + span[3]
            stop = starts[after] if after < len(starts) else end
            starts[i] = starts[first] + (stop - starts[first]) * span[2] / span[3]
    return starts


def _merge(symbols: list[str], edges: list[float]) -> list[Phone]:
    phones: list[Phone] = []
    for symbol, start, end in zip(symbols, edges[:-1], edges[1:]):
        if end <= start:
            continue
        if phones and phones[-1].symbol == symbol == PAUSE:
            phones[-1] = Phone(PAUSE, phones[-1].start, end)
        else:
            phones.append(Phone(symbol, start, end))
    return phones


def flite(text: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]] | None:
    """Samples [n] at 16 kHz and phones of an English `text`, spoken by a voice chosen at random; None if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        name, stretch = str(rng.choice(FLITE_VOICES)), f"duration_stretch={rng.uniform(0.85, 1.2):.2f}"
        command = ["flite", "-voice", name, "--setf", stretch, "-psdur", "-t", text, "-o", str(wav)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode or not wav.is_file():
            return None
        rate, samples = wavfile.read(wav)
    symbols, edges = [], [0.0]
    for part in run.stdout.split():
        symbol, _, end = part.partition(":")
        symbols.append(symbol if symbol in SYMBOLS else PAUSE)
        edges.append(float(end))
    return _resample(samples / 32768, rate), _merge(symbols, edges)


def _resample(samples: np.ndarray, rate: int) -> np.ndarray:
    common = int(np.gcd(rate, SPEECH_RATE))
    return samples if rate == SPEECH_RATE else resample_poly(samples, SPEECH_RATE // common, rate // common)
