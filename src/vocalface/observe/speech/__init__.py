"""Speech features behind one interface: `extractor(name)` gives an object that turns sound into rows per frame.

| name | row | look-ahead | needs |
|---|---|---|---|
| `articulatory` | hidden layer of our own network, and normalised log-mel | 6 frames | nothing |
| `mel` | log-mel of both halves of the frame | 1 | nothing |
| `ave` | 512, the audio-visual encoder of SyncTalk | 3 | its published weights, torch |
| `hubert` | 2 x 1024, HuBERT large | 500 (it works on blocks of 20 s) | its published weights, transformers |
| `deepspeech` | 16 x 29 from a file | the whole | a .npy table made with DeepSpeech |
"""

from __future__ import annotations

from vocalface.errors import ConfigError
from vocalface.observe.speech.feature import FeatureStream, SpeechFeature

NAMES = ("articulatory", "mel", "ave", "hubert", "deepspeech")
"""The names `extractor` knows; the first is the default."""

__all__ = ["NAMES", "FeatureStream", "SpeechFeature", "extractor"]


def extractor(name: str = NAMES[0], path: str | None = None) -> SpeechFeature:
    """The speech feature called `name`.

    Args:
        name: one of `NAMES`.
        path: weights of `articulatory`, `ave` and `hubert` in place of those in the package or among the assets;
            the table of `deepspeech`, which has no default.

    Raises:
        ConfigError: unknown name, or a Python package is missing.
        AssetError: weights that are absent or altered.
    """
    if name == "articulatory":
        from vocalface.observe.speech.articulatory import ArticulatoryFeature

        return ArticulatoryFeature(path)
    if name == "mel":
        from vocalface.observe.speech.mel import MelFeature

        return MelFeature()
    if name == "ave":
        from vocalface.observe.speech.ave import AveFeature

        return AveFeature(path)
    if name == "hubert":
        from vocalface.observe.speech.hubert import HubertFeature

        return HubertFeature(path)
    if name == "deepspeech":
        from vocalface.observe.speech.deepspeech import DeepSpeechFeature

        return DeepSpeechFeature(path)
    raise ConfigError(f"Unknown speech feature {name!r}", "speech feature", f"use one of: {', '.join(NAMES)}")
