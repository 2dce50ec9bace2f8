"""The multi-scale patch discriminator that face-vid2vid trains against (Wang et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from vocalface.nn.spade import maybe_spectral
from vocalface.sadtalker.blocks import AntiAlias


class Judgement(NamedTuple):
    """Of one scale."""

    features: list[Tensor]  # one a block, for feature matching
    prediction: Tensor  # [B, 1, h, w], > 0 where it looks real


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, norm: bool, pool: bool, spectral: bool) -> None:
        super().__init__()
        self.conv = maybe_spectral(spectral)(nn.Conv2d(inputs, outputs, 4))
        self.norm = nn.InstanceNorm2d(outputs, affine=True) if norm else None
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        x = F.leaky_relu(x, 0.2)
        return F.avg_pool2d(x, 2) if self.pool else x


class Discriminator(nn.Module):
    """One scale: four blocks of 4x4 convolutions, all but the last of which halve the picture."""

    def __init__(self, base: int = 32, blocks: int = 4, spectral: bool = True) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(
            _Block(
                base * 2**i if i else 3,
                base * 2 ** (i + 1),
                norm=i > 0,
                pool=i < blocks - 1,
                spectral=spectral,
            )
            for i in range(blocks)
        )
        self.conv = maybe_spectral(spectral)(nn.Conv2d(base * 2**blocks, 1, 1))

    def forward(self, image: Tensor) -> Judgement:
        """[B, 3, H, W] in [0, 1] -> Judgement."""
        features = []
        for block in self.down_blocks:
            image = block(image)
            features.append(image)
        return Judgement(features, self.conv(image))


class MultiScaleDiscriminator(nn.Module):
    """Discriminators of the picture at whole, half, ... size; the published training uses the whole alone."""

    def __init__(self, factors: Sequence[int] = (1,), base: int = 32, blocks: int = 4, spectral: bool = True) -> None:
        super().__init__()
        # The checkpoints name a scale as 1 or, for half size, 0-5.
        self.names = [f"{1 / factor:g}".replace(".", "-") for factor in factors]
        self.downs = nn.ModuleList(AntiAlias(factor, persistent=False) for factor in factors)
        self.discs = nn.ModuleDict({name: Discriminator(base, blocks, spectral) for name in self.names})

    def forward(self, image: Tensor) -> list[Judgement]:
        """[B, 3, H, W] in [0, 1] -> a Judgement a scale."""
        return [self.discs[name](down(image)) for name, down in zip(self.names, self.downs)]
