"""What the keypoint detector and the renderer of face-vid2vid are built from (Wang et al., 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class SameBlock2d(nn.Module):
    """Convolution 3x3, batch norm, ReLU with the slope given for what is negative."""

    def __init__(self, inputs: int, outputs: int, slope: float = 0.0) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), self.slope)


class DownBlock(nn.Module):
    """Convolution, batch norm, ReLU, and half the width and height; a volume keeps its depth."""

    def __init__(self, inputs: int, outputs: int, dimensions: int) -> None:
        super().__init__()
        self.conv = _CONV[dimensions](inputs, outputs, 3, 1, 1)
        self.norm = _NORM[dimensions](outputs)
        self.pool = nn.AvgPool2d(2) if dimensions == 2 else nn.AvgPool3d((1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(torch.relu(self.norm(self.conv(x))))


class UpBlock3d(nn.Module):
    """Twice the width and height, then convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv3d(inputs, outputs, 3, 1, 1), nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest")
        return torch.relu(self.norm(self.conv(x)))


class ResBlock3d(nn.Module):
    """Two pre-activated convolutions and what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(channels, channels, 3, 1, 1), nn.Conv3d(channels, channels, 3, 1, 1)
        self.norm1, self.norm2 = nn.BatchNorm3d(channels), nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(torch.relu(self.norm1(x)))
        return x + self.conv2(torch.relu(self.norm2(y)))


class AntiAlias(nn.Module):
    """A picture made smaller by a whole factor: Gaussian blur, then every n-th pixel. The Gaussian is no parameter."""

    weight: Tensor

    def __init__(self, factor: int, persistent: bool = True) -> None:
        super().__init__()
        self.factor = factor
        sigma = (factor - 1) / 2
        self.radius = round(4 * sigma)
        x = torch.arange(2 * self.radius + 1, dtype=torch.float32) - self.radius
        line = torch.exp(-(x**2) / (2 * sigma**2)) if sigma else torch.ones(1)
        kernel = line[:, None] * line[None]
        self.register_buffer("weight", (kernel / kernel.sum()).expand(3, 1, -1, -1).clone(), persistent=persistent)

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 3, H / n, W / n]."""
        padded = F.pad(image, (self.radius,) * 4)
        return F.conv2d(padded, self.weight, stride=self.factor, groups=3)


def coordinate_grid(depth: int, height: int, width: int, like: Tensor) -> Tensor:
    """[D, H, W, 3] positions x, y, z in [-1, 1]; the outermost cells lie on the border itself."""

    def axis(count: int) -> Tensor:
        return 2 * torch.arange(count, dtype=like.dtype, device=like.device) / max(count - 1, 1) - 1

    z, y, x = torch.meshgrid(axis(depth), axis(height), axis(width), indexing="ij")
    return torch.stack([x, y, z], -1)


def gaussians(keypoints: Tensor, grid: Tensor, variance: float = 0.01) -> Tensor:
    """A bump, 1 high, at every keypoint: [B, K, 3] and [D, H, W, 3] -> [B, K, D, H, W]."""
    offsets = grid - keypoints[:, :, None, None, None]
    return torch.exp(-0.5 * offsets.square().sum(-1) / variance)


def widths(base: int, blocks: int) -> list[int]:
    """Channels of an hourglass from its outermost level to its innermost: 32 -> 32, 64, ..., 1024 at five blocks."""
    return [base * 2**i for i in range(blocks + 1)]
