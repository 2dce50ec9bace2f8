"""L_read of ExpNet (SadTalker, section 3.1), with networks that can be had.

The paper lets a lip-reading network read a rendered face. Here the renderer draws the portrait with the expressions and
Wav2Lip's synchrony network says whether these lips belong to the voice. Both are frozen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalface.errors import ConfigError
from vocalface.nn.wav2lip import FACE, SYNC_FRAMES, lower_halves, sync_loss
from vocalface.observe.corpus import SIDE, Run
from vocalface.sadtalker.keypoints import transform
from vocalface.sadtalker.mapping import WINDOW, MappingNet, window
from vocalface.sadtalker.teachers import face_box
from vocalface.sadtalker.train_expnet import Batch
from vocalface.sadtalker.train_facevid2vid import picture
from vocalface.sadtalker.train_mapping import Renderer


class LipReader:
    """See `train_expnet.LipReading`.

    Args:
        runs: the trainer's clips, in its order.
        renderer, mapping: draw a portrait by coefficients of the runs' kind.
        syncnet: `nn.wav2lip.SyncNetColor`.
        stretches: of a step's, whose lips are read; drawing is dear.
    """

    name = "Wav2Lip's synchrony network on drawn pictures, in place of a lip-reading network"

    def __init__(
        self, runs: Sequence[Run], renderer: Renderer, mapping: MappingNet, syncnet: nn.Module, device: str = "cpu",
        stretches: int = 1,
    ) -> None:  # fmt: skip
        self.runs, self.renderer, self.device, self.stretches = runs, renderer.to(device), device, stretches
        self.mapping, self.syncnet = (n.requires_grad_(False).eval().to(device) for n in (mapping, syncnet))
        sums = [float(p.double().sum()) for n in (mapping, syncnet) for p in n.parameters()]
        self.digest = hashlib.sha256(repr((sums, renderer.digest, stretches)).encode()).hexdigest()[:16]

    def __call__(self, made: Tensor, batch: Batch) -> Tensor:
        """Expression [B, 5, 64] -> scalar. Raises ConfigError for stretches of another length."""
        if made.shape[1] != SYNC_FRAMES:
            raise ConfigError(
                f"lips are read over {SYNC_FRAMES} frames, not {made.shape[1]}", "frames", f"--set frames={SYNC_FRAMES}"
            )
        losses = []
        for expression, mel, (row, _) in zip(made[: self.stretches], batch.mel, batch.places):
            faces = self.mouths(self.runs[row], expression)
            # The window of the third frame begins where the stretch begins, as SyncNet's does.
            voice, lips = self.syncnet(mel[SYNC_FRAMES // 2][None], lower_halves(faces[None].transpose(1, 2)))
            losses.append(sync_loss(voice, lips))
        return torch.stack(losses).mean()

    def mouths(self, run: Run, expression: Tensor) -> Tensor:
        """Faces [T, 3, 96, 96], blue first, of the run's portrait with expressions [T, 64]."""
        size, net = self.renderer.size, self.renderer
        row = torch.from_numpy(np.array(run.coefficients[0])).to(self.device)[: self.mapping.channels]
        image = torch.from_numpy(picture(run.face(0), size))[None].to(self.device)
        rows = torch.cat([expression, row[None, expression.shape[1] :].expand(len(expression), -1)], 1)
        with torch.no_grad():
            canonical = net.keypoints(image)
            here = transform(canonical, self.mapping(row[None, :, None].expand(-1, -1, WINDOW)))
            source = net.generator.encode(image, here)
        motions = self.mapping(window(rows, torch.arange(len(rows))))
        drawn = net.generator.draw(source, transform(canonical, motions)).prediction
        x0, y0, x1, y1 = (round(v * size / SIDE) for v in face_box(np.asarray(run.landmarks[0])))
        face = drawn[..., y0:y1, x0:x1]
        return F.interpolate(face, (FACE, FACE), mode="bilinear", antialias=True, align_corners=False).flip(1)
