"""The articulatory network and its training on speech that tools generate.

`observe/speech/articulatory.py` runs the trained network on NumPy; this module is its definition for training.
Recipe: log-mel columns -> Conv1d(80, 96, 5) -> four residual blocks (kernel 3, dilations 1 2 4 6) -> ten motions and,
only while training, the phone. All convolutions are valid: context is given by the input, so that a stream and a file
agree. The targets come from `presenter.articulation` and the phones' known times; no footage is involved.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vocalface.articulation import spoken
from vocalface.errors import ConfigError, OutputError
from vocalface.observe.speech.articulatory import MOTIONS, RANGE_DB, SCALE_DB, SCHEMA, Normaliser
from vocalface.observe.speech.mel import BANDS, COLUMN_RATE


@dataclass(frozen=True)
class ArticulationConfig:
    """How the articulatory network is built and trained."""

    hidden: int = 96  # width of every layer, and of the feature
    dilations: tuple[int, ...] = (1, 2, 4, 6)
    dropout: float = 0.1
    lead: int = 0  # columns by which the context leans to the past: less look-ahead
    steps: int = 4000
    batch: int = 16
    columns: int = 256  # mel columns of a training excerpt, 3.2 s
    rate: float = 2e-3  # peak learning rate of AdamW, one cycle
    weight_decay: float = 0.01
    correlation: float = 0.5  # weight of 1 - r
    phones: float = 0.5  # weight of the phones' cross-entropy


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv = nn.Conv1d(width, width, 3, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.mix(self.dropout(F.gelu(self.conv(x), approximate="tanh")))
        return x[..., self.dilation : -self.dilation] + inner


class ArticulationNet(nn.Module):
    """Normalised mel columns [B, 80, T] -> hidden [B, H, T'], motions [B, 10, T'], phone logits [B, P, T']."""

    def __init__(self, config: ArticulationConfig = ArticulationConfig()) -> None:
        super().__init__()
        self.stem = nn.Conv1d(BANDS, config.hidden, 5)
        self.blocks = nn.ModuleList(_Block(config.hidden, d, config.dropout) for d in config.dilations)
        self.head = nn.Conv1d(config.hidden, len(MOTIONS), 1)
        self.phones = nn.Conv1d(config.hidden, len(spoken.CLASSES), 1)
        self.radius = 2 + sum(config.dilations)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = F.gelu(self.stem(x), approximate="tanh")
        for block in self.blocks:
            x = block(x)
        seen = F.gelu(x, approximate="tanh")
        return x, self.head(seen), self.phones(seen)


@dataclass
class _Corpus:
    """Training speech, one entry an utterance."""

    columns: list[np.ndarray]  # [T, 80] normalised
    motions: list[np.ndarray]  # [T, 10]
    phones: list[np.ndarray]  # [T] class index
    prior_mean: np.ndarray  # [80]


def train(
    out: str | Path,
    *,
    hours: float = 2.0,
    seed: int = 0,
    config: ArticulationConfig = ArticulationConfig(),
    progress: Callable[[str, int, int], None] | None = None,
) -> dict:
    """Generates speech, trains the network on it and writes its weights.

    Args:
        out: the `.safetensors` file to write; it appears only when it is whole.
        hours: of speech to generate. Our formant voice always speaks; espeak-ng and flite do where they are on PATH.
        seed: of everything random.
        config: network and schedule.
        progress: called with (phase, done, total).

    Returns:
        Figures on held-out synthetic speech: `r` per motion, `phone_accuracy`, and `minutes` of speech by source.

    Raises:
        ConfigError: hours that make no sense.
        OutputError: `out` cannot be written.
    """
    if not 0 < hours <= 100:
        raise ConfigError(f"Cannot train on {hours} hours of speech", "hours", "ask for 0.05 to 3")
    out = Path(out)
    if not out.parent.is_dir():
        raise OutputError("The folder does not exist", out.parent, f"mkdir -p {out.parent}")
    tell = progress or (lambda phase, done, total: None)
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 4])
    utterances, minutes = [], {}
    for utterance in spoken.corpus(hours, seed, lambda done, total: tell("speech", done, total)):
        utterances.append(utterance)
        minutes[utterance.source] = minutes.get(utterance.source, 0) + len(utterance.motions) / COLUMN_RATE / 60
    corpus = _prepare(utterances)
    held_out = rng.permutation(len(utterances))[: max(len(utterances) // 20, 1)]
    network, scale = _fit(corpus, set(held_out.tolist()), config, rng, tell)
    figures = _validate(network, scale, corpus, held_out, config)
    figures["minutes"] = {source: round(value, 1) for source, value in minutes.items()}
    _save(out, network, scale, corpus, config, figures, seed)
    return figures


def _prepare(utterances: list[spoken.Spoken]) -> _Corpus:
    """Finds the prior mean spectrum, then normalises every utterance as at run time."""
    running, means = Normaliser(np.zeros(BANDS)), []
    for u in utterances[:: max(len(utterances) // 100, 1)]:
        running.push(u.db)
        means.append(running.mean)
    prior = np.mean(means[len(means) // 4 :], axis=0).astype(np.float32)
    return _Corpus(
        [Normaliser(prior).push(u.db) for u in utterances],
        [u.motions for u in utterances],
        [u.phones for u in utterances],
        prior,
    )


def _fit(corpus, held_out: set[int], config: ArticulationConfig, rng, tell):
    """Trains; gives the network and (mean, deviation) of the motions."""
    used = [i for i in range(len(corpus.columns)) if i not in held_out]
    every = np.concatenate([corpus.motions[i] for i in used])
    mean, std = every.mean(axis=0), every.std(axis=0) + 1e-6
    network = ArticulationNet(config)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.rate, total_steps=config.steps, pct_start=0.15)
    weights = np.array([len(corpus.columns[i]) for i in used], dtype=float)
    network.train()
    for step in range(config.steps):
        picks = rng.choice(used, config.batch, p=weights / weights.sum())
        x, y, phone = _excerpts(corpus, picks, config, network.radius, rng)
        y = (y - mean[:, None]) / std[:, None]
        _, motions, logits = network(torch.from_numpy(x))
        target = torch.from_numpy(y.astype(np.float32))
        loss = F.mse_loss(motions, target) + config.correlation * (1 - correlation(motions, target).mean())
        loss = loss + config.phones * F.cross_entropy(logits, torch.from_numpy(phone))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 25 == 24 or step + 1 == config.steps:
            tell("training", step + 1, config.steps)
    return network.eval(), (mean, std)


def _excerpts(corpus: _Corpus, picks, config: ArticulationConfig, radius: int, rng):
    """A batch: columns [B, 80, T], motions [B, 10, T - 2 radius], phone classes [B, T - 2 radius].

    One excerpt in twenty begins with the sound itself, so that the network knows how a stream starts.
    """
    silence = (-RANGE_DB - corpus.prior_mean) / SCALE_DB
    left, right = radius + config.lead, radius - config.lead
    length = config.columns
    xs, ys, ps = [], [], []
    for i in picks:
        total = len(corpus.columns[i])
        start = int(rng.integers(0, max(total - length, 0) + 1)) if rng.random() > 0.05 else 0
        at = np.arange(start - left, start + length + right)
        inside = (at >= 0) & (at < total)
        x = np.where(inside[:, None], corpus.columns[i][np.clip(at, 0, total - 1)], silence)
        middle = np.clip(np.arange(start, start + length), 0, total - 1)
        xs.append(_mask(x.astype(np.float32), rng).T)
        ys.append(corpus.motions[i][middle].T)
        ps.append(corpus.phones[i][middle])
    return np.stack(xs), np.stack(ys), np.stack(ps)


def _mask(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Augments normalised columns: a smooth random tilt of the spectrum, and now and then a band taken away."""
    knots = rng.normal(0, 0.2, 6)
    x = x + np.interp(np.linspace(0, 5, BANDS), np.arange(6), knots).astype(np.float32) + np.float32(rng.normal(0, 0.1))
    if rng.random() < 0.3:
        low = rng.integers(0, BANDS - 10)
        x[:, low : low + rng.integers(3, 12)] = x.min()
    return x


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson's r over the last axis."""
    a = a - a.mean(-1, keepdim=True)
    b = b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-3)


@torch.no_grad()
def _validate(network: ArticulationNet, scale, corpus: _Corpus, held_out, config: ArticulationConfig) -> dict:
    predicted, true, right, count = [], [], 0, 0
    for i in held_out:
        _, motions, logits = network(torch.from_numpy(_padded(corpus, i, network.radius, config).T[None]))
        predicted.append(motions[0].T.numpy() * scale[1] + scale[0])
        true.append(corpus.motions[i])
        right += int((logits[0].argmax(0).numpy() == corpus.phones[i]).sum())
        count += len(corpus.phones[i])
    predicted, true = np.concatenate(predicted), np.concatenate(true)
    r = {name: round(pearson(predicted[:, k], true[:, k]), 3) for k, name in enumerate(MOTIONS)}
    return {"r": r, "phone_accuracy": round(right / count, 3)}


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two rows; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))


def _padded(corpus: _Corpus, index: int, radius: int, config: ArticulationConfig) -> np.ndarray:
    silence = np.float32((-RANGE_DB - corpus.prior_mean) / SCALE_DB)
    left, right = np.tile(silence, (radius + config.lead, 1)), np.tile(silence, (radius - config.lead, 1))
    return np.concatenate([left, corpus.columns[index], right]).astype(np.float32)


@torch.no_grad()
def _save(out: Path, network: ArticulationNet, scale, corpus: _Corpus, config, figures: dict, seed: int) -> None:
    from safetensors.numpy import save_file

    rows = [
        network(torch.from_numpy(_padded(corpus, i, network.radius, config).T[None]))[0][0].T.numpy()
        for i in range(0, len(corpus.columns), max(len(corpus.columns) // 60, 1))
    ]
    hidden = np.concatenate(rows)
    tensors = {k: v.numpy() for k, v in network.state_dict().items() if not k.startswith("phones.")}
    tensors |= {
        "hidden_mean": hidden.mean(axis=0),
        "hidden_std": hidden.std(axis=0) + 1e-3,
        "motion_mean": scale[0],
        "motion_std": scale[1],
        "prior_mean": corpus.prior_mean,
    }
    meta = {"schema": SCHEMA, **asdict(config), "seed": seed, "figures": figures}
    half = {name: np.ascontiguousarray(value, np.float16) for name, value in tensors.items()}
    part = out.with_name(f".{out.name}.part")
    try:
        save_file(half, part, {"config": json.dumps(meta)})
        part.chmod(0o644)
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"Cannot write the weights ({error})", out, "choose another file with -o") from None
