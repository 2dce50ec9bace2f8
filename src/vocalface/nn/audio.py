"""The audio trunk that Wav2Lip, SadTalker and SyncTalk's AVE share: a mel window in, 512 numbers out."""

from __future__ import annotations

import torch
from torch import nn


class ConvBlock(nn.Module):
    """Convolution, batch norm, (residual,) ReLU; parameter names as in the published checkpoints."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride=1, padding=0, residual: bool = False) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs)
        )  # fmt: skip
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv_block(x)
        return torch.relu(y + x if self.residual else y)


def audio_trunk() -> nn.Sequential:
    """[B, 1, 80, 16] log-mel windows -> [B, 512, 1, 1], >= 0; 2,812,672 parameters."""

    def same(width: int) -> ConvBlock:
        return ConvBlock(width, width, 3, 1, 1, residual=True)

    return nn.Sequential(
        ConvBlock(1, 32, 3, 1, 1), same(32), same(32),
        ConvBlock(32, 64, 3, (3, 1), 1), same(64), same(64),
        ConvBlock(64, 128, 3, 3, 1), same(128), same(128),
        ConvBlock(128, 256, 3, (3, 2), 1), same(256),
        ConvBlock(256, 512, 3, 1, 0), ConvBlock(512, 512, 1, 1, 0),
    )  # fmt: skip


class AudioEncoder(nn.Module):
    """The trunk under the name it has in checkpoints: `audio_encoder.0.conv_block.0.weight` and so on."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_encoder = audio_trunk()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """[B, 80, 16] log-mel windows, bands by columns -> [B, 512]."""
        return self.audio_encoder(windows[:, None]).flatten(1)
