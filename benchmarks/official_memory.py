"""Peak memory of `animate --renderer official` for speech of different lengths, each in a process of its own.

python benchmarks/official_memory.py --minutes 1 10
python benchmarks/official_memory.py --minutes 1 10 60

The whole way, from the sound file to the video, but on TINY networks of random weights and pictures of 32 px: what is
measured is what waits between the stages, not the networks. Goal: ten minutes within 10 % of one.
"""

import argparse

from peak_memory import table

CHILD = """
import sys
import numpy as np
import torch
from torch import nn
from vocalface import media
from vocalface.observe.landmarks import Face
from vocalface.presenter import landmarks as places
from vocalface.presenter.face import topology
from vocalface.presenter.scene import rest_pose
from vocalface.sadtalker import official
from vocalface.sadtalker.expnet import ExpNet
from vocalface.sadtalker.facevid2vid import OcclusionAwareSPADEGenerator
from vocalface.sadtalker.keypoints import KPDetector
from vocalface.sadtalker.mapping import MappingNet
from vocalface.sadtalker.posevae import Audio2Pose
from vocalface.types import Camera

class Recon(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(147, 257)
    def forward(self, face):
        return 0.3 * self.layer(nn.functional.avg_pool2d(face, 32).flatten(1))

def ear():
    last = nn.Unflatten(1, (512, 1, 1))
    return nn.Sequential(nn.AvgPool2d((16, 4)), nn.Flatten(), nn.Linear(20, 512), nn.ReLU(), last)

torch.manual_seed(0)
whole = sys.argv[3] == "full"
parts = [Recon(), ExpNet(), Audio2Pose(), MappingNet(73 if whole else 70, 16), KPDetector(4, 4, 2),
         OcclusionAwareSPADEGenerator(4, 4, 4, 2)]
parts[1].audio_encoder = ear()
parts[2].audio_encoder.audio_encoder = ear()
networks = official.Networks(*(p.eval().requires_grad_(False) for p in parts), size=32)
camera = Camera(240, 240, 48, 48, 96, 96)
points = places.project(places.on_surface(topology().rest, np.zeros(2)), rest_pose(), camera)
picture = media.write_image(sys.argv[2] + ".png", np.full((96, 96, 3), 120, np.uint8))
found = lambda image: [Face((points * (len(image) / 96)).astype(np.float32), np.zeros(52, np.float32))]
made = official.animate(picture, sys.argv[1], sys.argv[2], networks=networks, mode=sys.argv[3], search=found, batch=16)
frames, rate = made.frames, made.fps
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--crop", default="full", help="see `animate --crop`")
    a = parser.parse_args()
    print("TINY networks, 32 px")
    table(CHILD, lambda wav, video: (wav, video, a.crop), a.minutes)


if __name__ == "__main__":
    main()
