"""The renderer for use: the pictures of `facevid2vid` with fewer operations, and in 16 bits where a machine is fast so.

`OcclusionAwareSPADEGenerator` is readable, is what is trained, and is the specification. `FastGenerator` is made from
one with folded spectral norm, and draws what its `draw` draws. What it saves is exact but for rounding:

| saving | why the picture stays the same |
|---|---|
| batch norms, and the 1 of 1 + gamma, lie in the convolutions | they are affine and follow directly |
| a map is not enlarged before a convolution; a transposed one reads the small map | `Enlarged` |
| gamma and beta are one convolution, as are the first layers of all guides of one size | their input is the same |
| norm_0 and norm_s share one instance norm, taken before the map is enlarged | repeated values keep mean and variance |
| a shortcut's beta is made narrow at once: conv_s after mlp_beta is one convolution | nothing stands between the two |
| a flow is the sum of shifts, not of moved grids | the grid is in each of them |
| the portrait's features at rest and its bumps are kept | the frame does not change them |
| the mask's 7x7x7 convolution is a 7x7 one to seven times the maps, summed along depth | `Slices` |

Only convolutions and what they pass on are in 16 bits; keypoints, grids, bumps, softmax, the mask's threshold, the
flow, the statistics of instance norms and the last layer stay in float32.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalface.errors import ConfigError, DeviceError
from vocalface.nn.spade import SPADE, SPADEResnetBlock
from vocalface.sadtalker.blocks import coordinate_grid
from vocalface.sadtalker.facevid2vid import (
    COMPRESSED,
    MASK_FLOOR,
    DenseMotion,
    OcclusionAwareSPADEGenerator,
    Source,
    SPADEDecoder,
)
from vocalface.sadtalker.mapping import KEYPOINTS

EPSILON = 1e-5  # of the instance norms
VARIANCE = 0.01  # of a keypoint's bump
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CONV = {4: nn.Conv2d, 5: nn.Conv3d}


class Prepared(NamedTuple):
    """A portrait, and of its frames all that they share. One portrait: B is 1."""

    volume: Tensor  # [1, 32, D, h, w] float32
    compressed: Tensor  # [1, 4, D, h, w] float32
    rest: Tensor  # [1, 4, D, h, w] what the proposal to move nothing sees of it
    bumps: Tensor  # [1, 15, D, h, w]
    keypoints: Tensor  # [1, 15, 3]
    grid: Tensor  # [D, h, w, 3]


# ------------------------------------------------------------------------------------------------------ convolutions
def layer(weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A convolution with this weight [O, I, ...] that keeps the size of its map."""
    size = weight.shape[2:]
    with torch.device("meta"):
        made = _CONV[weight.ndim](
            *weight.shape[1::-1], tuple(size), padding=[k // 2 for k in size], bias=bias is not None
        )
    made.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias}, assign=True)
    return made


def folded(conv: nn.Module, norm: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution and of the batch norm that follows it."""
    if norm is None:
        return conv.weight.detach(), conv.bias.detach()
    gain = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    weight = conv.weight.double() * gain.view(-1, *[1] * (conv.weight.ndim - 1))
    bias = (conv.bias.double() - norm.running_mean.double()) * gain + norm.bias.double()
    return weight.detach().to(conv.weight), bias.detach().to(conv.bias)


class Enlarged(nn.Module):
    """Nearest enlargement by `factor`, then a convolution 3x3 (or 3x3x3, the depth not enlarged), as one.

    Enlarging is a transposed convolution whose kernel is a box of the factor's size and stride. A convolution after it
    is a transposed one too, its kernel the box convolved with the turned weight: factor + 2 taps with the stride of
    the factor, so that an output sees 2x2 cells (factor 2) or 2.25 (factor 4) instead of 9.
    """

    def __init__(self, weight: Tensor, bias: Tensor, factor: int) -> None:
        super().__init__()
        flat = weight.ndim == 4
        box = [F.pad(weight, (k, factor - 1 - k)) for k in range(factor)]
        kernel = torch.stack(box).sum(0)
        box = [F.pad(kernel, (0, 0, k, factor - 1 - k)) for k in range(factor)]
        kernel = torch.stack(box).sum(0).flip(*range(2, weight.ndim)).transpose(0, 1)
        self.run = F.conv_transpose2d if flat else F.conv_transpose3d
        self.stride = (factor, factor) if flat else (1, factor, factor)
        self.register_buffer("weight", kernel)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, (D,) h, w] -> [B, O, (D,) factor * h, factor * w]."""
        return self.run(x, self.weight, self.bias, stride=self.stride, padding=1)


class Slices(nn.Module):
    """A wide convolution [O, I, K, k, k] of a volume to few maps, as one of its slices to K times as many.

    Units that multiply matrices want many outputs; and pictures are what they know best. Sums in float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.depth = weight.shape[2]
        self.conv = layer(weight.permute(2, 0, 1, 3, 4).flatten(0, 1), None)
        self.register_buffer("bias", bias.float())

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, D, h, w] -> [B, O, D, h, w] float32."""
        slices = x.transpose(1, 2)
        made = self.conv(slices.flatten(0, 1)).float().unflatten(0, slices.shape[:2]).unflatten(2, (self.depth, -1))
        reach = self.depth // 2
        padded = F.pad(made, (0,) * 8 + (reach, reach))
        total = sum(padded[:, k : k + slices.shape[1], k] for k in range(self.depth))
        return (total + self.bias[:, None, None]).transpose(1, 2)


def halved(x: Tensor) -> Tensor:
    """Average pooling of a volume's width and height [B, C, D, h, w]: slice by slice, for want of more in 16 bits."""
    pooled = F.avg_pool2d(x.transpose(1, 2).flatten(0, 1), 2)
    return pooled.unflatten(0, (len(x), -1)).transpose(1, 2)


def normalised(x: Tensor) -> Tensor:
    """Instance norm [B, C, h, w], its statistics in float32; the result has the type of `x` and its memory format."""
    single = x.float()
    centred = single - single.mean((2, 3), keepdim=True)
    return (centred * torch.rsqrt(centred.square().mean((2, 3), keepdim=True) + EPSILON)).to(x.dtype)


def scaled(normal: Tensor, gamma: Tensor, beta: Tensor | None = None) -> Tensor:
    """normal * gamma (+ beta), [B, C, H, W]; a `normal` of half their size is repeated as it is read, not stored."""
    factor = gamma.shape[2] // normal.shape[2]
    cells = normal[:, :, :, None, :, None]

    def parted(x: Tensor) -> Tensor:
        return x.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))

    gamma = parted(gamma)
    out = cells * gamma if beta is None else torch.addcmul(parted(beta), cells, gamma)
    return out.flatten(4).flatten(2, 3)


def bumps(keypoints: Tensor, grid: Tensor) -> Tensor:
    """`blocks.gaussians`, axis by axis: [B, K, 3], [D, h, w, 3] -> [B, K, D, h, w]."""
    lines = (grid[0, 0, :, 0], grid[0, :, 0, 1], grid[:, 0, 0, 2])
    x, y, z = (torch.exp(-0.5 / VARIANCE * (line - keypoints[..., i, None]).square()) for i, line in enumerate(lines))
    return z[..., None, None] * (y[..., None] * x[..., None, :])[..., None, :, :]


# -------------------------------------------------------------------------------------------------------------- flow
class _Flow(nn.Module):
    """`DenseMotion` without its mask: what moves, and what is hidden."""

    def __init__(self, network: DenseMotion) -> None:
        super().__init__()
        hourglass = network.hourglass
        order = _order(network.mask.weight.device)
        (first, bias), *others = (folded(block.conv, block.norm) for block in hourglass.encoder.down_blocks)
        self.down = nn.ModuleList(layer(*pair) for pair in [(first[:, order], bias), *others])
        self.up = nn.ModuleList(Enlarged(*folded(b.conv, b.norm), 2) for b in hourglass.decoder.up_blocks)
        last, bias = folded(hourglass.decoder.conv, hourglass.decoder.norm)
        risen = last.shape[1] - len(order)
        self.last = layer(torch.cat([last[:, :risen], last[:, risen:][:, order]], 1), bias)
        self.mask = Slices(*folded(network.mask))
        self.occlusion = layer(*folded(network.occlusion))

    def forward(self, portrait: Prepared, driving: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keypoints [B, 15, 3] -> positions [B, D, h, w, 3] float32 and occlusion [B, 1, h, w] float32."""
        grid, frames = portrait.grid, len(driving)
        shifts = portrait.keypoints - driving  # [B, 15, 3]
        places = (grid + shifts[:, :, None, None, None]).flatten(1, 2)
        seen = F.grid_sample(portrait.compressed.expand(frames, -1, -1, -1, -1), places, align_corners=False)
        heat = F.pad(bumps(driving, grid) - portrait.bumps, (0,) * 6 + (1, 0))
        moved = seen.unflatten(2, (KEYPOINTS, -1)).flatten(1, 2)
        x = torch.cat([heat, portrait.rest.expand(frames, -1, -1, -1, -1), moved], 1).to(dtype)
        maps = [x.contiguous(memory_format=torch.channels_last_3d)]
        for conv in self.down:
            maps.append(halved(F.relu_(conv(maps[-1]))))
        x = maps.pop()
        for conv in self.up:
            x = torch.cat([F.relu_(conv(x)), maps.pop()], 1)
        x = F.relu_(self.last(x))
        mask = torch.softmax(self.mask(x), 1)
        mask = mask * (mask >= MASK_FLOOR)
        moved = torch.einsum("bkdhw,bkc->bdhwc", mask[:, 1:], shifts)
        return grid * mask.sum(1)[..., None] + moved, torch.sigmoid(self.occlusion(x.flatten(1, 2)).float())


def _order(device: torch.device) -> Tensor:
    """Where the network has our channels: ours are all bumps, all features at rest, then each feature of all motions;
    the network's are bump and features of a motion, motion by motion."""
    of = torch.arange((KEYPOINTS + 1) * (COMPRESSED + 1), device=device).view(KEYPOINTS + 1, COMPRESSED + 1)
    return torch.cat([of[:, 0], of[0, 1:], of[1:, 1:].T.flatten()])


# ----------------------------------------------------------------------------------------------------------- picture
class _Guided(nn.Module):
    """A SPADE layer after its first convolution, and the leaky ReLU after it."""

    def __init__(self, spade: SPADE) -> None:
        super().__init__()
        gamma, beta = spade.mlp_gamma, spade.mlp_beta
        self.both = layer(
            torch.cat([gamma.weight, beta.weight]).detach(), torch.cat([gamma.bias + 1, beta.bias]).detach()
        )

    def forward(self, normal: Tensor, hidden: Tensor) -> Tensor:
        gamma, beta = self.both(hidden).chunk(2, 1)
        return F.leaky_relu_(scaled(normal, gamma, beta), 0.2)


class _Middle(nn.Module):
    """A block that keeps its width."""

    def __init__(self, block: SPADEResnetBlock) -> None:
        super().__init__()
        self.guided = nn.ModuleList([_Guided(block.norm_0), _Guided(block.norm_1)])
        self.convs = nn.ModuleList([layer(*folded(block.conv_0)), layer(*folded(block.conv_1))])

    def forward(self, x: Tensor, *hidden: Tensor) -> Tensor:
        y = x
        for guided, conv, seen in zip(self.guided, self.convs, hidden):
            y = conv(guided(normalised(y), seen))
        return x + y


class _Rising(nn.Module):
    """A block that enlarges its map by two and makes it narrower."""

    def __init__(self, block: SPADEResnetBlock) -> None:
        super().__init__()
        self.guided = nn.ModuleList([_Guided(block.norm_0), _Guided(block.norm_1)])
        self.convs = nn.ModuleList([layer(*folded(block.conv_0)), layer(*folded(block.conv_1))])
        gamma, beta, narrow = block.norm_s.mlp_gamma, block.norm_s.mlp_beta, block.conv_s.weight.detach()
        self.gamma = layer(gamma.weight.detach(), (gamma.bias + 1).detach())
        self.narrow = layer(narrow, None)
        flat = narrow.flatten(1).double()
        self.beta = layer(
            torch.einsum("oc,cikl->oikl", flat, beta.weight.detach().double()).to(narrow),
            (flat @ beta.bias.detach().double()).to(narrow),
        )

    def forward(self, x: Tensor, *hidden: Tensor) -> Tensor:
        normal = normalised(x)
        y = self.convs[0](self.guided[0](normal, hidden[0]))
        y = self.convs[1](self.guided[1](normalised(y), hidden[1]))
        return y + self.narrow(scaled(normal, self.gamma(hidden[2]))) + self.beta(hidden[2])


class _Decoder(nn.Module):
    def __init__(self, network: SPADEDecoder) -> None:
        super().__init__()
        middle = [getattr(network, f"G_middle_{i}") for i in range(6)]
        rising = [network.up_0, network.up_1]
        self.fc = layer(*folded(network.fc))
        self.middle, self.rising = nn.ModuleList(map(_Middle, middle)), nn.ModuleList(map(_Rising, rising))
        self.guide = layer(*_joined([n for b in middle for n in (b.norm_0, b.norm_1)]))
        self.guides = nn.ModuleList(
            nn.ModuleList(Enlarged(*_joined([norm]), factor) for norm in (block.norm_0, block.norm_1, block.norm_s))
            for block, factor in zip(rising, (2, 4))
        )
        self.last = layer(*folded(network.conv_img))

    def forward(self, features: Tensor) -> Tensor:
        x = self.fc(features)
        hidden = F.relu_(self.guide(features)).chunk(2 * len(self.middle), 1)
        for i, block in enumerate(self.middle):
            x = block(x, *hidden[2 * i : 2 * i + 2])
        for block, guides in zip(self.rising, self.guides):
            x = block(x, *(F.relu_(guide(features)) for guide in guides))
        return torch.sigmoid(self.last(F.leaky_relu(x.float(), 0.2)))


def _joined(norms: list[SPADE]) -> tuple[Tensor, Tensor]:
    """The first convolutions of guided layers as one, their outputs one after another."""
    convs = [norm.mlp_shared[0] for norm in norms]
    return torch.cat([c.weight for c in convs]).detach(), torch.cat([c.bias for c in convs]).detach()


class FastGenerator(nn.Module):
    """Draws the frames of one portrait, as many at once as are asked for.

    Args:
        network: with folded spectral norm, in evaluation mode; it is left as it is.
        dtype: of the convolutions: float32, bfloat16 or float16.
    """

    def __init__(self, network: OcclusionAwareSPADEGenerator, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.flow = _Flow(network.dense_motion_network)
        self.third = layer(*folded(network.third.conv, network.third.norm))
        self.fourth = layer(*folded(network.fourth))
        self.slope = network.third.slope
        self.decoder = _Decoder(network.decoder)
        self.requires_grad_(False).eval()
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Conv3d | Enlarged):
                wide = torch.channels_last if part.weight.ndim == 4 else torch.channels_last_3d
                part.to(torch.float32 if part is self.decoder.last else dtype, memory_format=wide)

    @staticmethod
    def prepare(source: Source) -> Prepared:
        """What `OcclusionAwareSPADEGenerator.encode` made of one portrait, and what all its frames share."""
        volume, compressed, keypoints = source
        grid = coordinate_grid(*compressed.shape[2:], compressed)
        rest = F.grid_sample(compressed, grid[None], align_corners=False)
        return Prepared(volume, compressed, rest, bumps(keypoints, grid), keypoints, grid)

    def forward(self, portrait: Prepared, driving: Tensor) -> Tensor:
        """Keypoints [B, 15, 3] float32 of the frames -> RGB [B, 3, H, W] float32 in [0, 1]."""
        deformation, occlusion = self.flow(portrait, driving, self.dtype)
        volume = portrait.volume.expand(len(driving), -1, -1, -1, -1)
        warped = F.grid_sample(volume, deformation, align_corners=False).flatten(1, 2).to(self.dtype)
        x = F.leaky_relu_(self.third(warped.contiguous(memory_format=torch.channels_last)), self.slope)
        return self.decoder(self.fourth(x) * occlusion.to(self.dtype))

    def pixels(self, portrait: Prepared, driving: Tensor) -> Tensor:
        """Keypoints [B, 15, 3] of the frames -> [B, H, W, 3] uint8."""
        with exact():
            return to_pixels(self(portrait, driving))


def to_pixels(image: Tensor) -> Tensor:
    """RGB [B, 3, H, W] in [0, 1] -> [B, H, W, 3] uint8, rounded."""
    return (image.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8)


# ------------------------------------------------------------------------------------------------------------- lanes
class Lanes:
    """Batches of frames of one portrait, which come back as arrays.

    On a CUDA device a full batch is recorded once as a graph and replayed, so that no time goes into launching; the
    pixels are copied into pinned memory while the next batch is drawn already. Elsewhere, and where recording fails,
    each batch is drawn as it comes.

    Args:
        network: draws.
        portrait: see `FastGenerator.prepare`.
        batch: frames of a full batch.
        record: whether to try recording.

    Raises:
        DeviceError: a batch does not fit the device's memory; also while it is drawn.
    """

    def __init__(self, network: FastGenerator, portrait: Prepared, batch: int, record: bool = True) -> None:
        self.network, self.portrait, self.batch = network, portrait, batch
        self.cuda = portrait.volume.is_cuda
        with _fitting(batch):
            self.recorded = _recorded(network, portrait, batch) if self.cuda and record else None

    @torch.no_grad()
    def __call__(self, batches: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Keypoints [n <= batch, 15, 3] at a time -> frames [H, W, 3] uint8; on a CUDA device one batch later."""
        waiting: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()
        for driving in batches:
            waiting.append(self._fetch(self._draw(driving)))
            if len(waiting) > self.cuda:
                yield from _arrived(*waiting.popleft())
        while waiting:
            yield from _arrived(*waiting.popleft())

    def _draw(self, driving: Tensor) -> Tensor:
        if self.recorded is None or len(driving) < self.batch:
            with _fitting(self.batch):
                return self.network.pixels(self.portrait, driving)
        graph, given, made = self.recorded
        given.copy_(driving)
        graph.replay()
        return made

    def _fetch(self, pixels: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        if not self.cuda:
            return pixels, None
        # Copied in the order of the stream: the next replay cannot overwrite what was not read yet.
        pinned = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
        pinned.copy_(pixels, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return pinned, event


@contextmanager
def _fitting(batch: int) -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError(f"{batch} frames do not fit the GPU's memory", "--batch", "give a smaller one") from error


def _arrived(pixels: Tensor, event: torch.cuda.Event | None) -> Iterator[np.ndarray]:
    if event is not None:
        event.synchronize()
    yield from pixels.numpy()


@torch.no_grad()
def _recorded(
    network: FastGenerator, portrait: Prepared, batch: int
) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor] | None:
    """A graph, what it reads and what it writes; None where a device cannot record one."""
    given = portrait.keypoints.expand(batch, -1, -1).clone()
    try:
        side = torch.cuda.Stream(given.device)
        side.wait_stream(torch.cuda.current_stream(given.device))
        with torch.cuda.stream(side):  # libraries choose and load what they need before anything is recorded
            for _ in range(2):
                network.pixels(portrait, given)
        torch.cuda.current_stream(given.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = network.pixels(portrait, given)
        return graph, given, made
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        return None


@contextmanager
def exact() -> Iterator[None]:
    """Where convolutions of float32 are not rounded to 10 bits of mantissa, as CUDA devices otherwise do."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def precision(name: str, device: torch.device | str) -> torch.dtype:
    """The type of the convolutions: auto is bfloat16 on a CUDA device that multiplies it, float32 elsewhere.

    float16 rounds eight times finer than bfloat16, but what passes 65,504 becomes infinite.

    Raises ConfigError.
    """
    if name == "auto":
        return torch.bfloat16 if torch.device(device).type == "cuda" and _has_bfloat16() else torch.float32
    if name not in PRECISIONS:
        raise ConfigError(f"there is no precision {name!r}", "--precision", f"choose auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def _has_bfloat16() -> bool:
    return torch.cuda.get_device_capability() >= (8, 0)  # older ones only imitate it
