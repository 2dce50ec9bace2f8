"""Speech to train on: generated, with its phones known, as it might come through rooms and microphones.

Our own formant voice always speaks; espeak-ng (many languages and voices) and flite where they are installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import resample

from vocalface.articulation import tools
from vocalface.observe.speech.mel import COLUMN_RATE, mel_db
from vocalface.presenter import voice
from vocalface.presenter.articulation import SYMBOLS, articulate
from vocalface.presenter.voice import PAUSE, Phone
from vocalface.types import SPEECH_RATE

CLASSES = SYMBOLS
"""The phones the network learns to name beside the motions."""

# Everyday words of each language; sentences are drawn from them at random and mean nothing.
_WORDS = {
    "en-us": """the a of and to in you that it he was for on are with his they at be this have from or one had by word
        but not what all were we when your can said there use an each which she do how their if will up other about out
        many then them these so some her would make like him into time has look two more write go see number no way
        could people my than first water been call who oil its now find long down day did get come made may part over
        new sound take only little work know place year live me back give most very after thing our just name good
        sentence man think say great where help through much before line right too mean old any same tell boy follow
        came want show also around form three small set put end does another well large must big even such because
        turn here why ask went men read need land different home us move try kind hand picture again change off play
        spell air away animal house point page letter mother answer found study still learn should world paper
        problem music beautiful remember tomorrow family provide important information government before maybe
        possible improve member apple bubble pumpkin purple bamboo swimming volume""",
    "de": """der die das und ist nicht ein ich wir sie haben werden können über schön Wasser Mutter Vater Brüder
        sprechen bleiben Baum Apfel Bürger früh möglich fünf zwölf Wetter heute morgen Abend Straße Freund gemeinsam
        Problem Musik immer aber vielleicht Sommer Höhe Mühe Bühne Papier Lampe""",
    "fr": """le la les une nous vous avec pour dans bonjour maison petit grand monde temps jamais peut beaucoup amour
        rue lune peu feu mère père bon pain matin problème musique maintenant semaine fenêtre pomme chambre place
        pouvoir vouloir boire voir bleu beurre""",
    "es": """el la los una con para por mundo tiempo agua bueno pequeño grande madre padre hermano mañana siempre nunca
        hablar comer vivir problema música pueblo ciudad camino palabra boca beber abrir importante abuelo primo""",
    "it": """il la gli una con per mondo tempo acqua buono piccolo grande madre padre fratello domani sempre mai parlare
        mangiare problema musica città parola bocca bere aprire importante mamma babbo pomeriggio bambino""",
    "pt": """o a os uma com para por mundo tempo água bom pequeno grande mãe pai irmão amanhã sempre nunca falar comer
        viver problema música povo cidade caminho palavra boca beber abrir importante muito""",
    "pl": """jest nie tak dobry mały duży woda matka ojciec brat jutro zawsze nigdy mówić jeść żyć problem muzyka miasto
        droga słowo usta pić ważny bardzo człowiek przyjaciel powietrze babka""",
    "ru": """это не да хороший маленький большой вода мама папа брат завтра всегда никогда говорить жить проблема
        музыка город дорога слово рот пить важный очень человек друг воздух память борьба""",
    "ja": """わたし あなた みず はは ちち あに あした いつも はなす たべる いきる もんだい おんがく まち みち ことば
        くち のむ たいせつ とても ともだち そら まめ ばしょ ぶんか ぼうし ぱん しんぶん""",
    "tr": """bu değil evet güzel küçük büyük su anne baba kardeş yarın her zaman asla konuşmak yemek yaşamak problem
        müzik şehir yol söz ağız içmek önemli çok insan arkadaş hava bulmak""",
    "cmn": """你好 世界 我们 朋友 妈妈 爸爸 明天 水 说话 吃饭 问题 音乐 城市 路 嘴 喝 重要 非常
        人 天空 不 是 有 白 朋 美 风 飞 好 雨 女 月""",
}  # fmt: skip
_TEXTS = {language: tuple(words.split()) for language, words in _WORDS.items()}
_LANGUAGES = ("en-us", "en-us", "en-gb", "en-gb", *[language for language in _TEXTS if language != "en-us"])
_SHARES = {"formant": 0.2, "espeak-ng": 0.6, "flite": 0.2}


@dataclass(frozen=True)
class Spoken:
    """One generated utterance on the grid of mel columns, column k at k / 80 s."""

    source: str  # the synthesiser
    db: np.ndarray  # [T, 80] mel dB
    motions: np.ndarray  # [T, 10] float32
    phones: np.ndarray  # [T] int64, index into CLASSES


def corpus(hours: float, seed: int, tell: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Spoken]:
    """Generates about `hours` of speech; the same for the same seed and the same tools."""
    seconds, done = hours * 3600, 0.0
    for number, (source, share) in enumerate(sources().items()):
        rng = np.random.default_rng([seed, 5, number])
        left, misses = seconds * share, 0
        while left > 0 and misses < 20:
            said = say(source, rng)
            if said is None:
                misses += 1
                continue
            misses = 0
            utterance = _utterance(source, *said, rng)
            length = len(utterance.phones) / COLUMN_RATE
            left, done = left - length, done + length
            tell(min(int(done), int(seconds)), int(seconds))
            yield utterance


def sources() -> dict[str, float]:
    """The synthesisers that are here, and the share of the speech that each gives."""
    here = {"formant": True, "espeak-ng": tools.has_espeak(), "flite": tools.has_flite()}
    total = sum(_SHARES[source] for source in here if here[source])
    return {source: _SHARES[source] / total for source in here if here[source]}


def say(source: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]] | None:
    """An utterance of one of `sources`: dry samples [n] at 16 kHz and its phones; None if the tool fails."""
    return _SOURCES[source](rng)


def _say_formant(rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]]:
    base = voice.VOICES[str(rng.choice(list(voice.VOICES)))]
    speaker = replace(
        base,
        pitch=base.pitch * rng.uniform(0.85, 1.18),
        formants=base.formants * rng.uniform(0.94, 1.06),
        rate=base.rate * rng.uniform(0.85, 1.15),
        tilt=float(np.clip(base.tilt + rng.normal(0, 0.12), 0, 0.7)),
    )
    seed = int(rng.integers(2**31))
    said = voice.speak(voice.script(12, seed), voice=speaker, seed=seed)
    return said.sound.samples, said.phones


def _say_espeak(rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]] | None:
    language = str(rng.choice(_LANGUAGES))
    return tools.espeak(_text(language, rng), language, rng)


def _say_flite(rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]] | None:
    return tools.flite(_text("en-us", rng), rng)


_SOURCES = {"formant": _say_formant, "espeak-ng": _say_espeak, "flite": _say_flite}


def _text(language: str, rng: np.random.Generator) -> str:
    words = _TEXTS["en-us" if language.startswith("en") else language]
    sentences = []
    for _ in range(int(rng.integers(3, 6))):
        picked = [str(rng.choice(words)) for _ in range(int(rng.integers(3, 10)))]
        if len(picked) > 5 and rng.random() < 0.5:
            picked[3] += ","
        sentences.append(" ".join(picked) + str(rng.choice([".", ".", ".", "?"])))
    return " ".join(sentences)


def _utterance(source: str, samples: np.ndarray, phones: list[Phone], rng: np.random.Generator) -> Spoken:
    """Puts speech into a room, and works out what the lips did."""
    speed = rng.uniform(0.86, 1.16)  # formants, pitch and pace together
    samples = resample(samples, round(len(samples) / speed))
    phones = [Phone(p.symbol, p.start / speed, p.end / speed) for p in phones]
    db = mel_db(record(samples, rng))
    # Frames of `articulate` are seen at (k + 0.5) / rate, mel columns at k / rate.
    half = 0.5 / COLUMN_RATE
    shifted = [Phone(p.symbol, p.start + half, p.end + half) for p in phones]
    rest = float(rng.uniform(0.02, 0.25)) if rng.random() < 0.6 else 0.0  # real lips often stay open in pauses
    _, motions = articulate(shifted, len(db), fps=COLUMN_RATE, seed=int(rng.integers(2**31)), rest=rest)
    starts = np.array([p.start for p in phones])
    at = np.clip(np.searchsorted(starts, np.arange(len(db)) / COLUMN_RATE, side="right") - 1, 0, len(phones) - 1)
    classes = np.array([CLASSES.index(p.symbol) for p in phones])[at]
    classes[np.arange(len(db)) / COLUMN_RATE > phones[-1].end] = CLASSES.index(PAUSE)
    return Spoken(source, db, np.stack(list(motions.values()), axis=1), classes)


def record(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A room, a microphone, noise and a level: all at random."""
    n = len(samples)
    size = n + SPEECH_RATE // 2
    frequency = np.fft.rfftfreq(size, 1 / SPEECH_RATE)
    response = 10 ** (_curve(frequency, 5.0, rng) / 20)
    if rng.random() < 0.3:
        response = response / (1 + (frequency / rng.uniform(3400, 7500)) ** 8)
    spectrum = np.fft.rfft(samples, size) * response
    if rng.random() < 0.6:
        spectrum = spectrum * np.fft.rfft(_room(rng), size)
    clean = np.fft.irfft(spectrum, size)[:n]
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=size)) * 10 ** (_curve(frequency, 8.0, rng) / 20), size)[:n]
    ratio = 10 ** (rng.uniform(12, 50) / 20)
    mixed = clean + noise * (clean.std() / (noise.std() * ratio + 1e-12))
    return mixed * (10 ** (rng.uniform(-38, -14) / 20) / (mixed.std() + 1e-12))


def _curve(frequency: np.ndarray, spread: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random gain, dB, over the octaves from 60 Hz to 8 kHz."""
    octave = np.log2(np.maximum(frequency, 60) / 60)
    return np.interp(octave, np.arange(8), rng.normal(0, spread, 8))


def _room(rng: np.random.Generator) -> np.ndarray:
    """An impulse response: the direct sound, and a noisy exponential tail."""
    decay = rng.uniform(0.1, 0.5)  # s, reverberation time
    time = np.arange(int(decay * SPEECH_RATE)) / SPEECH_RATE
    tail = rng.normal(size=len(time)) * 10 ** (-3 * time / decay)
    tail *= 10 ** (rng.uniform(-22, -6) / 20) / np.sqrt(np.sum(tail**2))
    tail[0] += 1
    return tail
