"""How far the lips of speech swing, set at the end of a training: regression says too little."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vocalface.hmtalker.model import PATHS, Swing
from vocalface.hmtalker.scene import median_face
from vocalface.hmtalker.state import Run
from vocalface.types import LOWER_AUS

INNER_ABOVE, INNER_BELOW = [82, 13, 312], [87, 14, 317]  # landmarks of the inner lips' middle
PARTING = [LOWER_AUS.index("AU25"), LOWER_AUS.index("AU26")]
LIP_GAUSSIANS = 40  # of either lip, that tell how far it opens


@torch.no_grad()
def match_amplitude(run: Run, limit: float = 1.4) -> Tensor | None:
    """Give predicted action units the spread of the seen ones over the training frames; returns the gains [10].

    Regression under noisy features shrinks towards the mean, and lips then move too little. The gain sits in the
    mapper's last layer, about each unit's mean, between 1 and `limit`. What speech hardly tells (correlation under
    0.5 where the rest of the clip foretells it) stays small: there the mean is the better guess.
    """
    field = run.face_net
    if run.config.mapper != "a2am" or not field.explicit.keep:
        return None
    rows = run.trainable
    seen = run.explicit[rows]
    count = seen.shape[1]
    said = field.motion(run.windows(rows), run.upper[rows], seen, "audio").c_ea[:, -count:]
    gain = (seen.std(0) / (said.std(0) + 1e-3)).clamp(1, limit)
    gain[(said.std(0) < 0.05) | (torch.from_numpy(run.told).to(gain) < 0.5)] = 1
    last = field.mapper.layers[2]
    last.weight[-count:] *= gain[:, None]
    last.bias[-count:] = gain * last.bias[-count:] + (1 - gain) * said.mean(0)
    return gain


@torch.no_grad()
def match_swing(run: Run, limit: float = 1.6) -> Swing:
    """Let the lips of speech open nearly as far as those of seen action units, over the training frames.

    What is spoken is fused from predicted units and from speech itself, and the second shrinks towards the mean as
    well. The gain is that of the opening: how much further apart the inner lips' Gaussians move, 1 to `limit`.
    Pictures are nearest to the truth when the swing is r times the seen one, r how well speech tells it (of AU25
    and AU26, where the rest of the clip foretells them); lips look alive when it is whole. Between both, sqrt(r).
    """
    m, field = run.material, run.face_net
    field.swing = None
    rows = run.trainable[:: max(len(run.trainable) // 400, 1)]
    lips = median_face(m, rows)
    means = run.face.means.detach()

    def near(points: list[int]) -> Tensor:
        at = torch.from_numpy(lips[points]).to(means)
        return torch.cdist(means[:, :2], at[:, :2]).min(1).values.topk(LIP_GAUSSIANS, largest=False).indices

    regions = field.regions(run.face)
    above, below = ([r[near(points)] for r in regions] for points in (INNER_ABOVE, INNER_BELOW))

    def spread(c_f: Tensor) -> float:
        opening = [
            field.deform(above, c, run.upper[i]).means[:, 1].mean()
            - field.deform(below, c, run.upper[i]).means[:, 1].mean()
            for c, i in zip(c_f, rows)
        ]
        return float(torch.stack(opening).std())

    motion = {p: field.motion(run.windows(rows), run.upper[rows], run.explicit[rows], p) for p in PATHS[::2]}
    said, seen = motion["audio"].c_f, spread(motion["vanilla"].c_f)
    if run.config.explicit == "au":
        seen *= float(np.sqrt(np.clip(run.told[PARTING].mean(), 0.25, 1)))
    swing = Swing(1.0, said.mean(0))
    for _ in range(3):  # the field is no linear one
        swing.gain = float(np.clip(swing.gain * seen / (spread(swing(said)) + 1e-9), 1, limit))
    field.swing = swing
    return swing
