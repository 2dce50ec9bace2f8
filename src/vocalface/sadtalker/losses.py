"""What face-vid2vid and MappingNet are trained with (Wang et al., 2021, section 3.4; weights in the configurations).

Pictures are [B, 3, H, W] in [0, 1], keypoints [B, 15, 3] in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalface.errors import AssetError
from vocalface.nn.gradient import gradient_l1
from vocalface.sadtalker.blocks import AntiAlias
from vocalface.sadtalker.discriminator import Judgement
from vocalface.sadtalker.keypoints import degrees
from vocalface.sadtalker.mapping import Motion

VGG19 = "vgg/vgg19-dcbb9e9d.pth"
"""torchvision's ImageNet weights, under the name they have in an assets folder."""
_TAPS = (1, 6, 11, 20, 29)  # the first ReLU of each of the five blocks
_CHEEK = 0.33  # mean depth of the keypoints


class Vgg19(nn.Module):
    """Features of a picture at five depths; frozen, keys as torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1)):
            if layers:
                layers.append(nn.MaxPool2d(2, 2))
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        x, out = (image - self.mean) / self.std, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in _TAPS:
                out.append(x)
        return out

    def load_published(self, state: Mapping[str, Tensor]) -> Vgg19:
        """torchvision's state dict; what lies behind relu5_1 is left out. Raises AssetError when it is another's."""
        wanted = self.state_dict()
        found = {k: v for k, v in state.items() if k in wanted and v.shape == wanted[k].shape}
        if missing := sorted(set(wanted) - set(found)):
            raise AssetError("these are not the weights of VGG-19", missing[0], f"use torchvision's {VGG19}")
        self.load_state_dict(found)
        return self


class Perceptual(nn.Module):
    """Distance of two pictures at scales 1, 1/2, 1/4 and 1/8.

    With VGG-19: L1 of its features, summed over five depths. Without: the multi-scale gradient term and L1 of the
    pictures themselves, which is another measure, and `name` says so.
    """

    def __init__(self, vgg: Vgg19 | None = None, scales: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__()
        self.vgg = vgg
        self.downs = nn.ModuleList(AntiAlias(factor, persistent=False) for factor in scales)
        self.name = "VGG-19" if vgg is not None else "off: no VGG-19; multi-scale gradients and L1 in its place"

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        if self.vgg is None:
            return gradient_l1(made.movedim(1, -1), wanted.movedim(1, -1), 4) + (made - wanted).abs().mean()
        total = made.new_zeros(())
        for down in self.downs:
            for a, b in zip(self.vgg(down(made)), self.vgg(down(wanted))):
                total = total + (a - b.detach()).abs().mean()
        return total


# ---------------------------------------------------------------------------------------------------- adversarial terms
def fooling(judged: Sequence[Judgement]) -> Tensor:
    """The maker's hinge loss."""
    return sum(-j.prediction.mean() for j in judged)


def telling(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """The discriminator's hinge loss."""
    return sum(
        torch.relu(1 - r.prediction).mean() + torch.relu(1 + f.prediction).mean() for r, f in zip(real, fake)
    )  # fmt: skip


def feature_matching(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """L1 between what the discriminator sees in both."""
    pairs = [(a, b) for r, f in zip(real, fake) for a, b in zip(r.features, f.features)]
    return sum((a.detach() - b).abs().mean() for a, b in pairs)


# ------------------------------------------------------------------------------------------------------------ keypoints
def keypoint_prior(keypoints: Tensor, apart: float = 0.1) -> Tensor:
    """Keypoints keep a squared distance of `apart` and lie at a mean depth of 0.33."""
    distance = (keypoints[:, :, None] - keypoints[:, None]).square().sum(-1)  # [B, 15, 15]
    itself = torch.eye(distance.shape[-1], dtype=torch.bool, device=distance.device)
    close = torch.relu(apart - distance).masked_fill(itself, 0)
    return close.sum((1, 2)).mean() + (keypoints[..., 2].mean(1) - _CHEEK).abs().mean()


def head_pose(motion: Motion, angles: Tensor) -> Tensor:
    """L1 distance of the head's angles, degrees, the three together; `angles` [B, 3] yaw, pitch, roll."""
    found = torch.stack([degrees(motion.yaw), degrees(motion.pitch), degrees(motion.roll)], 1)
    return (found - angles).abs().sum(1).mean()


def deformation_prior(motion: Motion) -> Tensor:
    """Expression offsets are small: L1 norm of the 45."""
    return motion.exp.abs().sum(1).mean()


class Warp:
    """A random smooth motion of the picture's plane: affine, and thin plate splines over control points.

    Args:
        count: of pictures.
        generator: on the CPU.
        affine, bend: standard deviations of the affine entries and of the splines' weights.
    """

    def __init__(
        self, count: int, generator: torch.Generator, *, affine: float = 0.05, bend: float = 0.005, points: int = 5
    ) -> None:
        noise = torch.randn(count, 2, 3, generator=generator)
        self.affine = affine * noise + torch.eye(2, 3)
        self.weights = bend * torch.randn(count, points * points, generator=generator)
        line = torch.linspace(-1, 1, points)
        self.controls = torch.cartesian_prod(line, line).flip(-1)  # [P, 2] x, y

    def part(self, rows: Sequence[int] | Tensor, device: str) -> Warp:
        """The motions of some pictures."""
        out = object.__new__(Warp)
        out.affine, out.weights = self.affine[rows].to(device), self.weights[rows].to(device)
        out.controls = self.controls.to(device)
        return out

    def __call__(self, places: Tensor) -> Tensor:
        """Where places [B, N, 2] in [-1, 1] come from."""
        moved = places @ self.affine[:, :, :2].transpose(1, 2) + self.affine[:, None, :, 2]
        distance = (places[:, :, None] - self.controls).abs().sum(-1)  # [B, N, P]
        bend = distance.square() * torch.log(distance + 1e-6)
        return moved + (bend * self.weights[:, None]).sum(-1, keepdim=True)

    def picture(self, image: Tensor) -> Tensor:
        """A picture as this motion leaves it, [B, 3, H, W]."""
        *_, height, width = image.shape
        lines = (torch.linspace(-1, 1, n, device=image.device, dtype=image.dtype) for n in (height, width))
        y, x = torch.meshgrid(*lines, indexing="ij")
        grid = torch.stack([x, y], -1).view(1, -1, 2).expand(len(image), -1, -1)
        return F.grid_sample(
            image, self(grid).unflatten(1, (height, width)), padding_mode="reflection", align_corners=True
        )

    def equivariance(self, keypoints: Tensor, of_warped: Tensor) -> Tensor:
        """L1 between a picture's keypoints and those of the warped picture, brought back; in the picture's plane."""
        return (keypoints[..., :2] - self(of_warped[..., :2])).abs().mean()
