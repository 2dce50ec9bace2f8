"""SPADE: pictures made from a feature map that scales and shifts every layer (Park et al., 2019); spectral norm.

In training each convolution of a block is divided by its largest singular value, which `weight_u` and `weight_v` track
(Miyato et al., 2018). To draw, `fold_spectral_norm` does the division once, in the state dict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def maybe_spectral(wanted: bool) -> Callable[[nn.Module], nn.Module]:
    """What wraps a layer in spectral norm, or leaves it alone. Keys: weight_orig, weight_u, weight_v."""
    return torch.nn.utils.spectral_norm if wanted else lambda layer: layer


class SPADE(nn.Module):
    """Scale and shift for a normalised map, from a guide."""

    def __init__(self, channels: int, guide: int, hidden: int = 128) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(guide, hidden, 3, 1, 1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, 1, 1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, 1, 1)

    def forward(self, normalised: Tensor, guide: Tensor) -> Tensor:
        """[B, C, H, W] of mean 0 and variance 1 per picture and channel, [B, G, H, W] -> [B, C, H, W]."""
        hidden = self.mlp_shared(guide)
        return normalised * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)


class SPADEResnetBlock(nn.Module):
    """Two guided convolutions and a shortcut, guided too where the width changes."""

    def __init__(self, inputs: int, outputs: int, guide: int, *, hidden: int = 128, spectral: bool = False) -> None:
        super().__init__()
        wrap, middle = maybe_spectral(spectral), min(inputs, outputs)
        self.conv_0 = wrap(nn.Conv2d(inputs, middle, 3, 1, 1))
        self.conv_1 = wrap(nn.Conv2d(middle, outputs, 3, 1, 1))
        self.norm_0 = SPADE(inputs, guide, hidden)
        self.norm_1 = SPADE(middle, guide, hidden)
        self.learned_shortcut = inputs != outputs
        if self.learned_shortcut:
            self.conv_s = wrap(nn.Conv2d(inputs, outputs, 1, bias=False))
            self.norm_s = SPADE(inputs, guide, hidden)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """[B, inputs, H, W], guide [B, G, h, w] of any size -> [B, outputs, H, W]."""
        guide = F.interpolate(guide, x.shape[2:], mode="nearest")
        normalised = F.instance_norm(x)
        if self.learned_shortcut:
            x = self.conv_s(self.norm_s(normalised, guide))
        y = self.conv_0(F.leaky_relu(self.norm_0(normalised, guide), 0.2))
        return x + self.conv_1(F.leaky_relu(self.norm_1(F.instance_norm(y), guide), 0.2))


def fold_spectral_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict whose weight_orig, weight_u and weight_v became the weight that they stand for.

    Keys without spectral norm pass through; a dict without any comes back unchanged.
    """
    folded = {}
    for key, value in state.items():
        stem, _, leaf = key.rpartition(".")
        if leaf == "weight_orig" and {f"{stem}.weight_u", f"{stem}.weight_v"} <= state.keys():
            u, v = state[f"{stem}.weight_u"], state[f"{stem}.weight_v"]
            folded[f"{stem}.weight"] = value / torch.dot(u, torch.mv(value.flatten(1), v))
        elif leaf not in ("weight_u", "weight_v") or f"{stem}.weight_orig" not in state:
            folded[key] = value
    return folded


def unfold_spectral_norm(state: Mapping[str, Tensor], layers: Iterable[str]) -> dict[str, Tensor]:
    """The way back, to go on training a folded network.

    Args:
        state: a state dict.
        layers: names of the layers to put under spectral norm, as in "decoder.up_0.conv_0".

    Returns:
        The state dict for layers built with spectral norm, weight_u and weight_v found anew. A weight whose largest
        singular value is 1, as folding leaves it, keeps its effect.
    """
    unfolded = dict(state)
    for layer in layers:
        weight = unfolded.pop(f"{layer}.weight")
        matrix = weight.flatten(1).double()
        u = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -1]
        v = F.normalize(matrix.T @ u, dim=0)
        unfolded[f"{layer}.weight_orig"] = weight
        unfolded[f"{layer}.weight_u"], unfolded[f"{layer}.weight_v"] = u.to(weight), v.to(weight)
    return unfolded
