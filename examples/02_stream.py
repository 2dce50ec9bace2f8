"""Drive a head from sound that arrives in pieces: frames come out as soon as their look-ahead is there.

python examples/02_stream.py HEAD.vface SPEECH.wav
"""

import sys

from vocalface import media
from vocalface.hmtalker.drive import Options, SpeechControls, drive
from vocalface.hmtalker.head import Head
from vocalface.hmtalker.runtime import Runtime

head = Head.load(sys.argv[1])
sound = media.read_sound(sys.argv[2], 16_000)


def microphone():
    """A tenth of a second at a time, as a sound card gives it."""
    for start in range(0, len(sound.samples), 1_600):
        yield sound.samples[start : start + 1_600]


controls = SpeechControls(Runtime(head), head.feature_name, Options())
print(f"look-ahead: {controls.look_ahead} frames = {controls.look_ahead / 25:.2f} s")
with media.VideoWriter("stream.mp4", head.camera.width, head.camera.width, sound=sound) as video:
    for frame in drive(head, microphone(), Options(upper="blink")):
        video.write(frame.image)
print("stream.mp4")
