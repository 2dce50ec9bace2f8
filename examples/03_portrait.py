"""One portrait and speech: a frame of the presenter speaks in another voice, and a strip of the video as a picture
(wants MediaPipe's model files: vocalface fetch).

python examples/03_portrait.py /tmp/example
"""

import sys
from pathlib import Path

import numpy as np

from vocalface import media, presenter
from vocalface.presenter import voice
from vocalface.sadtalker.direction import Direction
from vocalface.sadtalker.drive import animate
from vocalface.sadtalker.motion import poses

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example")
folder.mkdir(parents=True, exist_ok=True)
presenter.make(folder, seconds=1, size=512, seed=2)
portrait = media.write_image(folder / "portrait.png", next(iter(media.open_clip(folder / "presenter.mp4").at(25))))
said = voice.speak(voice.script(6, seed=5), voice="cleo", seed=5, rate=16_000)
speech = media.write_sound(folder / "speech.wav", said.sound)
made = animate(portrait, speech, folder / "portrait.mp4", direction=Direction(yaw=(0, -10, 12)))
print(f"{made.frames} frames, {made.fps:.0f} a second: {made.video}")

moves = list(poses([said.sound.samples]))
third = len(moves) // 3
widest = [k * third + int(np.argmax([m.aperture for m in moves[k * third : (k + 1) * third]])) for k in range(3)]
closed = int(np.argmax([m.blink for m in moves]))
frames = list(media.open_clip(made.video).at(25))
shown = [media.read_image(portrait), *(frames[i] for i in sorted([*widest, closed]))]
strip = np.concatenate([media.resize(np.ascontiguousarray(f[40:424, 64:448]), 256, 256) for f in shown], axis=1)
print(media.write_image(folder / "animate.png", strip))
