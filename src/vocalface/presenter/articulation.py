"""What the lips do while phones are spoken: a table of targets, blended by dominance.

Each phone pulls each motion towards its target with a dominance that falls off exponentially around it, so that
neighbours colour each other (Cohen and Massaro, "Modeling coarticulation in synthetic visual speech", 1993). Lip
closure is a gate of its own with a short fall-off: /p b m/ close the lips whatever stands beside them.
The numbers are our own estimates from phonetics textbooks and from looking at a mirror, not from footage.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vocalface.presenter.voice import PAUSE, PHONES, Phone
from vocalface.types import AU_NAMES, FPS

MOTIONS = ("jaw", "gap", "width", "round", "closure", "press", "tuck", "upper", "lower", "tongue")
"""jaw opening; inner-lip gap; lip-corner distance (0 at rest, signed); rounding and protrusion; lips sealed
(1 = sealed); lips pressed together; lower lip under the upper teeth; upper lip raised; lower lip lowered; tongue tip
seen between the teeth. All but `width` lie in [0, 1]."""

_JAW, _GAP, _WIDTH, _ROUND, _CLOSURE, _PRESS, _TUCK, _UPPER, _LOWER, _TONGUE = range(10)

# Columns as MOTIONS, without closure: jaw gap width round press tuck upper lower tongue.
# fmt: off
_TARGETS = {
    "aa": (0.85, 0.80, 0.05, 0.05, 0, 0, .15, .35, .10), "ae": (0.80, 0.80, 0.35, 0.00, 0, 0, .25, .45, .15),
    "ah": (0.60, 0.60, 0.05, 0.05, 0, 0, .15, .25, .10), "ao": (0.70, 0.60, -.35, 0.60, 0, 0, .15, .25, .05),
    "ax": (0.35, 0.40, 0.00, 0.10, 0, 0, .10, .20, .10), "eh": (0.60, 0.62, 0.30, 0.00, 0, 0, .20, .40, .15),
    "er": (0.35, 0.38, -.25, 0.45, 0, 0, .20, .25, .05), "ih": (0.35, 0.45, 0.35, 0.00, 0, 0, .20, .35, .15),
    "iy": (0.20, 0.38, 0.60, 0.00, 0, 0, .25, .40, .15), "uh": (0.35, 0.35, -.30, 0.60, 0, 0, .15, .20, .05),
    "uw": (0.20, 0.22, -.60, 0.95, 0, 0, .15, .15, .00),
    "f":  (0.15, 0.12, 0.10, 0.05, 0, 1, .25, .00, .00), "v":  (0.15, 0.12, 0.10, 0.05, 0, 1, .25, .00, .00),
    "th": (0.25, 0.32, 0.10, 0.00, 0, 0, .15, .30, 1.0), "dh": (0.25, 0.32, 0.10, 0.00, 0, 0, .15, .30, .90),
    "s":  (0.08, 0.30, 0.35, 0.05, 0, 0, .20, .45, .10), "z":  (0.08, 0.30, 0.35, 0.05, 0, 0, .20, .45, .10),
    "sh": (0.12, 0.35, -.35, 0.75, 0, 0, .50, .55, .00), "zh": (0.12, 0.35, -.35, 0.75, 0, 0, .50, .55, .00),
    "ch": (0.12, 0.33, -.30, 0.70, 0, 0, .45, .50, .05), "jh": (0.12, 0.33, -.30, 0.70, 0, 0, .45, .50, .05),
    "t":  (0.15, 0.30, 0.15, 0.00, 0, 0, .15, .30, .35), "d":  (0.18, 0.30, 0.12, 0.00, 0, 0, .15, .30, .35),
    "n":  (0.20, 0.32, 0.10, 0.00, 0, 0, .15, .25, .35), "l":  (0.30, 0.38, 0.10, 0.00, 0, 0, .15, .25, .70),
    "k":  (0.30, 0.38, 0.10, 0.05, 0, 0, .10, .25, .00), "g":  (0.30, 0.38, 0.10, 0.05, 0, 0, .10, .25, .00),
    "ng": (0.30, 0.38, 0.10, 0.00, 0, 0, .10, .25, .00), "hh": (0.40, 0.42, 0.05, 0.05, 0, 0, .10, .20, .05),
    "r":  (0.22, 0.28, -.35, 0.60, 0, 0, .25, .25, .05), "y":  (0.18, 0.35, 0.45, 0.00, 0, 0, .20, .35, .10),
    "w":  (0.15, 0.12, -.65, 1.00, 0, 0, .10, .05, .00),
    "m":  (0.12, 0.00, 0.00, 0.10, .45, 0, .0, .0, .0), "b":  (0.15, 0.00, 0.00, 0.10, .65, 0, .0, .0, .0),
    "p":  (0.15, 0.00, 0.00, 0.10, .80, 0, .0, .0, .0),
    PAUSE: (0.03, 0.00, 0.00, 0.05, 0, 0, .0, .0, .0),
    # Beyond English: front rounded vowels, a back fricative.
    "ue": (0.20, 0.22, -.55, 0.90, 0, 0, .15, .15, .00), "oe": (0.45, 0.45, -.40, 0.70, 0, 0, .15, .25, .05),
    "x":  (0.30, 0.38, 0.05, 0.05, 0, 0, .10, .25, .00),
}
_DIPHTHONGS = {"ay": ("aa", "ih"), "aw": ("aa", "uw"), "oy": ("ao", "ih"), "ey": ("eh", "iy"), "ow": ("ao", "uw")}
# How strongly a phone insists: jaw gap width round press tuck upper lower tongue.
_STRENGTH = {
    "vowel":    (1.0, 1.0, 1.0, 1.0, 1, 1, 1, 1, .5), "weak":     (0.4, 0.4, 0.3, 0.3, 1, 1, .3, .3, .3),
    "rounded":  (0.9, 1.2, 1.6, 2.2, 1, 1, 1, 1, .5), "labial":   (0.8, 1.0, 0.2, 0.2, 6, 3, 2, 2, 1.),
    "dental":   (1.0, 2.0, 0.4, 0.3, 1, 6, 1, 3, 1.), "sibilant": (2.5, 1.0, 0.7, 0.5, 1, 2, 1, 1, 1.),
    "hush":     (2.0, 1.2, 1.4, 2.0, 1, 2, 2, 2, 1.), "tongue":   (0.7, 0.6, 0.3, 0.2, 1, 2, .4, .4, 3.),
    "back":     (0.4, 0.3, 0.2, 0.2, 1, 2, .3, .3, 1.), "pause":   (0.7, 0.9, 0.7, 0.7, 1, 1, 1, 1, 1.),
}
_KIND = {
    **dict.fromkeys(("aa", "ae", "ah", "eh", "ih", "iy"), "vowel"), "ax": "weak",
    **dict.fromkeys(("ao", "er", "uh", "uw", "w", "r", "ue", "oe"), "rounded"),
    **dict.fromkeys(("m", "b", "p"), "labial"), **dict.fromkeys(("f", "v"), "dental"),
    **dict.fromkeys(("s", "z"), "sibilant"), **dict.fromkeys(("sh", "zh", "ch", "jh"), "hush"),
    **dict.fromkeys(("th", "dh", "t", "d", "n", "l", "y"), "tongue"),
    **dict.fromkeys(("k", "g", "ng", "hh", "x"), "back"), PAUSE: "pause",
}
_TAU = np.array([0.070, 0.055, 0.065, 0.070, 0.035, 0.035, 0.055, 0.055, 0.045])  # s, fall-off of a dominance
_LEAD = np.array([0.025, 0.020, 0.045, 0.060, 0.010, 0.020, 0.020, 0.020, 0.020])  # s, motion ahead of its sound
# fmt: on
_COLUMNS = (_JAW, _GAP, _WIDTH, _ROUND, _PRESS, _TUCK, _UPPER, _LOWER, _TONGUE)
_BILABIAL = ("m", "b", "p")
_CLOSURE_TAU = 0.028  # s
_CLOSURE_LEAD = 0.012  # s
_CLOSED_AT_LEAST = 0.044  # s: longer than a frame of 1/25 s, so that one frame's centre always falls in it
_LONG_PAUSE = 0.30  # s; in a pause this long the lips come together

SYMBOLS = tuple(dict.fromkeys((*PHONES, *_TARGETS)))
"""Every phone symbol `articulate` knows: the voice's, and some of other languages."""


def articulate(
    phones: Sequence[Phone], frames: int, *, fps: float = FPS, seed: int = 0, rest: float = 0.0, effort: float = 0.15
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Action units and motions of a mouth that speaks `phones`.

    Args:
        phones: in order of time, s.
        frames: how many frames; frame i shows the time (i + 0.5) / fps.
        seed: of the slow random curve that scales the opening (effort), and of small drifts.
        rest: inner-lip gap in long pauses; 0 = closed.
        effort: standard deviation of the effort curve.

    Returns:
        Action units [frames, 17] float32, 0..5, upper face 0, and a dict of the `MOTIONS`, each [frames] float32.
    """
    time = (np.arange(frames) + 0.5) / fps
    rng = np.random.default_rng([seed, 3])
    motions = _blend(_units(phones, rest), time)
    motions *= _effort(time, rng, effort)
    motions[:, _CLOSURE] = _closure(phones, time, rest)
    opened = 1 - motions[:, _CLOSURE]
    motions[:, [_GAP, _UPPER, _LOWER, _TONGUE]] *= opened[:, None]
    motions[:, _TUCK] *= opened
    # A jaw that hangs under sealed lips is not seen in speech: it follows them half of the way.
    motions[:, _JAW] *= 0.45 + 0.55 * opened
    motions[:, _GAP] *= 1 - 0.75 * motions[:, _TUCK]
    low = np.zeros(len(MOTIONS))
    low[_WIDTH] = -1
    motions = np.clip(motions, low, 1).astype(np.float32)
    return _action_units(motions), {name: motions[:, i] for i, name in enumerate(MOTIONS)}


def _units(phones: Sequence[Phone], rest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Spans [U] start, [U] end, targets [U, 9] and strengths [U, 9]; a diphthong is two units."""
    rows = []
    for phone in phones:
        first, last = _DIPHTHONGS.get(phone.symbol, (phone.symbol, None))
        middle = phone.start + 0.5 * (phone.end - phone.start)
        rows.append((phone.start, middle if last else phone.end, first))
        if last:
            rows.append((middle, phone.end, last))
    targets = np.array([_TARGETS[s] for _, _, s in rows], dtype=float)
    strengths = np.array([_STRENGTH[_KIND[s]] for _, _, s in rows], dtype=float)
    for i, (start, end, symbol) in enumerate(rows):
        if symbol == PAUSE:
            is_long = end - start >= _LONG_PAUSE
            targets[i, 0:2] = (0.03 + 0.3 * rest, rest) if is_long else (0.12, 0.15)
            strengths[i] *= 1.0 if is_long else 0.5
    spans = np.array([(a, b) for a, b, _ in rows])
    return spans[:, 0], spans[:, 1], targets, strengths


def _blend(units: tuple[np.ndarray, ...], time: np.ndarray) -> np.ndarray:
    """Dominance-weighted mean of the targets [T, 10]; closure is left 0."""
    starts, ends, targets, strengths = units
    weighted, weight = np.zeros((len(time), 9)), np.full((len(time), 9), 1e-9)
    reach = 0.45  # s; a dominance has fallen to e^-6 there
    first = np.searchsorted(time, starts - reach)
    last = np.searchsorted(time, ends + reach)
    for i in range(len(starts)):
        near = slice(first[i], last[i])
        heard = time[near, None] + _LEAD
        # Dominance is full over the middle of a phone and falls off from a fifth of its length inside each edge.
        inset = 0.2 * (ends[i] - starts[i])
        away = np.maximum(np.maximum(starts[i] + inset - heard, heard - ends[i] + inset), 0)
        dominance = strengths[i] * np.exp(-away / _TAU)
        weighted[near] += dominance * targets[i]
        weight[near] += dominance
    motions = np.zeros((len(time), len(MOTIONS)))
    motions[:, _COLUMNS] = weighted / weight
    return motions


def _closure(phones: Sequence[Phone], time: np.ndarray, rest: float) -> np.ndarray:
    """How far the lips are sealed [T], 1 in bilabials and, unless `rest` opens them, in long pauses."""
    sealed = np.zeros(len(time))
    for index, phone in enumerate(phones):
        bilabial = phone.symbol in _BILABIAL
        if not bilabial and not (phone.symbol == PAUSE and phone.end - phone.start >= _LONG_PAUSE and rest <= 0):
            continue
        start, end = phone.start, phone.end
        if bilabial:
            # /p/ and /b/ include their release, which is open; /m/ is closed for its whole length.
            release = end if phone.symbol == "m" else start + 0.7 * (end - start)
            slack = max(_CLOSED_AT_LEAST - (release - start), 0) / 2
            start, end, tau = start - slack - _CLOSURE_LEAD, release + slack - _CLOSURE_LEAD, _CLOSURE_TAU
        else:
            # Lips part before speech begins, unless it begins with closed lips.
            starts_closed = index == 0 or phones[index - 1].symbol in _BILABIAL
            stays_closed = index + 1 == len(phones) or phones[index + 1].symbol in _BILABIAL
            start += 0.0 if starts_closed else 0.10
            end -= 0.0 if stays_closed else 0.10
            tau = 0.05
        near = slice(*np.searchsorted(time, (start - 8 * tau, end + 8 * tau)))
        away = np.maximum(np.maximum(start - time[near], time[near] - end), 0)
        sealed[near] = np.maximum(sealed[near], np.exp(-((away / tau) ** 2)))
    return sealed


def _effort(time: np.ndarray, rng: np.random.Generator, spread: float) -> np.ndarray:
    """Slow random gains [T, 10]: one for the opening, a weaker one of its own for every motion."""
    knots = np.arange(0, (time[-1] if len(time) else 0) + 3, 1.3)

    def curve(sigma: float) -> np.ndarray:
        return np.interp(time, knots, rng.normal(0, sigma, len(knots)))

    common = curve(spread)
    gains = np.stack([curve(0.4 * spread) for _ in MOTIONS], axis=1)
    gains[:, [_JAW, _GAP, _UPPER, _LOWER]] += common[:, None]
    return np.exp(gains)


def _action_units(motions: np.ndarray) -> np.ndarray:
    """Motions [T, 10] to the 17 action units, 0..5."""
    m = motions.T
    intensity = {
        "AU10": 2.2 * m[_UPPER],  # upper lip raiser
        "AU12": 1.2 * np.maximum(m[_WIDTH], 0),  # corners pulled back and up
        "AU14": 0.8 * m[_PRESS] + 0.5 * m[_TUCK],  # dimpler: corners tightened
        "AU15": 0.5 * m[_PRESS],  # corners lowered
        "AU17": 2.0 * m[_PRESS] * m[_CLOSURE] + 1.0 * m[_TUCK],  # chin raiser pushes the lower lip up
        "AU20": 3.0 * np.maximum(m[_WIDTH], 0),  # lips stretched
        "AU23": 4.5 * m[_ROUND] + 1.0 * m[_PRESS],  # lips tightened; carries rounding, for want of AU18
        "AU25": 5.0 * m[_GAP],  # lips parted
        "AU26": 5.0 * m[_JAW],  # jaw dropped
    }
    units = np.zeros((len(motions), len(AU_NAMES)), dtype=np.float32)
    for name, values in intensity.items():
        units[:, AU_NAMES.index(name)] = np.clip(values, 0, 5)
    return units
