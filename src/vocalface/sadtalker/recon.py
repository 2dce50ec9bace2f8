"""Deep3DFaceRecon: an aligned face to the coefficients of the face model (Deng et al., 2019)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

SIDE = 224
"""Side of the aligned face, px."""
HEADS = {"id": 80, "exp": 64, "tex": 80, "angle": 3, "gamma": 27, "shift": 2, "depth": 1}
"""The seven output layers, in order; `shift` and `depth` are the translation."""
COEFFICIENTS = sum(HEADS.values())


class FaceCoefficients(NamedTuple):
    """What a face is made of in the Basel face model of 2009."""

    id: Tensor  # [B, 80]
    exp: Tensor  # [B, 64]
    tex: Tensor  # [B, 80]
    angle: Tensor  # [B, 3] radians about x, y, z: pitch, yaw, roll; R = Rz Ry Rx
    gamma: Tensor  # [B, 27] light, 9 spherical harmonics of red, green and blue
    trans: Tensor  # [B, 3] of the face before a camera at distance 10


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """[B, 3, H, W] -> [B, 2048, 1, 1]; keys as torchvision's, without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for i, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
            layer = []
            for j in range(blocks):
                layer.append(Bottleneck(inputs, width, stride=2 if i > 0 and j == 0 else 1))
                inputs = 4 * width
            setattr(self, f"layer{i + 1}", nn.Sequential(*layer))

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return x.mean((2, 3), keepdim=True)


class FaceRecon(nn.Module):
    """An aligned face -> 257 coefficients; 24 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet50()
        self.final_layers = nn.ModuleList(nn.Conv2d(2048, width, 1) for width in HEADS.values())

    def forward(self, face: Tensor) -> Tensor:
        """[B, 3, 224, 224] RGB in [0, 1], no mean taken off -> [B, 257]; `split` names the parts."""
        features = self.backbone(face)
        return torch.cat([layer(features) for layer in self.final_layers], 1).flatten(1)


def split(coefficients: Tensor) -> FaceCoefficients:
    """[B, 257] -> its parts."""
    return FaceCoefficients(*coefficients.split([80, 64, 80, 3, 27, 3], dim=-1))


def motion_coefficients(coefficients: Tensor, crop: Tensor) -> Tensor:
    """What SadTalker keeps of a frame: expression, angles, translation and the alignment's scale and shift.

    Args:
        coefficients: [B, 257].
        crop: [B, 3] scale, x and y of the five-point alignment.

    Returns:
        [B, 73].
    """
    parts = split(coefficients)
    return torch.cat([parts.exp, parts.angle, parts.trans, crop.to(coefficients)], -1)
