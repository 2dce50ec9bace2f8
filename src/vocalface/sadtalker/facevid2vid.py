"""The renderer: a portrait warped by keypoints and painted anew (face-vid2vid with a SPADE decoder).

SadTalker, section 3.3, on Wang et al., *One-Shot Free-View Neural Talking-Head Synthesis*, 2021. The portrait becomes a
volume of features, a flow moves the volume to where the driving keypoints are, and a decoder draws the picture.
`Source` holds what depends on the portrait alone, so that a video computes it once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalface.nn.spade import SPADEResnetBlock
from vocalface.sadtalker.blocks import (
    DownBlock,
    ResBlock3d,
    SameBlock2d,
    UpBlock3d,
    coordinate_grid,
    gaussians,
    widths,
)  # fmt: skip
from vocalface.sadtalker.mapping import KEYPOINTS

MASK_FLOOR = 1e-3  # below this weight a motion counts for nothing in the flow
COMPRESSED = 4


class Source(NamedTuple):
    """A portrait as the renderer keeps it."""

    volume: Tensor  # [B, 32, 16, H / 4, W / 4]
    compressed: Tensor  # [B, 4, 16, H / 4, W / 4], what the flow is found from
    keypoints: Tensor  # [B, 15, 3]


class Flow(NamedTuple):
    """Where each cell of the driven volume comes from."""

    mask: Tensor  # [B, 16, D, h, w] weights of the background's and the 15 keypoints' motions, sum 1
    deformation: Tensor  # [B, D, h, w, 3] positions in the portrait, x y z in [-1, 1]
    occlusion: Tensor  # [B, 1, h, w] 0 where the portrait shows nothing of use


class Rendering(NamedTuple):
    """A picture and how it came about."""

    prediction: Tensor  # [B, 3, H, W] RGB in [0, 1]
    flow: Flow


class _Encoder(nn.Module):
    def __init__(self, inputs: int, levels: list[int]) -> None:
        super().__init__()
        ins = [inputs, *levels[1:-1]]
        self.down_blocks = nn.ModuleList(DownBlock(a, b, 3) for a, b in zip(ins, levels[1:]))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [x]
        for block in self.down_blocks:
            maps.append(block(maps[-1]))
        return maps


class _Decoder(nn.Module):
    def __init__(self, inputs: int, levels: list[int]) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(levels[-2::-1]):
            below = levels[-1 - i]
            self.up_blocks.append(UpBlock3d(below if i == 0 else 2 * below, width))
        self.outputs = levels[0] + inputs
        self.conv, self.norm = nn.Conv3d(self.outputs, self.outputs, 3, 1, 1), nn.BatchNorm3d(self.outputs)

    def forward(self, maps: list[Tensor]) -> Tensor:
        *skips, x = maps
        for block in self.up_blocks:
            x = torch.cat([block(x), skips.pop()], 1)
        return torch.relu(self.norm(self.conv(x)))


class Hourglass(nn.Module):
    """Down and up again through a volume's width and height, with skips: [B, C, D, h, w] -> [B, C + base, D, h, w]."""

    def __init__(self, inputs: int, base: int, blocks: int) -> None:
        super().__init__()
        levels = widths(base, blocks)
        self.encoder, self.decoder = _Encoder(inputs, levels), _Decoder(inputs, levels)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class DenseMotion(nn.Module):
    """Keypoints of portrait and frame -> the flow between them."""

    def __init__(self, volume: int, depth: int, base: int, blocks: int) -> None:
        super().__init__()
        motions = KEYPOINTS + 1
        self.compress, self.norm = nn.Conv3d(volume, COMPRESSED, 1), nn.BatchNorm3d(COMPRESSED)
        self.hourglass = Hourglass(motions * (COMPRESSED + 1), base, blocks)
        features = self.hourglass.decoder.outputs
        self.mask = nn.Conv3d(features, motions, 7, 1, 3)
        self.occlusion = nn.Conv2d(features * depth, 1, 7, 1, 3)

    def compressed(self, volume: Tensor) -> Tensor:
        """[B, 32, D, h, w] -> [B, 4, D, h, w]."""
        return torch.relu(self.norm(self.compress(volume)))

    def forward(self, compressed: Tensor, source: Tensor, driving: Tensor) -> Flow:
        """[B, 4, D, h, w], keypoints [B, 15, 3] of the portrait and of the frame -> Flow."""
        *_, depth, height, width = compressed.shape
        grid = coordinate_grid(depth, height, width, compressed)
        # Each keypoint proposes to move everything as it moved; the first proposal is to move nothing.
        shifts = F.pad(source - driving, (0, 0, 1, 0))
        motions = grid + shifts[:, :, None, None, None]  # [B, 16, D, h, w, 3]
        warped = F.grid_sample(compressed, motions.flatten(1, 2), align_corners=False).unflatten(2, (-1, depth))
        heat = F.pad(gaussians(driving, grid) - gaussians(source, grid), (0,) * 6 + (1, 0))
        proposals = torch.cat([heat[:, :, None], warped.transpose(1, 2)], 2)
        features = self.hourglass(proposals.flatten(1, 2))
        mask = torch.softmax(self.mask(features), 1)
        kept = torch.where(mask < MASK_FLOOR, torch.zeros_like(mask), mask)
        deformation = torch.einsum("bkdhw,bkdhwc->bdhwc", kept, motions)
        return Flow(mask, deformation, torch.sigmoid(self.occlusion(features.flatten(1, 2))))


class SPADEDecoder(nn.Module):
    """Warped features, which guide every layer as well, -> a picture of four times their size."""

    def __init__(self, base: int, spectral: bool) -> None:
        super().__init__()
        guide, wide, hidden = 4 * base, 8 * base, 2 * base

        def block(inputs: int, outputs: int) -> SPADEResnetBlock:
            return SPADEResnetBlock(inputs, outputs, guide, hidden=hidden, spectral=spectral)

        self.fc = nn.Conv2d(guide, wide, 3, 1, 1)
        for i in range(6):
            setattr(self, f"G_middle_{i}", block(wide, wide))
        self.up_0, self.up_1 = block(wide, guide), block(guide, base)
        self.conv_img = nn.Conv2d(base, 3, 3, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        x = self.fc(features)
        for i in range(6):
            x = getattr(self, f"G_middle_{i}")(x, features)
        for block in (self.up_0, self.up_1):
            x = block(F.interpolate(x, scale_factor=2, mode="nearest"), features)
        return torch.sigmoid(self.conv_img(F.leaky_relu(x, 0.2)))


class OcclusionAwareSPADEGenerator(nn.Module):
    """The whole renderer, 101 M parameters; pictures of 256 and 512 px go through the same layers.

    Args:
        base: width of the first layer, from which all others follow; 64 is the published one, less is for trials.
        volume, depth: channels and slices of the feature volume.
        blocks: levels of the motion hourglass; a picture's sides are divisible by 4 * 2^blocks.
        spectral: keep spectral norm as layers, to train (keys weight_orig, weight_u, weight_v). Without it the weights
            are the folded ones of `nn.spade.fold_spectral_norm`.
    """

    def __init__(
        self, base: int = 64, volume: int = 32, depth: int = 16, blocks: int = 5, *, spectral: bool = False
    ) -> None:
        super().__init__()
        self.depth = depth
        self.dense_motion_network = DenseMotion(volume, depth, base // 2, blocks)
        self.first = SameBlock2d(3, base)
        self.down_blocks = nn.ModuleList([DownBlock(base, 2 * base, 2), DownBlock(2 * base, 4 * base, 2)])
        self.second = nn.Conv2d(4 * base, volume * depth, 1)
        self.resblocks_3d = nn.Sequential()
        for i in range(6):
            self.resblocks_3d.add_module(f"3dr{i}", ResBlock3d(volume))
        self.third = SameBlock2d(volume * depth, 4 * base, slope=0.01)
        self.fourth = nn.Conv2d(4 * base, 4 * base, 1)
        self.decoder = SPADEDecoder(base, spectral)

    def encode(self, image: Tensor, keypoints: Tensor) -> Source:
        """What of a portrait all frames share.

        Args:
            image: [B, 3, H, W] RGB in [0, 1], sides divisible by 128.
            keypoints: [B, 15, 3] of the portrait, moved by its own motion.
        """
        x = self.first(image)
        for block in self.down_blocks:
            x = block(x)
        volume = self.resblocks_3d(self.second(x).unflatten(1, (-1, self.depth)))
        return Source(volume, self.dense_motion_network.compressed(volume), keypoints)

    def draw(self, source: Source, driving: Tensor) -> Rendering:
        """Draws frames.

        Args:
            source: of one portrait, or of as many as there are frames.
            driving: [B, 15, 3] keypoints of the frames.
        """
        volume, compressed, keypoints = (x.expand(len(driving), *x.shape[1:]) for x in source)
        flow = self.dense_motion_network(compressed, keypoints, driving)
        # The grids reach the border's centres and are sampled as if they reached its edge, as in training.
        warped = F.grid_sample(volume, flow.deformation, align_corners=False)
        features = self.fourth(self.third(warped.flatten(1, 2))) * flow.occlusion
        return Rendering(self.decoder(features), flow)

    def forward(self, image: Tensor, source: Tensor, driving: Tensor) -> Rendering:
        """`encode` and `draw` at once: [B, 3, H, W], keypoints [B, 15, 3] of the portrait and of the frames."""
        return self.draw(self.encode(image, source), driving)
