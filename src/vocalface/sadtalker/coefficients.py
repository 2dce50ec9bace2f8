"""Speech to the coefficients of the published renderer, frame by frame and in constant memory (SadTalker, section 3).

mel windows -> ExpNet, and -> PoseVAE in blocks of 32 -> Savitzky-Golay -> rows [70 or 73]: expression 64, angles 3,
translation 3, and of whole pictures the crop's 3. Every stage is a generator that looks ahead a bounded way (31 frames
for a block, 6 for smoothing), and gives what the same networks give on the whole speech at once.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.signal import savgol_coeffs
from torch import nn

from vocalface.errors import ConfigError
from vocalface.observe.speech.mel import BANDS, COLUMN_RATE, MelStream, normalise
from vocalface.sadtalker import framing
from vocalface.sadtalker.direction import to_and_fro
from vocalface.sadtalker.expnet import EXPRESSIONS
from vocalface.sadtalker.posevae import BLOCK, LATENT, POSE, Audio2Pose, check_style, pad_voice, smooth
from vocalface.types import FPS, SPEECH_RATE

STEP = SPEECH_RATE // FPS
CROPPED, WHOLE = EXPRESSIONS + POSE, EXPRESSIONS + POSE + 3
"""Numbers a frame: of cropped portraits, and of whole pictures."""
SILENCE = -4.0  # a log-mel value
SMOOTHED = 13  # frames of Savitzky-Golay
BATCH = 25  # frames that go through ExpNet at once


@dataclass(frozen=True)
class Settings:
    """How the face moves.

    The face model is that of Deep3DFaceRecon: its 64 expression coefficients are principal components without names,
    among which there is no gaze.
    """

    pose_style: int = 0  # 0..45
    expression_scale: float = 1.0  # about the portrait's own expression
    head_scale: float = 1.0
    still: bool = False
    blink: bool = True
    seed: int = 0
    expression: np.ndarray | None = None  # [64], added to every frame: an emotion
    head: np.ndarray | None = None  # [N, 6] against its first frame: added, played to and fro
    lids: np.ndarray | None = None  # [M] closure 0..1, played to and fro instead of drawn blinks

    def __post_init__(self) -> None:
        check_style(self.pose_style)
        if self.expression is not None and np.shape(self.expression) != (EXPRESSIONS,):
            raise ConfigError(
                f"an expression of shape {list(np.shape(self.expression))}", "--expression", "give 64 numbers"
            )


def read_expression(path: Path | str) -> np.ndarray:
    """[64] float32 of a .npy file. Raises ConfigError."""
    try:
        offset = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError("the expression cannot be read", path, "give a .npy file of 64 numbers") from error
    if not isinstance(offset, np.ndarray) or offset.shape != (EXPRESSIONS,) or offset.dtype.kind not in "fiu":
        raise ConfigError("these are not 64 numbers", path, "give a .npy file of 64 numbers")
    if not np.isfinite(offset).all():
        raise ConfigError("the expression has values that are no numbers", path, "give 64 finite numbers")
    return offset.astype(np.float32)


# ----------------------------------------------------------------------------------------------- voice
def mel_windows(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Speech in pieces [n] at 16 kHz -> log-mel windows [k, 80, 16], in all one for every begun frame, at least one.

    Window i starts at column trunc(3.2 (i - 2)); columns before the first repeat it, and after the last likewise.
    """
    mel, columns, first, frame, heard = MelStream(), np.zeros((0, BANDS), np.float32), 0, 0, 0

    def ready(last: int | None) -> Iterator[np.ndarray]:
        nonlocal columns, first, frame
        rows = []
        while frame < last if last is not None else window_start(frame) + framing.WINDOW <= first + len(columns):
            at = np.clip(window_start(frame) + np.arange(framing.WINDOW), 0, first + len(columns) - 1)
            rows.append(columns[at - first].T)
            frame += 1
        drop = max(window_start(frame) - first, 0)
        columns, first = columns[drop:], first + drop
        if rows:
            yield np.stack(rows)

    for piece in pieces:
        heard += len(piece)
        columns = np.concatenate([columns, normalise(mel.push(piece))])
        yield from ready(None)
    frames = max(-(-heard // STEP), 1)
    columns = np.concatenate([columns, normalise(mel.push(np.zeros(frames * STEP - heard))), normalise(mel.flush())])
    yield from ready(frames)


def window_start(frame: int) -> int:
    return int(COLUMN_RATE * (frame - 2) / FPS)


def idle_windows(frames: int) -> Iterator[np.ndarray]:
    """Windows [k, 80, 16] of silence for a portrait that does not speak. (The published code gives 0, a hiss.)"""
    for start in range(0, frames, BATCH):
        yield np.full((min(BATCH, frames - start), BANDS, framing.WINDOW), SILENCE, np.float32)


# ------------------------------------------------------------------------------------------------ head
def smoothed(rows: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """`posevae.smooth` of rows [6] that come one by one, 6 frames later."""
    known: deque[np.ndarray] = deque(maxlen=SMOOTHED)
    middle = savgol_coeffs(SMOOTHED, 2)  # what the filter does away from both ends
    half, seen = SMOOTHED // 2, 0
    for row in rows:
        known.append(row)
        seen += 1
        if seen == SMOOTHED:
            yield from smooth(np.stack(known))[: half + 1]
        elif seen > SMOOTHED:
            yield (middle @ np.stack(known)).astype(np.float32)
    if known:
        yield from smooth(np.stack(known))[half + 1 if seen >= SMOOTHED else 0 :]


def residuals(
    voices: Iterable[torch.Tensor], decoder: nn.Module, reference: torch.Tensor, style: int, seed: int
) -> Iterator[np.ndarray]:
    """The head against the portrait's pose, [6] a frame, not yet smoothed: `Audio2Pose.generate` as a stream.

    Args:
        voices: embeddings [k, 512] of frames that follow one another.
        reference: [6].
    """
    generator = torch.Generator().manual_seed(seed)
    before = pending = None

    @torch.no_grad()
    def made(voice: torch.Tensor) -> np.ndarray:
        z = torch.randn(1, LATENT, generator=generator).to(voice)
        chosen = check_style(style)[None].to(voice.device)
        return decoder(z, reference[None], pad_voice(voice[None]), chosen)[0].cpu().numpy()

    for voice in voices:
        if pending is None:
            yield np.zeros(POSE, np.float32)  # frame 0 is the portrait's own pose, its voice is not heard
            pending = voice[:0]
            voice = voice[1:]
        pending = torch.cat([pending, voice])
        while len(pending) >= BLOCK:
            before, pending = pending[:BLOCK], pending[BLOCK:]
            yield from made(before)
    if pending is not None and len(pending):
        heard = pending if before is None else torch.cat([before, pending])[-BLOCK:]
        yield from made(heard)[BLOCK - len(pending) :]


# ----------------------------------------------------------------------------------------------- whole
def rows_of(
    windows: Iterable[np.ndarray], expnet: nn.Module, posevae: Audio2Pose, source: np.ndarray, frames: int,
    settings: Settings | None = None, whole: bool = False,
) -> Iterator[np.ndarray]:  # fmt: skip
    """The coefficients of each frame, [70] float32, or [73] of a whole picture.

    Args:
        windows: [k, 80, 16] at a time.
        source: [73] of the portrait.
        frames: how many there will be, for the blinks' sake.
    """
    settings = settings or Settings()
    device = next(expnet.parameters()).device
    lids = framing.blinks(frames, random.Random(settings.seed)) if settings.lids is None else settings.lids
    portrait = torch.from_numpy(source[:EXPRESSIONS]).to(device)
    pose = source[EXPRESSIONS:CROPPED]
    expressions: deque[np.ndarray] = deque()
    told = 0

    def closed(i: int) -> float:
        if settings.lids is not None:
            return float(lids[to_and_fro(i, len(lids))])
        return float(lids[i]) if settings.blink and i < len(lids) else 0.0

    @torch.no_grad()
    def hear(block: np.ndarray) -> torch.Tensor:
        """Expressions of a block wait here, its voice goes on to the head."""
        nonlocal told
        mel = torch.from_numpy(block)[:, None].to(device)
        shut = [closed(told + k) for k in range(len(block))]
        told += len(block)
        closure = torch.tensor(shut, dtype=torch.float32, device=device)[:, None]
        expressions.extend(expnet(mel, portrait.expand(len(block), -1), closure).cpu().numpy())
        return posevae.audio_encoder(mel[:, 0])

    voices = (hear(block[k : k + BATCH]) for block in windows for k in range(0, len(block), BATCH))
    reference = torch.from_numpy(pose).to(device)
    head = smoothed(residuals(voices, posevae.netG.decoder, reference, settings.pose_style, settings.seed))
    for i, moved in enumerate(head):
        expression = expressions.popleft()
        expression = source[:EXPRESSIONS] + settings.expression_scale * (expression - source[:EXPRESSIONS])
        if settings.expression is not None:
            expression = expression + settings.expression
        here = pose + (0.0 if settings.still else settings.head_scale) * moved
        if settings.head is not None:
            here = here + settings.head[to_and_fro(i, len(settings.head))]
        parts = [expression, here, source[CROPPED:WHOLE]] if whole else [expression, here]
        yield np.concatenate(parts).astype(np.float32)
