"""HM-Talker's networks, top to bottom: tri-plane encoder, speech, CMDM, HMMM, deformation, and the two fields.

One file holds the method. Sizes follow the HM-Talker paper (eqs. 5-10) and, where it defers, TalkingGaussian's
published description; `PAPER.md` maps every equation to a function here.

Axes: N Gaussians, L speech frames in the window (8), D features a speech frame.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalface.hmtalker.config import MOUTH_REACH, Config
from vocalface.types import Gaussians

IMPLICIT, UPPER, AUS = 32, 7, 10  # widths of c_i / c_e / c_f, of c_u, and of the lower action units
PATHS = ("audio", "masked", "vanilla")


# ------------------------------------------------------------------------------------------------ tri-plane encoder
class TriPlaneEncoder(nn.Module):
    """H(mu) in R^36: three planes (xy, yz, xz) of 12 bilinear levels with one feature each.

    The published grid has a hash of 2^17 entries a level, but its largest level is 65^2, so no level ever hashes: it
    is twelve small dense grids, and plain bilinear sampling is exact.

    Args:
        base, desired: resolution of the coarsest and of the finest level.
        bound: half side of the cube in metres; outside it H = 0.
    """

    def __init__(self, base: float, desired: float, bound: float = 0.15, levels: int = 12) -> None:
        super().__init__()
        self.bound = bound
        growth = math.log2(desired / base) / (levels - 1)
        self.scales, self.sides, self.offsets = [], [], [0]
        for level in range(levels):
            size = base * 2 ** (level * growth)
            side = math.ceil(size - 1e-9) + 1
            self.scales.append(size - 1)
            self.sides.append(side)
            self.offsets.append(self.offsets[-1] + -(-(side * side) // 8) * 8)  # tables are padded to 8 entries
        self.table = nn.Parameter(torch.empty(3, self.offsets[-1]).uniform_(-1e-4, 1e-4))

    def forward(self, x: Tensor) -> Tensor:  # [N, 3] metres -> [N, 36]
        unit = (x + self.bound) / (2 * self.bound)
        inside = ((unit >= 0) & (unit <= 1)).all(-1, keepdim=True)
        planes = torch.stack([unit[:, :2], unit[:, 1:], unit[:, ::2]])  # [3, N, 2]: xy, yz, xz
        features = []
        for scale, side, offset in zip(self.scales, self.sides, self.offsets):
            grid = self.table[:, offset : offset + side * side].view(3, 1, side, side)
            where = (planes * scale + 0.5) * (2 / (side - 1)) - 1  # node k sits at k
            sampled = F.grid_sample(grid, where[:, None], align_corners=True, padding_mode="border")
            features.append(sampled[:, 0, 0])  # [3, N]
        h = torch.stack(features, dim=1).flatten(0, 1).T  # [N, 36], plane by plane
        return h * inside


# ------------------------------------------------------------------------------------------------------------ speech
def audio_net(dim: int) -> nn.Sequential:
    """AudioNet for vector features: one frame [D] -> [32] (168,352 parameters at D = 512)."""
    return nn.Sequential(
        nn.Linear(dim, 256), nn.LeakyReLU(0.02), nn.Linear(256, 128), nn.LeakyReLU(0.02), nn.Linear(128, IMPLICIT)
    )


class AudioAttNet(nn.Module):
    """Self-attention over the window: [L, 32] -> [32], a convex combination of the rows (2,149 parameters)."""

    def __init__(self, window: int = 8) -> None:
        super().__init__()
        widths = [IMPLICIT, 16, 8, 4, 2, 1]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv1d(a, b, 3, padding=1), nn.LeakyReLU(0.02)]
        self.conv = nn.Sequential(*layers)
        self.linear = nn.Linear(window, window)

    def forward(self, x: Tensor) -> Tensor:  # [..., L, 32] -> [..., 32]
        flat = x.reshape(-1, *x.shape[-2:])
        weights = self.linear(self.conv(flat.mT)[:, 0]).softmax(-1)  # [B, L]
        return torch.einsum("bl,blc->bc", weights, flat).reshape(*x.shape[:-2], IMPLICIT)


class SpeechEncoder(nn.Module):
    """Window of speech features -> implicit motion c_i."""

    def __init__(self, dim: int, window: int = 8) -> None:
        super().__init__()
        self.net = audio_net(dim)
        self.attention = AudioAttNet(window)

    def forward(self, window: Tensor) -> Tensor:  # [..., L, D] -> [..., 32]
        return self.attention(self.net(window))


# -------------------------------------------------------------------------------------------------------------- CMDM
class ExplicitEncoder(nn.Module):
    """c_ev = concat(MLP(A_l), A_l) in R^32 (eq. 5): learned channels first, the raw action units kept in the last.

    Features wider than 22 (3DMM, blendshapes) cannot be kept whole; they enter by MLP plus a linear skip.
    """

    def __init__(self, dim: int = AUS) -> None:
        super().__init__()
        self.dim = dim
        self.keep = dim <= 22
        self.mlp = nn.Sequential(
            nn.Linear(dim, 32), nn.ReLU(), nn.Linear(32, IMPLICIT - dim if self.keep else IMPLICIT)
        )
        self.skip = None if self.keep else nn.Linear(dim, IMPLICIT, bias=False)

    def forward(self, a: Tensor) -> Tensor:  # [..., dim] -> [..., 32]
        if self.keep:
            return torch.cat([self.mlp(a).relu(), a], dim=-1)
        return (self.mlp(a) + self.skip(a)).relu()


class A2AM(nn.Module):
    """Audio-to-AU mapping (eq. 6): c_ea = relu(W2 relu(W1 c_i + b1) + b2). Its last channels are predicted AUs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(IMPLICIT, 32), nn.ReLU(), nn.Linear(32, IMPLICIT), nn.ReLU())
        nn.init.constant_(self.layers[2].bias, 0.05)  # no channel starts dead

    def forward(self, c_i: Tensor) -> Tensor:
        return self.layers(c_i)


class ExpNetMapper(nn.Module):
    """Table 4's other mapper: straight from the speech window to the explicit feature, past c_i."""

    def __init__(self, dim: int, window: int, explicit_dim: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv1d(dim, 64, 3, padding=1), nn.ReLU(), nn.Conv1d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Linear(64 * window + explicit_dim, IMPLICIT)
        self.register_buffer("reference", torch.zeros(explicit_dim))  # the person's mean explicit feature

    def forward(self, window: Tensor) -> Tensor:  # [..., L, D] -> [..., 32]
        flat = window.reshape(-1, *window.shape[-2:])
        h = torch.cat([self.trunk(flat.mT), self.reference.expand(len(flat), -1)], dim=-1)
        return self.head(h).relu().reshape(*window.shape[:-2], IMPLICIT)


def alignment_loss(c_ea: Tensor, c_ev: Tensor, detach: bool = False) -> Tensor:
    """L_align = mean |c_ea - c_ev|; both sides learn unless `detach`."""
    return (c_ea - (c_ev.detach() if detach else c_ev)).abs().mean()


# -------------------------------------------------------------------------------------------------------------- HMMM
def draw_path(config: Config, generator: torch.Generator, step: int = 0) -> str:
    """Which feature pair this step trains: audio (c_i, c_ea), masked (m c_i, c_ev) or vanilla (c_i, c_ev)."""
    u = torch.rand((), generator=generator).item()
    if config.pairing == "alternate":
        if step % 2 == 0:
            return "audio"
        return "masked" if u < config.path_masked / max(config.path_masked + config.path_vanilla, 1e-9) else "vanilla"
    if u < config.path_audio:
        return "audio"
    return "masked" if u < config.path_audio + config.path_masked else "vanilla"


def draw_mask(config: Config, generator: torch.Generator) -> Tensor:
    """Binary mask [32] with a fraction r ~ U(low, high) of zeros; never all zero; not rescaled."""
    r = config.mask_low + (config.mask_high - config.mask_low) * torch.rand((), generator=generator)
    while True:
        mask = (torch.rand(IMPLICIT, generator=generator) >= r).float()
        if mask.any():
            return mask


class Fusion(nn.Module):
    """Gate of eq. 7: c_f = alpha c_e + (1 - alpha) c_i, alpha = sigmoid(MLP([c_i, c_e])); or one of its ablations."""

    def __init__(self, mode: str = "gate", fixed_alpha: float = 0.5) -> None:
        super().__init__()
        self.mode, self.fixed_alpha = mode, fixed_alpha
        if mode in ("gate", "concat"):
            self.mlp = nn.Sequential(nn.Linear(2 * IMPLICIT, 32), nn.ReLU(), nn.Linear(32, IMPLICIT))
            nn.init.zeros_(self.mlp[2].bias)  # alpha starts near one half

    def forward(self, c_i: Tensor, c_e: Tensor) -> tuple[Tensor, Tensor]:  # -> c_f, alpha, both [..., 32]
        if self.mode == "concat":
            return self.mlp(torch.cat([c_i, c_e], -1)), torch.full_like(c_i, float("nan"))
        if self.mode == "gate":
            alpha = self.mlp(torch.cat([c_i, c_e], -1)).sigmoid()
        else:
            alpha = torch.full_like(c_i, {"fixed": self.fixed_alpha, "implicit": 0.0, "explicit": 1.0}[self.mode])
        return alpha * c_e + (1 - alpha) * c_i, alpha


# ------------------------------------------------------------------------------------------------------- deformation
@dataclass
class Delta:
    """What the field adds to the raw (pre-activation) Gaussians; opacity never changes, colour only when asked."""

    means: Tensor  # [N, 3] metres
    quats: Tensor | None = None  # [N, 4]
    scales: Tensor | None = None  # [N, 3], before the softplus
    colors: Tensor | None = None  # [N, 3] RGB, with `color_motion`


@dataclass
class Swing:
    """How far the fused vector of speech swings about its mean: c_f -> centre + gain (c_f - centre)."""

    gain: float
    centre: Tensor  # [32]

    def __call__(self, c_f: Tensor) -> Tensor:
        return self.centre + self.gain * (c_f - self.centre)


@dataclass
class Motion:
    """The control vectors of one frame, kept for losses, reports and tests."""

    c_f: Tensor  # [32] lower face
    c_u: Tensor  # [U] upper face
    c_i: Tensor  # [32] implicit, from speech
    c_ea: Tensor  # [32] explicit, predicted from speech
    c_ev: Tensor | None  # [32] explicit, seen
    alpha: Tensor  # [32] gate


def relu() -> nn.Module:
    """For the layers that see every Gaussian: in place, since new memory there costs more than the arithmetic."""
    return nn.ReLU(inplace=True)


class FaceField(nn.Module):
    """The face's motion field: CMDM, HMMM, region attention (eq. 8) and the deformation head (eq. 9).

    With deformation="linear" a small network turns the control vectors into K coefficients, and every Gaussian has
    K blendshapes of its own (`GaussianField.basis`) in place of the tri-plane, the attention and the MLP.
    """

    swing: Swing | None = None  # of the path "audio", once training has ended

    def __init__(self, config: Config, feature_dim: int, explicit_dim: int = AUS, upper_dim: int = UPPER) -> None:
        super().__init__()
        self.config = config
        self.encoder = TriPlaneEncoder(16, 256 * config.bound, config.bound)
        self.speech = SpeechEncoder(feature_dim, config.window)
        self.explicit = ExplicitEncoder(explicit_dim)
        if config.mapper == "expnet":
            self.mapper: nn.Module = ExpNetMapper(feature_dim, config.window, explicit_dim)
        else:
            self.mapper = A2AM()
        self.fusion = Fusion(config.fusion, config.fixed_alpha)
        self.attend_lower = nn.Sequential(nn.Linear(36, 32, bias=False), relu(), nn.Linear(32, IMPLICIT, bias=False))
        self.attend_upper = nn.Sequential(
            nn.Linear(36, 16, bias=False), relu(), nn.Linear(16, upper_dim, bias=False), relu()
        )
        if config.deformation == "linear":
            self.mix = nn.Sequential(
                nn.Linear(IMPLICIT + upper_dim, 48), nn.LeakyReLU(0.02), nn.Linear(48, config.linear_rank)
            )
        else:
            self.head = nn.Sequential(
                nn.Linear(36 + config.embedding + upper_dim + IMPLICIT, 64, bias=False), relu(),
                nn.Linear(64, 64, bias=False), relu(), nn.Linear(64, outputs(config), bias=False),
            )  # fmt: skip

    def motion(
        self, window: Tensor, upper: Tensor, explicit: Tensor | None = None, path: str = "audio",
        mask: Tensor | None = None,
    ) -> Motion:  # fmt: skip
        """Control vectors of one frame (or a batch of frames in the leading axes).

        Args:
            window: [..., L, D] speech features; upper: [..., U] AUs; explicit: [..., dim] lower AUs seen in the frame,
            needed by the paths "masked" and "vanilla"; mask: [32] for "masked".
        """
        c_i = self.speech(window)
        c_ea = self.mapper(window if self.config.mapper == "expnet" else c_i)
        c_ev = None if explicit is None else self.explicit(explicit)
        if path == "audio":
            implicit, c_e = c_i, c_ea
        else:
            implicit, c_e = (c_i * mask if path == "masked" else c_i), c_ev
        c_f, alpha = self.fusion(implicit, c_e)
        if path == "audio" and self.swing is not None:
            c_f = self.swing(c_f)
        return Motion(c_f, upper, c_i, c_ea, c_ev, alpha)

    def regions(self, field: GaussianField) -> tuple[Tensor, ...]:
        """What does not depend on the frame: H and the embedding [N, 36 + E], lower attention [N, 32], upper attention
        [N, U]; or, linear, the Gaussians' blendshapes [N, C, K]. Positions get no gradient through it."""
        if self.config.deformation == "linear":
            return (field.basis,)
        h = self.encoder(field.means.detach())
        return torch.cat([h, field.embedding], dim=-1), self.attend_lower(h), self.attend_upper(h)

    def deform(self, regions: tuple[Tensor, ...], c_f: Tensor, c_u: Tensor) -> Delta:
        if self.config.deformation == "linear":
            return self._delta(regions[0] @ self.mix(torch.cat([c_u, c_f])))  # [N, C, K] @ [K]
        h, lower, upper = regions
        first = self.head[0].weight
        spare = -first.shape[1] % 8  # matrix products of odd widths take up to twice as long: zeros fill them up
        x = torch.cat([h, c_u * upper, c_f * lower, h.new_zeros(len(h), spare)], dim=-1)
        return self._after_first(x @ F.pad(first, (0, spare)).T)

    def deform_upper(self, regions: tuple[Tensor, ...], c_f: Tensor) -> Callable[[Tensor], Delta]:
        """`deform` as a function of c_u, for many of them: what the first layer makes of the rest is computed once."""
        if self.config.deformation == "linear":
            return lambda c_u: self.deform(regions, c_f, c_u)
        h, lower, upper = regions
        own, by_upper, by_lower = self.head[0].weight.split([h.shape[1], upper.shape[1], lower.shape[1]], dim=1)
        rest = h @ own.T + (c_f * lower) @ by_lower.T
        return lambda c_u: self._after_first(torch.addmm(rest, upper, (c_u * by_upper).T))

    def _after_first(self, x: Tensor) -> Delta:
        """What the deformation's other layers make of its first one's products [N, 64]."""
        last = self.head[4].weight
        return self._delta(self.head[1:4](x) @ F.pad(last, (0, 0, 0, -len(last) % 8)).T)

    def _delta(self, out: Tensor) -> Delta:
        colors = 0.1 * out[:, 10:13] if self.config.color_motion else None
        return Delta(1e-2 * out[:, :3], out[:, 3:7], out[:, 7:10], colors)

    def listening(self, regions: tuple[Tensor, ...]) -> Tensor:
        """How strongly each Gaussian answers to each channel of c_f, [N, 32]: the gate's picture weighs with it."""
        if self.config.deformation == "linear":
            first, last = self.mix[0].weight[:, -IMPLICIT:], self.mix[2].weight
            return (regions[0][:, :3] @ (last @ first)).norm(dim=1)
        return regions[1].abs()


def outputs(config: Config) -> int:
    """Channels of the deformation: position 3, quaternion 4, scale 3, and colour 3 with `color_motion`."""
    return 13 if config.color_motion else 10


class MouthField(nn.Module):
    """The mouth interior's motion field: mostly vertical displacement, from speech alone (TalkingGaussian's branch).

    `explicit` in the condition is an extension (PAPER.md): the fused lower-face vector moves the teeth with the lips.
    """

    def __init__(self, config: Config, feature_dim: int) -> None:
        super().__init__()
        self.encoder = TriPlaneEncoder(64, 384 * config.bound, config.bound)
        self.speech = SpeechEncoder(feature_dim, config.window)
        self.head = nn.Sequential(
            nn.Linear(36 + IMPLICIT, 32, bias=False), relu(), nn.Linear(32, 32, bias=False), relu(),
            nn.Linear(32, 3, bias=False),
        )  # fmt: skip
        self.register_buffer("gain", torch.tensor([0.2, 1.0, 0.2]) * 1e-2, persistent=False)
        self.register_buffer("reach", torch.tensor(MOUTH_REACH), persistent=False)

    def deform(self, h: Tensor, c: Tensor) -> Delta:  # h [N, 36], c [32]
        moved = self.head(torch.cat([h, c.expand(len(h), -1)], dim=-1)) * self.gain
        return Delta(moved / (1 + moved.abs() / self.reach))


# --------------------------------------------------------------------------------------------------------- Gaussians
SH_C0 = 0.28209479177387814


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics up to `degree` <= 2: [N, 3] unit vectors -> [N, (degree + 1)^2]."""
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        basis += [
            1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * z * z - x * x - y * y),
            -1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y),
        ]  # fmt: skip
    return torch.stack(basis, dim=-1)


class GaussianField(nn.Module):
    """Canonical Gaussians in raw form: opacity before the sigmoid, scale before the softplus."""

    def __init__(self, means: Tensor, colors: Tensor, spacing: Tensor, sh_degree: int, opacity: float = 0.1) -> None:
        """means [N, 3] metres, colors [N, 3] RGB, spacing [N] metres (initial isotropic scale)."""
        super().__init__()
        n = len(means)
        self.sh_degree = sh_degree
        self.means = nn.Parameter(means.clone())
        self.quats = nn.Parameter(torch.tensor([1.0, 0, 0, 0]).repeat(n, 1))
        self.scales = nn.Parameter(torch.log(torch.expm1(spacing.clamp_min(1e-5)))[:, None].repeat(1, 3))
        self.opacities = nn.Parameter(torch.full((n,), math.log(opacity / (1 - opacity))))
        self.sh0 = nn.Parameter(((colors - 0.5) / SH_C0)[:, None])  # [N, 1, 3]
        self.shn = nn.Parameter(torch.zeros(n, (sh_degree + 1) ** 2 - 1, 3))
        self.basis = nn.Parameter(torch.zeros(n, 0, 0))  # [N, C, K] own blendshapes, with deformation="linear"
        self.embedding = nn.Parameter(torch.zeros(n, 0))  # [N, E] what the tri-plane is too coarse for

    def __len__(self) -> int:
        return len(self.means)

    def colors(self, eye: Tensor | None, degree: int) -> Tensor:
        """RGB [N, 3] seen from `eye` [3] (world); max(0, SH + 0.5). Directions use canonical means."""
        if degree == 0 or eye is None:
            return (self.sh0[:, 0] * SH_C0 + 0.5).clamp_min(0)
        k = (degree + 1) ** 2
        basis = sh_basis(F.normalize(self.means.detach() - eye, dim=-1), degree)  # [N, k]
        sh = torch.cat([self.sh0, self.shn[:, : k - 1]], dim=1)
        return (torch.einsum("nk,nkc->nc", basis, sh) + 0.5).clamp_min(0)

    def gaussians(self, delta: Delta | None = None, eye: Tensor | None = None, degree: int = 0) -> Gaussians:
        """What is drawn, moved by `delta` and seen from `eye`."""
        return self.movable(eye, degree)(delta)

    def movable(
        self, eye: Tensor | None = None, degree: int = 0, rows: Tensor | None = None
    ) -> Callable[[Delta | None], Gaussians]:
        """`gaussians` as a function of delta, for many of them; of the Gaussians `rows` alone, if given."""
        at_rest = self.means, self.quats, self.scales, self.opacities, self.colors(eye, degree)
        means, quats, scales, opacities, colors = at_rest if rows is None else (a[rows] for a in at_rest)
        opacities = opacities.sigmoid()

        def moved(delta: Delta | None) -> Gaussians:
            if delta is None:
                return Gaussians(means, quats, F.softplus(scales), opacities, colors)
            return Gaussians(
                means + delta.means, quats if delta.quats is None else quats + delta.quats,
                F.softplus(scales if delta.scales is None else scales + delta.scales), opacities,
                colors if delta.colors is None else (colors + delta.colors).clamp_min(0),
            )  # fmt: skip

        return moved


def composite(face: Tensor, face_alpha: Tensor, mouth: Tensor, mouth_alpha: Tensor, behind: Tensor) -> Tensor:
    """Eq. 10 with its misprint mended: I = F + (1 - A_f) (M + (1 - A_m) B); F and M premultiplied, [H, W, 3]."""
    return face + (1 - face_alpha)[..., None] * (mouth + (1 - mouth_alpha)[..., None] * behind)
