"""ExpNet: speech to the 64 expression coefficients of the face model (SadTalker, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocalface.nn.audio import audio_trunk

EXPRESSIONS = 64


class ExpNet(nn.Module):
    """A mel window, the portrait's own expression and a blink make one frame's expression; 2.85 M parameters.

    Frames are independent of one another, so any cutting into batches gives the same result. The audio trunk has the
    shape and keys of Wav2Lip's, from whose weights training starts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.audio_encoder = audio_trunk()
        self.mapping1 = nn.Linear(512 + EXPRESSIONS + 1, EXPRESSIONS)

    def forward(self, mel: Tensor, reference: Tensor, blink: Tensor) -> Tensor:
        """Expression coefficients.

        Args:
            mel: [..., 1, 80, 16] log-mel windows.
            reference: [..., 64] expression of the portrait, or of a reference video's frames.
            blink: [..., 1] how far the lids are shut, 0..1.

        Returns:
            [..., 64], absolute and not relative to the reference.
        """
        voice = self.audio_encoder(mel.flatten(0, -4)).flatten(1).unflatten(0, mel.shape[:-3])
        return self.mapping1(torch.cat([voice, reference, blink], -1))
