"""Keypoints of face-vid2vid: where they are in a portrait, and how a motion moves them (Wang et al., 2021).

Convention: positions [B, 15, 3] are x to the image's right, y down, z into it, in [-1, 1]; angles are in degrees.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalface.sadtalker.blocks import AntiAlias, DownBlock, UpBlock3d, widths
from vocalface.sadtalker.mapping import BINS, KEYPOINTS, Motion

TEMPERATURE = 0.1
PUBLISHED_PI = 3.14
"""The published networks were trained with this value, so that they need it."""


class KPHourglass(nn.Module):
    """A picture down to a few features, which become a volume, which grows: [B, 3, H, W] -> [B, 32, 16, H, W]."""

    def __init__(self, base: int, depth: int, blocks: int) -> None:
        super().__init__()
        levels, self.depth = widths(base, blocks), depth
        self.down_blocks = nn.Sequential()
        self.up_blocks = nn.Sequential()
        for i in range(blocks):
            self.down_blocks.add_module(f"down{i}", DownBlock(levels[i] if i else 3, levels[i + 1], 2))
            self.up_blocks.add_module(f"up{i}", UpBlock3d(levels[-1 - i], levels[-2 - i]))
        self.conv = nn.Conv2d(levels[-1], levels[-1] * depth, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up_blocks(self.conv(self.down_blocks(x)).unflatten(1, (-1, self.depth)))


class KPDetector(nn.Module):
    """A portrait -> its canonical keypoints, those of the face at rest and seen from the front; 41.9 M parameters.

    It sees the picture at a quarter of its size: 256 and 512 px work with the same weights.
    """

    def __init__(self, base: int = 32, depth: int = 16, blocks: int = 5) -> None:
        super().__init__()
        self.down = AntiAlias(4)
        self.predictor = KPHourglass(base, depth, blocks)
        self.kp = nn.Conv3d(base, KEYPOINTS, 3, 1, 1)

    def logits(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> [B, 15, 16, H / 4, W / 4]: how likely each keypoint is at each place."""
        return self.kp(self.predictor(self.down(image)))

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] RGB in [0, 1], sides divisible by 128 -> [B, 15, 3]."""
        logits = self.logits(image)
        heat = torch.softmax(logits.flatten(2) / TEMPERATURE, 2).view_as(logits)
        # Axis by axis: one product with 65,536 rows loses four digits on some processors.
        lines = (torch.linspace(-1, 1, size).to(heat) for size in reversed(logits.shape[2:]))
        shares = (heat.sum(axes) for axes in ((2, 3), (2, 4), (3, 4)))
        return torch.stack([share @ line for share, line in zip(shares, lines)], -1)


class ResBottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1, and a shortcut that is learned where the size changes."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        width = channels // 4
        self.conv1, self.norm1 = nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride, 1), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, channels, 1), nn.BatchNorm2d(channels)
        self.stride = stride
        if stride != 1:
            self.skip, self.norm4 = nn.Conv2d(channels, channels, 1, stride), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        y = torch.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return torch.relu(y + (x if self.stride == 1 else self.norm4(self.skip(x))))


class HEEstimator(nn.Module):
    """Head pose and expression of a picture: stage 1 of training and the older checkpoints use it, `animate` does not.

    The published code gives `fc_roll`'s answer as yaw and `fc_yaw`'s as roll; with those weights that is right.
    A base width below 64 is for tests and trials.
    """

    def __init__(self, base: int = 64) -> None:
        super().__init__()

        def chain(stage: int, channels: int, count: int) -> nn.Sequential:
            blocks = nn.Sequential()
            for i in range(count):
                blocks.add_module(f"b{stage}_{i}", ResBottleneck(channels))
            return blocks

        a, b, c, d, e = base, 4 * base, 8 * base, 16 * base, 32 * base
        self.conv1, self.norm1 = nn.Conv2d(3, a, 7, 2, 3), nn.BatchNorm2d(a)
        self.conv2, self.norm2 = nn.Conv2d(a, b, 1), nn.BatchNorm2d(b)
        self.block1 = chain(1, b, 3)
        self.conv3, self.norm3 = nn.Conv2d(b, c, 1), nn.BatchNorm2d(c)
        self.block2, self.block3 = ResBottleneck(c, 2), chain(3, c, 3)
        self.conv4, self.norm4 = nn.Conv2d(c, d, 1), nn.BatchNorm2d(d)
        self.block4, self.block5 = ResBottleneck(d, 2), chain(5, d, 5)
        self.conv5, self.norm5 = nn.Conv2d(d, e, 1), nn.BatchNorm2d(e)
        self.block6, self.block7 = ResBottleneck(e, 2), chain(7, e, 2)
        self.fc_roll = nn.Linear(e, BINS)
        self.fc_pitch = nn.Linear(e, BINS)
        self.fc_yaw = nn.Linear(e, BINS)
        self.fc_t = nn.Linear(e, 3)
        self.fc_exp = nn.Linear(e, 3 * KEYPOINTS)

    def forward(self, image: Tensor) -> Motion:
        """[B, 3, H, W] RGB in [0, 1] -> Motion."""
        x = F.max_pool2d(torch.relu(self.norm1(self.conv1(image))), 3, 2, 1)
        x = self.block1(torch.relu(self.norm2(self.conv2(x))))
        x = self.block3(self.block2(torch.relu(self.norm3(self.conv3(x)))))
        x = self.block5(self.block4(torch.relu(self.norm4(self.conv4(x)))))
        x = self.block7(self.block6(torch.relu(self.norm5(self.conv5(x)))))
        x = x.mean((2, 3))
        return Motion(
            yaw=self.fc_roll(x), pitch=self.fc_pitch(x), roll=self.fc_yaw(x), t=self.fc_t(x), exp=self.fc_exp(x)
        )


# -------------------------------------------------------------------------------------------------------------- motion


def degrees(logits: Tensor) -> Tensor:
    """The angle [B] that bins [B, 66] of 3 degrees from -99 on expect."""
    centres = 3 * torch.arange(BINS, dtype=logits.dtype, device=logits.device) - 99
    return torch.softmax(logits, 1) @ centres


def rotation(yaw: Tensor, pitch: Tensor, roll: Tensor, pi: float = PUBLISHED_PI) -> Tensor:
    """Rx(pitch) Ry(yaw) Rz(roll) [B, 3, 3] of angles [B] in degrees."""
    (cos_y, sin_y), (cos_p, sin_p), (cos_r, sin_r) = (
        (torch.cos(angle / 180 * pi), torch.sin(angle / 180 * pi)) for angle in (yaw, pitch, roll)
    )
    zero, one = torch.zeros_like(cos_y), torch.ones_like(cos_y)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, -1).unflatten(-1, (3, 3))

    about_x = matrix(one, zero, zero, zero, cos_p, -sin_p, zero, sin_p, cos_p)
    about_y = matrix(cos_y, zero, sin_y, zero, one, zero, -sin_y, zero, cos_y)
    about_z = matrix(cos_r, -sin_r, zero, sin_r, cos_r, zero, zero, zero, one)
    return about_x @ about_y @ about_z


def transform(
    canonical: Tensor,
    motion: Motion,
    *,
    yaw: Tensor | None = None,
    pitch: Tensor | None = None,
    roll: Tensor | None = None,
) -> Tensor:
    """Moves canonical keypoints: R x + t + offsets (SadTalker, section 3.3).

    Args:
        canonical: [B, 15, 3], or [1, 15, 3] for all frames.
        motion: of B frames. Only the vertical part of its translation counts.
        yaw, pitch, roll: [B] degrees that replace the motion's own (free view).

    Returns:
        [B, 15, 3].
    """
    angles = [
        degrees(own) if given is None else given.to(own)
        for own, given in ((motion.yaw, yaw), (motion.pitch, pitch), (motion.roll, roll))
    ]
    vertical = motion.t * motion.t.new_tensor([0, 1, 0])
    turned = canonical @ rotation(*angles).transpose(1, 2)
    return turned + vertical[:, None] + motion.exp.unflatten(1, (KEYPOINTS, 3))
