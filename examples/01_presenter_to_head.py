"""Footage with known truth, a small head, and a sentence that the head never heard (about two minutes on two cores).

python examples/01_presenter_to_head.py /tmp/example
"""

import sys
from pathlib import Path

from vocalface import media, presenter
from vocalface.hmtalker.drive import speak
from vocalface.hmtalker.train import train
from vocalface.presenter import voice

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example")
folder.mkdir(parents=True, exist_ok=True)
observations = presenter.make(folder, seconds=12, size=128, seed=3)
head = train(observations, folder / "head.vface", config="tiny", consent="a synthetic person")
print({k: v for k, v in head.metrics["val"].items() if isinstance(v, float)})
said = voice.speak(voice.script(4, seed=8), voice="ben", seed=8, rate=16_000)
media.write_sound(folder / "speech.wav", said.sound)
print(speak(head, folder / "speech.wav", folder / "speaking.mp4"))
