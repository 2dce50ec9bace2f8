"""Training of the open PoseVAE (`open_posevae.py`) on generated talks, and on a user's own clips where given.

ELBO with a Gaussian of fixed width, beside it, on motion drawn from the prior: its spectrum, its covariance and how it
goes with the prosody shall be those of the data. That does what the discriminator of the published PoseVAE is for
(motion as lively as the data's, where a VAE alone would be tame), without an adversary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocalface.errors import ConfigError
from vocalface.presenter.voice import Phone
from vocalface.sadtalker.open_posevae import (
    HEAD,
    HEARING,
    KIND,
    LATENTS,
    REACH,
    SCHEMA,
    SMOOTH,
    STRIDES,
    STYLES,
    spline,
)  # fmt: skip
from vocalface.sadtalker.open_run import Place, one_cycle, run
from vocalface.sadtalker.open_speech import Example, examples, head_motion
from vocalface.sadtalker.open_weights import check_output, save
from vocalface.sadtalker.prosody import PROSODY
from vocalface.sadtalker.train_run import sums
from vocalface.types import FPS

LEAST_FRAMES = 4 * STRIDES[-1]  # less leaves nothing between the ends that convolutions and statistics take


@dataclass(frozen=True)
class PoseVAEConfig:
    """How the network is built and trained."""

    hearing: int = 32  # width of what listens to the prosody
    moving: int = 64  # width of what moves the head
    styles: int = 6  # channels of a style
    steps: int = 1500
    batch: int = 8
    frames: int = 576
    rate: float = 3e-3
    spread: float = 0.2  # deviation of the data about the decoded motion, in deviations of a channel
    likeness: float = 20.0  # weight of what draws from the prior must share with the data
    variants: int = 4  # heads that are generated for each talk
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        sizes = (self.hearing, self.moving, self.styles, self.steps, self.batch, self.variants)
        if min(sizes) < 1 or self.rate <= 0 or self.spread <= 0:
            raise ConfigError("sizes, steps, batch, rate and spread are positive", "PoseVAEConfig", "see its defaults")
        if self.frames < LEAST_FRAMES:
            raise ConfigError(f"frames are at least {LEAST_FRAMES}", "PoseVAEConfig", "see its defaults")


@dataclass(frozen=True)
class Talk:
    """Half a minute of speech and a head."""

    prosody: np.ndarray  # [F, 5]
    head: np.ndarray  # [F, 6]; NaN where a channel is not known
    style: int


class Decoder(nn.Module):
    """Prosody, latents on their grids and a style -> standardised head; `OpenPoseVAE.run` is its twin on NumPy."""

    def __init__(self, config: PoseVAEConfig) -> None:
        super().__init__()
        h, m = config.hearing, config.moving
        self.listen = nn.Conv1d(len(PROSODY), h, 1)
        self.hear = nn.ModuleList(nn.Conv1d(h, h, taps, dilation=d) for taps, d, _ in HEARING)
        self.styles = nn.Parameter(0.3 * torch.randn(STYLES, config.styles))
        self.join = nn.Conv1d(h + sum(LATENTS) + config.styles, m, 1)
        self.move = nn.ModuleList(nn.Conv1d(m, m, taps, dilation=d) for taps, d in SMOOTH)
        self.head = nn.Conv1d(m, len(HEAD), 1)

    def forward(self, prosody: Tensor, latents: Tensor, style: Tensor) -> Tensor:
        """[B, 5, T], [B, 14, T] on the same frames, [B] -> [B, 6, T - context]."""
        x = F.gelu(self.listen(prosody), approximate="tanh")
        at, stop = 0, prosody.shape[-1]
        for layer, (taps, dilation, ahead) in zip(self.hear, HEARING):
            past = (taps - 1) * dilation - ahead
            x = x[..., past : x.shape[-1] - ahead] + F.gelu(layer(x), approximate="tanh")
            at, stop = at + past, stop - ahead
        manner = self.styles[style][..., None].expand(-1, -1, x.shape[-1])
        x = F.gelu(self.join(torch.cat([x, latents[..., at:stop], manner], 1)), approximate="tanh")
        for layer, (taps, dilation) in zip(self.move, SMOOTH):
            edge = (taps - 1) // 2 * dilation
            x = x[..., edge:-edge] + F.gelu(layer(x), approximate="tanh")
        return self.head(x)


class Encoder(nn.Module):
    """Head and prosody -> mean and log-variance of the latents on each grid; knot j lies at frame j * stride."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        channels, self.down, self.out, stride = len(HEAD) + len(PROSODY), nn.ModuleList(), nn.ModuleList(), 1
        self.stem = nn.Conv1d(channels, width, 5, padding=2)
        for goal, latents in zip(STRIDES, LATENTS):
            step = goal // stride
            self.down.append(nn.Conv1d(width, width, 2 * step + 1, stride=step, padding=step))
            self.out.append(nn.Conv1d(width, 2 * latents, 3, padding=1))
            stride = goal

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        x = F.gelu(self.stem(x))
        found = []
        for down, out in zip(self.down, self.out):
            x = F.gelu(down(x))
            mean, logvar = out(x).chunk(2, 1)
            found.append((mean, logvar.clamp(-8, 4)))
        return found


def spread_out(knots: list[Tensor], start: int, stop: int) -> Tensor:
    """Latents [B, C, knots] of each grid -> frames start..stop-1, [B, 14, T]."""
    out = []
    for z, stride in zip(knots, STRIDES):
        at = np.arange(start, stop) / stride
        base = np.floor(at).astype(int)
        weights = torch.from_numpy(spline(at - base).astype(np.float32))
        out.append(sum(weights[:, j] * z[..., torch.from_numpy(base - 1 + j)] for j in range(4)))
    return torch.cat(out, 1)


# ---------------------------------------------------------------------------------------------------------------- data
def talks_of(spoken: Sequence[Example], rng: np.random.Generator, variants: int, seconds: float = 40.0) -> list[Talk]:
    """Utterances strung together to talks, each with several heads of several styles."""
    order, talks = rng.permutation(len(spoken)), []
    rows, phones, length = [], [], 0
    for i in order:
        example = spoken[i]
        phones += [Phone(p.symbol, p.start + length / FPS, p.end + length / FPS) for p in example.phones]
        rows.append(example.prosody)
        length += len(example.prosody)
        if length >= seconds * FPS:
            prosody = np.concatenate(rows)
            for _ in range(variants):
                style = int(rng.integers(STYLES))
                talks.append(Talk(prosody, head_motion(prosody, phones, style, rng), style))
            rows, phones, length = [], [], 0
    return talks


def train_open_posevae(
    corpus: Sequence[Talk] | None, output: str | Path, *, hours: float = 1.0, seed: int = 0,
    config: PoseVAEConfig = PoseVAEConfig(), resume: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict:  # fmt: skip
    """Trains on generated talks, and on a corpus beside them where one is given, and writes the decoder's weights.

    Args:
        corpus: talks of the user's own material; with them, half of the batches are theirs.
        output: `.safetensors` file.
        hours: of speech to generate; each part of it gets several heads.
        resume: go on from what an interrupted run of the same arguments left; it ends in the same bits.
        progress: called with (phase, done, total).

    Returns:
        Figures: reconstruction, KL, and how like the data draws are.

    Raises:
        ConfigError, OutputError.
    """
    if not 0 < hours <= 100:
        raise ConfigError(f"Cannot train on {hours} hours of speech", "--set hours", "ask for 0.1 to 3")
    output = check_output(output)
    tell = progress or (lambda phase, done, total: None)
    rng = np.random.default_rng([seed, 51])
    spoken = list(examples(hours, seed, lambda done, total: tell("speech", done, total)))
    talks = talks_of(spoken, rng, config.variants, min(40.0, hours * 3600 / 4))
    own = list(corpus or ())
    told = [(*sums(t.prosody, t.head), t.style) for t in (*talks, *own)]
    place = Place.of(
        output, config.checkpoint_seconds, resume, KIND, replace(config, checkpoint_seconds=0.0), seed, told
    )  # fmt: skip
    tensors, figures = fit(talks, own, config, seed, tell, place)
    figures["minutes"] = round(sum(len(e.prosody) for e in spoken) / FPS / 60, 1)
    figures["corpus_minutes"] = round(sum(len(t.prosody) for t in own) / FPS / 60, 1)
    save(output, KIND, tensors, {"schema": SCHEMA, **asdict(config), "seed": seed, "figures": figures})
    place.clear()
    return figures


# ------------------------------------------------------------------------------------------------------------ training
def fit(
    talks: Sequence[Talk], corpus: Sequence[Talk], config: PoseVAEConfig, seed: int,
    tell: Callable[[str, int, int], None] = lambda phase, done, total: None, place: Place | None = None,
) -> tuple[dict[str, np.ndarray], dict]:  # fmt: skip
    """Trains the VAE, from where `place` has it; gives the decoder's tensors and figures."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 52])
    every = np.concatenate([t.head for t in talks])
    mean, std = every.mean(0), every.std(0) + 1e-6
    decoder, encoder = Decoder(config), Encoder()
    optimiser = torch.optim.AdamW([*decoder.parameters(), *encoder.parameters()], config.rate, weight_decay=0.002)
    schedule = one_cycle(optimiser, config.rate, config.steps, 0.1)
    kept: dict = {"goals": {}}  # of (style, whether it is the user's own): statistics

    def one(step: int) -> None:
        goals = kept["goals"]
        own = bool(corpus) and step % 2 == 1
        pool = corpus if own else talks
        style = pool[rng.integers(len(pool))].style  # a batch has one style, so that its statistics are that style's
        same = [t for t in pool if t.style == style]
        prosody, motion = _batch(same, config, rng)
        motion = (motion - torch.tensor(mean)[:, None]) / torch.tensor(std)[:, None]
        known = torch.isfinite(motion)
        motion = torch.nan_to_num(motion)
        manner = torch.full((len(motion),), style)
        found = encoder(torch.cat([motion, prosody], 1))
        first, last = STRIDES[-1], config.frames - 2 * STRIDES[-1]
        knots = [m + torch.randn_like(m) * (0.5 * v).exp() for m, v in found]
        heard = prosody[..., first:last]
        made = decoder(heard, spread_out(knots, first, last), manner)
        begin = first + (last - first - made.shape[-1]) - REACH - sum(a for _, _, a in HEARING)
        true, seen = motion[..., begin : begin + made.shape[-1]], known[..., begin : begin + made.shape[-1]]
        error = torch.where(seen, made - true, 0.0)
        recon = (error**2).sum(1).mean() + 4 * (error.diff(dim=-1) ** 2).sum(1).mean()
        kl = sum(
            (0.5 * (m**2 + v.exp() - 1 - v)).sum(1).mean() / stride for (m, v), stride in zip(found, STRIDES)
        )  # nats a frame
        drawn = decoder(heard, spread_out([torch.randn_like(m) for m, _ in found], first, last), manner)
        window = heard[..., begin - first : begin - first + made.shape[-1]]
        goal = goals.get((style, own))
        now = [g.detach() for g in statistics(true, window)]
        goals[style, own] = now if goal is None else [0.93 * g + 0.07 * n for g, n in zip(goal, now)]
        likeness = sum(
            ((a - b) ** 2).mean() for a, b in zip(statistics(drawn, window), goals[style, own])
        )  # running means of the data are less noisy than a batch
        ramp = min(1.0, 0.2 + step / (0.5 * config.steps))
        loss = recon / (2 * config.spread**2) + ramp * kl + config.likeness * likeness
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*decoder.parameters(), *encoder.parameters()], 5.0)
        optimiser.step()
        schedule.step()
        kept["reconstruction"], kept["kl"], kept["likeness"] = recon.item(), kl.item(), likeness.item()
        if step % 20 == 19 or step + 1 == config.steps:
            tell("training", step + 1, config.steps)

    parts = {"decoder": decoder, "encoder": encoder, "optimiser": optimiser, "schedule": schedule}
    run(config.steps, one, parts, kept, rng, place)
    tensors = {name: value.detach().numpy() for name, value in decoder.state_dict().items()}
    tensors |= {"head_mean": mean, "head_std": std}
    return tensors, {name: round(kept[name], 4) for name in ("reconstruction", "kl", "likeness")}


def _batch(talks: Sequence[Talk], config: PoseVAEConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Prosody [B, 5, T] and heads [B, 6, T]; half of the heads are mirrored."""
    prosody, heads = [], []
    for _ in range(config.batch):
        talk = talks[rng.integers(len(talks))]
        start = int(rng.integers(0, max(len(talk.head) - config.frames, 0) + 1))
        at = np.clip(np.arange(start, start + config.frames), 0, len(talk.head) - 1)
        head = talk.head[at].copy()
        if rng.random() < 0.5:
            head[:, [0, 2, 3]] *= -1
        prosody.append(talk.prosody[at].T)
        heads.append(head.T)
    return torch.from_numpy(np.stack(prosody)), torch.from_numpy(np.stack(heads).astype(np.float32))


def statistics(motion: Tensor, prosody: Tensor) -> list[Tensor]:
    """What draws shall share with data: log spectrum, covariances, response to prosody, peakedness of speed.

    Args:
        motion: [B, 6, T] standardised; prosody: [B, 5, T].
    """
    count = motion.shape[-1]
    window = torch.hann_window(count)
    power = (torch.fft.rfft(motion * window).abs() ** 2).mean(0)  # [6, K]
    edges = torch.unique(torch.logspace(0, np.log10(count // 2), 14).long())
    bands = torch.stack([power[:, a:b].mean(1) for a, b in zip([0, *edges.tolist()], edges.tolist())], 1)
    speed = motion.diff(dim=-1)
    out = [(bands / count + 1e-5).log(), 3 * _covariance(motion), 30 * _covariance(speed)]
    heard = prosody - prosody.mean(-1, keepdim=True)
    moved = motion - motion.mean(-1, keepdim=True)
    reach = 16
    lively = (speed**2 + 1e-4).sqrt()
    lively = F.pad(lively - lively.mean(-1, keepdim=True), (1, 0))
    for signal, weight in ((moved, 20.0), (lively, 60.0)):  # where it goes, and when it goes
        middle = signal[..., reach:-reach]
        out.append(torch.stack([
            torch.einsum("bct,bpt->cp", middle, heard[..., reach + k : count - reach + k])
            for k in range(-reach, reach + 1, 3)
        ]) * (weight / middle[:, 0].numel()))  # fmt: skip
    second = (speed**2).mean((0, 2)) + 1e-8
    return [*out, ((speed**4).mean((0, 2)) / second**2 + 1e-3).log()]


def _covariance(x: Tensor) -> Tensor:
    x = x - x.mean((0, 2), keepdim=True)
    return torch.einsum("bct,bdt->cd", x, x) / x[:, 0].numel()
