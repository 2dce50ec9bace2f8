"""Lips are read on drawn pictures: the right face, the right sound, and a way back to the expression alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import Moving
from torch import nn

from vocalface.errors import ConfigError
from vocalface.sadtalker import train_expnet, train_facevid2vid, train_mapping
from vocalface.sadtalker.lip_reading import LipReader
from vocalface.sadtalker.mapping import MappingNet


class Talking(Moving):
    """With landmarks about its middle, and a sound whose columns count."""

    def __init__(self, seed):
        super().__init__(seed, side=256)
        self.landmarks = np.zeros((self.frames, 478, 3), np.float32)
        self.landmarks[:, :, 0] = np.linspace(80, 176, 478)
        self.landmarks[:, :, 1] = np.linspace(64, 192, 478)

    def mel(self, start, stop):
        return np.arange(start, stop, dtype=np.float32)[:, None, None, None] * np.ones((1, 80, 16), np.float32)


class Sync(nn.Module):
    """Brighter lips, nearer to the voice."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, mel, faces):
        self.mel, self.faces = mel, faces
        assert mel.shape == (1, 1, 80, 16) and faces.shape == (1, 15, 48, 96)
        bright = self.weight * faces.mean((1, 2, 3))
        return torch.tensor([[1.0, 0.0]]), torch.stack([bright, (1 - bright**2).clamp(min=0).sqrt()], 1)


@pytest.fixture(scope="module")
def reader():
    torch.manual_seed(0)
    networks = train_facevid2vid.Renderer(replace(train_facevid2vid.PRESETS["tiny"], size=32, base=4))
    renderer = train_mapping.Renderer(networks["kp_extractor"], networks["generator"], None, 32)
    return LipReader([Talking(0), Talking(1)], renderer, MappingNet(70, 8), Sync())


def test_expnet_learns_from_what_is_read_and_what_reads_stays(reader):
    clips = [train_expnet.Clip(r.mel(0, r.frames), r.coefficients[:, :64]) for r in reader.runs]
    config = replace(train_expnet.PRESETS["tiny"], frames=5, batch=2, coefficients=0, lip_reading=1)
    trainer = train_expnet.Trainer(clips, config, lip_reading=reader)
    assert trainer.terms["lip reading"].endswith("in place of a lip-reading network")
    batch, before = trainer.batch(0), trainer.net.mapping1.weight.clone()
    losses = trainer.step(0)
    assert losses["lip_reading"] > 0 and not torch.equal(trainer.net.mapping1.weight, before)
    # SyncNet hears from the stretch's first frame on: that is what the frame two later hears.
    assert reader.syncnet.mel[0, 0, 0, 0] == batch.places[0][1] + 2
    frozen = (reader.renderer.generator, reader.renderer.keypoints, reader.mapping, reader.syncnet)
    assert all(p.grad is None and not p.requires_grad for n in frozen for p in n.parameters())
    other = LipReader(reader.runs, reader.renderer, MappingNet(70, 8), Sync())
    assert train_expnet.Trainer(clips, config, lip_reading=other).told != trainer.told


def test_the_face_is_wav2lips_and_blue_comes_first(reader):
    made = torch.from_numpy(reader.runs[0].coefficients[:5, :64].copy())
    with torch.no_grad():
        faces = reader.mouths(reader.runs[0], made)
        again = reader.mouths(reader.runs[0], made.roll(1, 0))
    assert faces.shape == (5, 3, 96, 96) and faces.min() >= 0 and faces.max() <= 1
    assert not torch.equal(faces, again), "expressions move the picture"
    draw = reader.renderer.generator.draw

    class Red:
        prediction = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(5, -1, 32, 32)

    reader.renderer.generator.draw = lambda source, driving: Red
    try:
        assert reader.mouths(reader.runs[0], made)[0, :, 50, 50].tolist() == [0, 0, 1]
    finally:
        reader.renderer.generator.draw = draw


def test_other_stretches_are_refused(reader):
    batch = train_expnet.Batch(torch.zeros(1, 4, 1, 80, 16), *[None] * 4, [(0, 0)])
    with pytest.raises(ConfigError, match="5 frames, not 4"):
        reader(torch.zeros(1, 4, 64), batch)
