"""Wav2Lip, its synchrony network and its picture critic: mouths for a face and a mel window (Prajwal et al., 2020).

Pictures are [B, C, H, W] in [0, 1], blue first as Wav2Lip was trained; sound is log-mel windows [B, 1, 80, 16] from
`observe.speech.mel.log_mel`, bands by columns, 0.2 s each. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalface.nn.audio import ConvBlock, audio_trunk

FACE = 96
"""Side of the face that Wav2Lip reads and writes, px."""
SYNC_FRAMES = 5
"""Frames in a synchrony window: as long as 16 mel columns."""


class UpBlock(nn.Module):
    """Transposed convolution, batch norm, ReLU: twice the size, or 1 -> 3 with stride 1."""

    def __init__(self, inputs: int, outputs: int, stride: int = 2) -> None:
        super().__init__()
        grow = stride - 1
        self.conv_block = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 3, stride, padding=grow, output_padding=grow),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv_block(x))


class PlainBlock(nn.Module):
    """Convolution and leaky ReLU, no norm: the critic's."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride=1, padding=0) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv_block(x), 0.01)


def _same(width: int, count: int) -> list[ConvBlock]:
    return [ConvBlock(width, width, 3, 1, 1, residual=True) for _ in range(count)]


class Wav2Lip(nn.Module):
    """A face whose lower half is masked, a reference face and a mel window -> the whole face; 36 M parameters."""

    def __init__(self) -> None:
        super().__init__()

        def down(inputs: int, outputs: int, residuals: int) -> nn.Sequential:
            return nn.Sequential(ConvBlock(inputs, outputs, 3, 2, 1), *_same(outputs, residuals))

        def up(inputs: int, outputs: int, residuals: int, stride: int = 2) -> nn.Sequential:
            return nn.Sequential(UpBlock(inputs, outputs, stride), *_same(outputs, residuals))

        self.face_encoder_blocks = nn.ModuleList([
            nn.Sequential(ConvBlock(6, 16, 7, 1, 3)),  # 96 px
            down(16, 32, 2), down(32, 64, 3), down(64, 128, 2), down(128, 256, 2), down(256, 512, 1),  # 48 24 12 6 3
            nn.Sequential(ConvBlock(512, 512, 3), ConvBlock(512, 512, 1)),  # 1
        ])  # fmt: skip
        self.audio_encoder = audio_trunk()
        # Each block's input is the one before it beside the encoder's features of the same size.
        self.face_decoder_blocks = nn.ModuleList([
            nn.Sequential(ConvBlock(512, 512, 1)),
            up(1024, 512, 1, stride=1), up(1024, 512, 2), up(768, 384, 2),
            up(512, 256, 2), up(320, 128, 2), up(160, 64, 2),
        ])  # fmt: skip
        self.output_block = nn.Sequential(ConvBlock(80, 32, 3, 1, 1), nn.Conv2d(32, 3, 1), nn.Sigmoid())

    def forward(self, mel: Tensor, face: Tensor) -> Tensor:
        """Makes the mouth.

        Args:
            mel: [B, 1, 80, 16], the window of each frame.
            face: [B, 6, 96, 96]: the frame with its lower half at 0, then a reference frame of the same person.

        Returns:
            [B, 3, 96, 96] in (0, 1).
        """
        skips = []
        for block in self.face_encoder_blocks:
            face = block(face)
            skips.append(face)
        x = self.audio_encoder(mel)
        for block in self.face_decoder_blocks:
            x = torch.cat([block(x), skips.pop()], 1)
        return self.output_block(x)


class SyncNetColor(nn.Module):
    """Five lower half faces and a mel window -> two unit vectors whose cosine says whether they belong together."""

    def __init__(self) -> None:
        super().__init__()
        self.face_encoder = nn.Sequential(
            ConvBlock(3 * SYNC_FRAMES, 32, 7, 1, 3),
            ConvBlock(32, 64, 5, (1, 2), 1), *_same(64, 2),
            ConvBlock(64, 128, 3, 2, 1), *_same(128, 3),
            ConvBlock(128, 256, 3, 2, 1), *_same(256, 2),
            ConvBlock(256, 512, 3, 2, 1), *_same(512, 2),
            ConvBlock(512, 512, 3, 2, 1), ConvBlock(512, 512, 3), ConvBlock(512, 512, 1),
        )  # fmt: skip
        # One residual block more than Wav2Lip's own trunk has: their weights are not interchangeable.
        self.audio_encoder = nn.Sequential(
            ConvBlock(1, 32, 3, 1, 1), *_same(32, 2),
            ConvBlock(32, 64, 3, (3, 1), 1), *_same(64, 2),
            ConvBlock(64, 128, 3, 3, 1), *_same(128, 2),
            ConvBlock(128, 256, 3, (3, 2), 1), *_same(256, 2),
            ConvBlock(256, 512, 3), ConvBlock(512, 512, 1),
        )  # fmt: skip

    def forward(self, mel: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds both.

        Args:
            mel: [B, 1, 80, 16].
            faces: [B, 15, 48, 96], the lower halves of five frames one after the other.

        Returns:
            The voice's and the picture's vectors, [B, 512] each, of length 1.
        """
        return (
            F.normalize(self.audio_encoder(mel).flatten(1), dim=1),
            F.normalize(self.face_encoder(faces).flatten(1), dim=1),
        )


def lower_halves(faces: Tensor) -> Tensor:
    """[B, 3, T, H, W] -> [B, 3 T, H / 2, W]: what the synchrony network looks at, frame after frame."""
    batch, channels, frames, height, width = faces.shape
    return faces[..., height // 2 :, :].transpose(1, 2).reshape(batch, frames * channels, height - height // 2, width)


def sync_loss(voice: Tensor, picture: Tensor, belongs: Tensor | float = 1.0) -> Tensor:
    """Binary cross-entropy of the cosine of two unit vectors [B, 512], as Wav2Lip's synchrony network trains with."""
    cosine = (voice * picture).sum(1).clamp(1e-7, 1 - 1e-7)  # ReLU outputs: never negative
    return F.binary_cross_entropy(cosine, torch.as_tensor(belongs).expand_as(cosine).to(cosine))


class PictureCritic(nn.Module):
    """Wav2Lip's visual quality discriminator on lower half faces."""

    def __init__(self) -> None:
        super().__init__()

        def down(inputs: int, outputs: int, kernel: int, stride) -> nn.Sequential:
            pad = kernel // 2
            return nn.Sequential(
                PlainBlock(inputs, outputs, kernel, stride, pad), PlainBlock(outputs, outputs, kernel, 1, pad)
            )

        self.face_encoder_blocks = nn.ModuleList([
            nn.Sequential(PlainBlock(3, 32, 7, 1, 3)),
            down(32, 64, 5, (1, 2)), down(64, 128, 5, 2), down(128, 256, 5, 2), down(256, 512, 3, 2),
            down(512, 512, 3, 2),
            nn.Sequential(PlainBlock(512, 512, 3), PlainBlock(512, 512, 1)),
        ])  # fmt: skip
        self.binary_pred = nn.Sequential(nn.Conv2d(512, 1, 1), nn.Sigmoid())

    def forward(self, faces: Tensor) -> Tensor:
        """[B, 3, 48, 96] lower halves -> [B] probability that they are real."""
        for block in self.face_encoder_blocks:
            faces = block(faces)
        return self.binary_pred(faces).flatten()
