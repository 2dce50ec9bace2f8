"""MappingNet: face model coefficients to the renderer's head pose and expression (SadTalker, section 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RADIUS = 13
"""Frames that the network sees to either side of the one it describes."""
WINDOW = 2 * RADIUS + 1
KEYPOINTS = 15
BINS = 66
"""Classes of each head angle, 3 degrees apart from -99."""


class Motion(NamedTuple):
    """What moves canonical keypoints: the answer of MappingNet and of HEEstimator."""

    yaw: Tensor  # [B, 66] logits over bins of 3 degrees
    pitch: Tensor  # [B, 66]
    roll: Tensor  # [B, 66]
    t: Tensor  # [B, 3]
    exp: Tensor  # [B, 45] offsets of 15 keypoints


class MappingNet(nn.Module):
    """A window of 27 frames' coefficients -> one frame's Motion; 10.2 M parameters.

    `channels` is 70 (64 expression, 3 angles, 3 translations) for the checkpoint 00229 of cropped portraits and 73 (and
    3 of the crop) for 00109 of whole pictures. A width below 1024 is for tests and trials.
    """

    def __init__(self, channels: int = 70, width: int = 1024) -> None:
        super().__init__()
        self.channels = channels
        self.first = nn.Sequential(nn.Conv1d(channels, width, 7))
        for i in range(3):
            setattr(self, f"encoder{i}", nn.Sequential(nn.LeakyReLU(0.1), nn.Conv1d(width, width, 3, dilation=3)))
        self.fc_roll = nn.Linear(width, BINS)
        self.fc_pitch = nn.Linear(width, BINS)
        self.fc_yaw = nn.Linear(width, BINS)
        self.fc_t = nn.Linear(width, 3)
        self.fc_exp = nn.Linear(width, 3 * KEYPOINTS)

    def forward(self, coefficients: Tensor) -> Motion:
        """[B, 70 or 73, T >= 25] -> Motion of B frames; T is 27, the frame in question in the middle."""
        x = self.first(coefficients)  # no padding anywhere: 27 -> 21 -> 15 -> 9 -> 3
        for encoder in (self.encoder0, self.encoder1, self.encoder2):
            x = encoder(x) + x[..., 3:-3]
        x = F.adaptive_avg_pool1d(x, 1).flatten(1)
        return Motion(self.fc_yaw(x), self.fc_pitch(x), self.fc_roll(x), self.fc_t(x), self.fc_exp(x))


def window(coefficients: Tensor, frame: int | Tensor) -> Tensor:
    """The windows that MappingNet reads around given frames.

    Args:
        coefficients: [T, C].
        frame: indices [B], or one of them.

    Returns:
        [B, C, 27]; before the first frame and after the last one they repeat.
    """
    device = coefficients.device
    centre = torch.as_tensor(frame, device=device).reshape(-1, 1)
    indices = centre + torch.arange(-RADIUS, RADIUS + 1, device=device)
    return coefficients[indices.clamp(0, len(coefficients) - 1)].transpose(1, 2)
