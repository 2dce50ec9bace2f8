"""LPIPS (Zhang et al. 2018), version 0.1, as a metric and as a loss, without torchvision.

The trunks below carry torchvision's key names, so its published ImageNet weights load as they are; the linear heads
are the ones published with LPIPS. Without the trunk's weights there is no LPIPS: `load` then says so, and the caller
reports null or uses `nn.gradient` in its place, under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalface.errors import AssetError

TRUNK_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
"""torchvision's names of the trunks' files."""

# Mean and deviation of ImageNet colours, for images in [-1, 1].
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Fire(nn.Module):
    """SqueezeNet's module: squeeze to few channels, expand by 1x1 and 3x3 side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, h, w] -> [N, 2 expanded, h, w]
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


def _alex() -> tuple[list[nn.Module], dict[int, int]]:
    relu, pool = nn.ReLU, lambda: nn.MaxPool2d(3, 2)
    layers = [
        nn.Conv2d(3, 64, 11, 4, 2), relu(), pool(),
        nn.Conv2d(64, 192, 5, padding=2), relu(), pool(),
        nn.Conv2d(192, 384, 3, padding=1), relu(),
        nn.Conv2d(384, 256, 3, padding=1), relu(),
        nn.Conv2d(256, 256, 3, padding=1), relu(),
    ]  # fmt: skip
    return layers, {1: 64, 4: 192, 7: 384, 9: 256, 11: 256}


def _vgg() -> tuple[list[nn.Module], dict[int, int]]:
    layers: list[nn.Module] = []
    taps, channels = {}, 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        taps[len(layers) - 1] = width
    return layers, taps


def _squeeze() -> tuple[list[nn.Module], dict[int, int]]:
    pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)  # noqa: E731
    layers = [
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128),
        Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    ]  # fmt: skip
    return layers, {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512}


_TRUNKS = {"alex": _alex, "vgg": _vgg, "squeeze": _squeeze}


class Lpips(nn.Module):
    """Perceptual distance of two images. Frozen; gradients flow to the images.

    Args:
        net: "alex" (metrics), "vgg" (losses) or "squeeze".
    """

    def __init__(self, net: str = "alex") -> None:
        super().__init__()
        layers, self.taps = _TRUNKS[net]()
        self.net = net
        self.features = nn.Sequential(*layers)
        self.heads = nn.ParameterList(torch.zeros(width) for width in self.taps.values())
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances [N] of x and y, each [N, H, W, 3] or [H, W, 3] in [0, 1], at least 64 px on a side."""
        if x.shape != y.shape or x.shape[-1] != 3:
            raise ValueError(f"expected two [N, H, W, 3] images of one shape, got {tuple(x.shape)}, {tuple(y.shape)}")
        if x.ndim == 3:
            x, y = x[None], y[None]
        total = x.new_zeros(len(x))
        for head, a, b in zip(self.heads, self._taps(x), self._taps(y)):
            total = total + torch.einsum("nchw,c->nhw", (_unit(a) - _unit(b)).square(), head).mean((1, 2))
        return total

    def _taps(self, image: Tensor) -> list[Tensor]:
        x = (2 * image.permute(0, 3, 1, 2) - 1 - self.shift) / self.scale
        outputs = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                outputs.append(x)
        return outputs

    def load_trunk(self, state: Mapping[str, Tensor]) -> None:
        """Takes a torchvision state dict; its classifier is left out. Raises AssetError when it is another net's."""
        wanted = self.features.state_dict()
        found = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
        found = {k: v for k, v in found.items() if k in wanted and v.shape == wanted[k].shape}
        if missing := sorted(set(wanted) - set(found)):
            raise AssetError(
                f"these are not the weights of LPIPS's {self.net} trunk",
                f"features.{missing[0]} and {len(missing) - 1} more are absent or of another shape",
                f"use torchvision's {TRUNK_FILES[self.net]}",
            )
        self.features.load_state_dict(found)

    def load_heads(self, state: Mapping[str, Tensor]) -> None:
        """Takes the linear heads as published: lin{i}.model.1.weight [1, C, 1, 1]."""
        for i, head in enumerate(self.heads):
            weight = state.get(f"lin{i}.model.1.weight")
            if weight is None or weight.numel() != head.numel():
                raise AssetError(
                    f"these are not LPIPS's linear heads for {self.net}",
                    f"lin{i}.model.1.weight",
                    f"use lpips_lin_v0.1_{self.net}.pth",
                )
            head.copy_(weight.flatten())


def load(trunk: str | Path | None, heads: str | Path | None, net: str = "alex") -> tuple[Lpips | None, str]:
    """LPIPS from its two weight files, or (None, why not).

    Args:
        trunk: torchvision's state dict (`TRUNK_FILES[net]`), heads: `lpips_lin_v0.1_{net}.pth`; None when absent.
    """
    for path, name in ((trunk, TRUNK_FILES[net]), (heads, f"lpips_lin_v0.1_{net}.pth")):
        if path is None or not Path(path).is_file():
            return None, f"{name} is not at hand"
    model = Lpips(net)
    model.load_trunk(torch.load(trunk, map_location="cpu", weights_only=True))
    model.load_heads(torch.load(heads, map_location="cpu", weights_only=True))
    return model, ""


def _unit(x: Tensor) -> Tensor:
    """Unit length along channels; the clamp keeps the root's gradient finite where every channel is dead."""
    return x / (x.square().sum(1, keepdim=True).clamp_min(1e-20).sqrt() + 1e-10)
