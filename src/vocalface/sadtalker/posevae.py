"""PoseVAE: speech and one of 46 styles to head motion (SadTalker, section 3.2).

A pose is six numbers of the face model: three angles in radians and a translation. The networks speak of residuals to
the portrait's own pose, in blocks of 32 frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.signal
import torch
from torch import Tensor, nn

from vocalface.errors import ConfigError
from vocalface.nn.audio import AudioEncoder

POSE = 6
BLOCK = 32
"""Frames that are made at a time."""
LATENT = 64
STYLES = 46
AUDIO = 512
_SMOOTHING = 13  # frames of the Savitzky-Golay filter, order 2
_ORDER = 2


# ------------------------------------------------------------------------------------------------------------ networks


class ResidualConv(nn.Module):
    """Two pre-activated convolutions beside one; the stride is along time only."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 3, stride, 1),
            nn.BatchNorm2d(outputs), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, 1, 1),
        )  # fmt: skip
        self.conv_skip = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_block(x) + self.conv_skip(x)


class Upsample(nn.Module):
    """Twice as long in time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(channels, channels, (2, 1), (2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(x)


class ResUNet(nn.Module):
    """[B, 1, 32, 6] -> [B, 1, 32, 6] in (0, 1): motion as a picture, time downwards."""

    def __init__(self, widths: tuple[int, int, int, int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        a, b, c, d = widths
        half = (2, 1)
        self.input_layer = nn.Sequential(
            nn.Conv2d(1, a, 3, 1, 1), nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, a, 3, 1, 1)
        )
        self.input_skip = nn.Sequential(nn.Conv2d(1, a, 3, 1, 1))
        self.residual_conv_1 = ResidualConv(a, b, half)
        self.residual_conv_2 = ResidualConv(b, c, half)
        self.bridge = ResidualConv(c, d, half)
        self.upsample_1 = Upsample(d)
        self.up_residual_conv1 = ResidualConv(d + c, c, (1, 1))
        self.upsample_2 = Upsample(c)
        self.up_residual_conv2 = ResidualConv(c + b, b, (1, 1))
        self.upsample_3 = Upsample(b)
        self.up_residual_conv3 = ResidualConv(b + a, a, (1, 1))
        self.output_layer = nn.Sequential(nn.Conv2d(a, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        whole = self.input_layer(x) + self.input_skip(x)
        half = self.residual_conv_1(whole)
        quarter = self.residual_conv_2(half)
        x = self.bridge(quarter)
        x = self.up_residual_conv1(torch.cat([self.upsample_1(x), quarter], 1))
        x = self.up_residual_conv2(torch.cat([self.upsample_2(x), half], 1))
        x = self.up_residual_conv3(torch.cat([self.upsample_3(x), whole], 1))
        return self.output_layer(x)


class PoseEncoder(nn.Module):
    """Motion, portrait's pose, voice and style -> mean and log-variance of the latent.

    The published code computes the log-variance with the layer of the mean, so that `linear_logvar` never learns.
    `published_logvar=True` does the same, to check against it; otherwise each has its own layer.
    """

    def __init__(self, published_logvar: bool = False) -> None:
        super().__init__()
        self.published_logvar = published_logvar
        self.resunet = ResUNet()
        self.MLP = nn.Sequential()
        self.MLP.add_module("L0", nn.Linear(POSE + BLOCK * POSE + BLOCK * POSE + LATENT, 128))
        self.linear_means = nn.Linear(128, LATENT)
        self.linear_logvar = nn.Linear(128, LATENT)
        self.linear_audio = nn.Linear(AUDIO, POSE)
        self.classbias = nn.Parameter(torch.randn(STYLES, LATENT))

    def forward(self, residual: Tensor, reference: Tensor, voice: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 32, 6], [B, 6], [B, 32, 512], [B] integers -> two of [B, 64]."""
        motion = self.resunet(residual[:, None]).flatten(1)
        voice = self.linear_audio(voice).flatten(1)
        x = torch.relu(self.MLP(torch.cat([reference, motion, voice, self.classbias[style]], 1)))
        logvar = self.linear_means(x) if self.published_logvar else self.linear_logvar(x)
        return self.linear_means(x), logvar


class PoseDecoder(nn.Module):
    """Latent, portrait's pose, voice and style -> 32 frames of motion."""

    def __init__(self) -> None:
        super().__init__()
        self.resunet = ResUNet()
        self.MLP = nn.Sequential()
        self.MLP.add_module("L0", nn.Linear(POSE + LATENT + BLOCK * POSE, 128))
        self.MLP.add_module("A0", nn.ReLU())
        self.MLP.add_module("L1", nn.Linear(128, BLOCK * POSE))
        self.MLP.add_module("A1", nn.Sigmoid())
        self.pose_linear = nn.Linear(POSE, POSE)
        self.linear_audio = nn.Linear(AUDIO, POSE)
        self.classbias = nn.Parameter(torch.randn(STYLES, LATENT))

    def forward(self, z: Tensor, reference: Tensor, voice: Tensor, style: Tensor) -> Tensor:
        """[B, 64], [B, 6], [B, 32, 512], [B] integers -> residual [B, 32, 6]."""
        voice = self.linear_audio(voice).flatten(1)
        x = self.MLP(torch.cat([reference, z + self.classbias[style], voice], 1))
        return self.pose_linear(self.resunet(x.unflatten(1, (1, BLOCK, POSE)))[:, 0])


class PoseVAE(nn.Module):
    """Encoder and decoder, for training."""

    def __init__(self, published_logvar: bool = False) -> None:
        super().__init__()
        self.encoder = PoseEncoder(published_logvar)
        self.decoder = PoseDecoder()

    def forward(
        self,
        residual: Tensor,
        reference: Tensor,
        voice: Tensor,
        style: Tensor,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Residual re-made [B, 32, 6], mean and log-variance [B, 64]; shapes of the arguments as in PoseEncoder.

        `noise` [B, 64] of variance 1 is drawn when absent.
        """
        mean, logvar = self.encoder(residual, reference, voice, style)
        noise = torch.randn_like(mean) if noise is None else noise
        return self.decoder(mean + noise * (0.5 * logvar).exp(), reference, voice, style), mean, logvar


class _NormalisedConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, 1, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


class PoseDiscriminator(nn.Module):
    """[B, 32, 6] -> [B, 8] logits: is this stretch of motion real?"""

    def __init__(self) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            _NormalisedConv(POSE, 256, 4, 2),
            _NormalisedConv(256, 512, 4, 2),
            _NormalisedConv(512, 1024, 3, 1),
            nn.Conv1d(1024, 1, 3, 1, 1),
        )

    def forward(self, motion: Tensor) -> Tensor:
        return self.seq(motion.transpose(1, 2))[:, 0]


class Audio2Pose(nn.Module):
    """All that the published file holds: Wav2Lip's frozen audio encoder, the VAE and its discriminator."""

    def __init__(self, published_logvar: bool = False) -> None:
        super().__init__()
        self.audio_encoder = AudioEncoder()
        self.netG = PoseVAE(published_logvar)
        self.netD_motion = PoseDiscriminator()

    def voice(self, mel: Tensor) -> Tensor:
        """[B, T, 1, 80, 16] log-mel windows -> [B, T, 512]."""
        return self.audio_encoder(mel.flatten(0, 2)).unflatten(0, mel.shape[:2])

    def generate(
        self,
        mel: Tensor,
        reference: Tensor,
        style: int | Tensor = 0,
        *,
        z: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Head poses of a whole speech, not yet smoothed.

        Args:
            mel: [B, T, 1, 80, 16] log-mel windows, one a frame.
            reference: [B, 6] the portrait's pose; frame 0 has it.
            style: 0..45, one for all or [B].
            z: [blocks, 64] latents, one a block (shared by the batch), or [blocks, B, 64]; drawn when absent.
            generator: of the draw.

        Returns:
            [B, T, 6] absolute poses.

        Raises:
            ConfigError: a style that does not exist, no frames, or too few latents.
        """
        batch, frames = mel.shape[:2]
        style = check_style(style).to(mel.device).expand(batch)
        blocks = list(blocks_of(frames))
        if z is None:
            z = torch.randn(len(blocks), batch, LATENT, generator=generator).to(mel)
        elif len(z) < len(blocks):
            raise ConfigError(f"{frames} frames need {len(blocks)} latents, got {len(z)}", "z", "pass one a block")
        residuals = [reference.new_zeros(batch, 1, POSE)]
        for block, latent in zip(blocks, z):
            voice = pad_voice(self.voice(mel[:, block.first : block.stop]))
            made = self.netG.decoder(latent.expand(batch, LATENT), reference, voice, style)
            residuals.append(made[:, BLOCK - block.kept :])
        return reference[:, None] + torch.cat(residuals, 1)


# ---------------------------------------------------------------------------------------------------- rules around them


class Block(NamedTuple):
    """One run of the decoder."""

    first: int  # the voice of frames first..stop-1 is heard,
    stop: int
    kept: int  # and the motion of the last `kept` of them is used


def blocks_of(frames: int) -> Iterator[Block]:
    """The runs of the decoder that cover frames 1..frames-1; frame 0 is the portrait's own pose.

    Whole blocks of 32 come first. A remainder hears the last 32 frames again, or what there are, and keeps its own.

    Raises:
        ConfigError: no frames.
    """
    if frames < 1:
        raise ConfigError("No frames to move the head in", "frames", "give at least 0.04 s of speech")
    start = 1
    while start + BLOCK <= frames:
        yield Block(start, start + BLOCK, BLOCK)
        start += BLOCK
    if start < frames:
        yield Block(max(frames - BLOCK, 1), frames, frames - start)


def pad_voice(voice: Tensor) -> Tensor:
    """[B, 1..32, 512] -> [B, 32, 512], the first embedding repeated in front."""
    missing = BLOCK - voice.shape[1]
    return torch.cat([voice[:, :1].expand(-1, missing, -1), voice], 1)


def check_style(style: int | Tensor) -> Tensor:
    """The style as an integer tensor.

    Raises:
        ConfigError: outside 0..45.
    """
    style = torch.as_tensor(style, dtype=torch.long)
    if style.min() < 0 or style.max() >= STYLES:
        raise ConfigError(
            f"There is no pose style {style.flatten().tolist()}", "--pose-style", f"choose 0 to {STYLES - 1}"
        )
    return style


def smooth(pose: np.ndarray) -> np.ndarray:
    """Savitzky-Golay along time, 13 frames, order 2, a fitted parabola at both ends.

    Args:
        pose: [..., T, 6], any T >= 1; the window shrinks to the odd number that fits, and of two frames nothing is left
            to smooth.

    Returns:
        The same shape and type.
    """
    window = min((pose.shape[-2] - 1) // 2 * 2 + 1, _SMOOTHING)
    if window <= _ORDER:
        return pose.copy()
    return scipy.signal.savgol_filter(pose, window, _ORDER, axis=-2).astype(pose.dtype)
