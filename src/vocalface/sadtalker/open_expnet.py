"""An ExpNet of our own: the articulatory feature in, what the lips do out, frame by frame, for the built-in renderer.

A small convolutional network on what the articulatory encoder hears (`observe/speech/articulatory.py`), taught on
speech that programs generate, whose lips are known; no footage, no recordings. Runs on NumPy alone; training needs
torch. See MODEL_CARD_EXPNET.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vocalface.errors import ConfigError
from vocalface.observe.speech.articulatory import MOTIONS
from vocalface.sadtalker.open_weights import Context, check_output, convolve, gelu, load, save

if TYPE_CHECKING:  # it needs torch, which speaking does without
    from vocalface.sadtalker.open_run import Place

WEIGHTS = Path(__file__).with_name("open_expnet.safetensors")
KIND, SCHEMA = "expnet", 1
BLOCKS = ((5, 1), (3, 2))  # taps and dilation
RADIUS = sum((taps - 1) // 2 * dilation for taps, dilation in BLOCKS)


@dataclass(frozen=True)
class ExpNetConfig:
    """How the network is built and trained."""

    hidden: int = 64
    ahead: int = 2  # frames of the feature that it waits for
    noise: float = 1.0  # deviation of what is added to the standardised feature: real voices are less regular
    dropout: float = 0.3
    steps: int = 1500
    batch: int = 32
    frames: int = 96
    rate: float = 2e-3
    weight_decay: float = 0.01
    correlation: float = 0.5  # weight of 1 - r
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if min(self.hidden, self.steps, self.batch) < 1 or self.frames < 2 or self.rate <= 0 or self.ahead < 0:
            raise ConfigError("hidden, steps, batch, frames and rate are positive", "ExpNetConfig", "see its defaults")
        if self.ahead > 2 * RADIUS or not 0 <= self.dropout < 1:
            raise ConfigError(f"ahead is at most {2 * RADIUS}, dropout below 1", "ExpNetConfig", "see its defaults")


class OpenExpNet:
    """The trained network. Immutable."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.tensors, self.config = _cached(Path(path) if path else WEIGHTS)
        self.after = self.config["ahead"]
        self.before = 2 * RADIUS - self.after

    def __call__(self, feature: np.ndarray) -> np.ndarray:
        """Motions [F, 10], columns `MOTIONS`, of articulatory features [F, 176]."""
        stream = self.stream()
        return np.concatenate([stream.push(feature), stream.flush()])

    def stream(self) -> ExpNetStream:
        return ExpNetStream(self)

    def run(self, x: np.ndarray) -> np.ndarray:
        """Features [T, 176] -> motions [T - before - after, 10]."""
        t = self.tensors
        x = gelu(x @ t["stem.weight"][:, :, 0].T + t["stem.bias"])
        for i, (taps, dilation) in enumerate(BLOCKS):
            edge = (taps - 1) // 2 * dilation
            x = x[edge : len(x) - edge] + gelu(convolve(x, t[f"blocks.{i}.weight"], t[f"blocks.{i}.bias"], dilation))
        return (x @ t["head.weight"][:, :, 0].T + t["head.bias"]) * t["motion_std"] + t["motion_mean"]


@cache
def _cached(path: Path) -> tuple[dict, dict]:
    return load(path, KIND, SCHEMA)


class ExpNetStream:
    """Rows of the feature in, rows of motions out, `ahead` frames later."""

    def __init__(self, network: OpenExpNet) -> None:
        self.network, self.context = network, Context(network.before, network.after)

    def push(self, rows: np.ndarray) -> np.ndarray:
        return self._run(self.context.push(rows))

    def flush(self) -> np.ndarray:
        return self._run(self.context.flush())

    def _run(self, block: np.ndarray | None) -> np.ndarray:
        return np.zeros((0, len(MOTIONS)), np.float32) if block is None else self.network.run(block)


# ------------------------------------------------------------------------------------------------------------ training
Pair = tuple[np.ndarray, np.ndarray]
"""Articulatory feature [F, 176] and motions [F, 10] at 25 fps."""


def train_open_expnet(
    corpus: Sequence[Pair] | None,
    output: str | Path,
    *,
    hours: float = 1.0,
    seed: int = 0,
    config: ExpNetConfig = ExpNetConfig(),
    resume: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict:
    """Trains on generated speech, and on a corpus beside it where one is given, and writes the weights.

    Args:
        corpus: pairs of the user's own material; with them, half of every batch is theirs. NaN in a motion means that
            it is not known there.
        output: `.safetensors` file.
        hours: of speech to generate.
        resume: go on from what an interrupted run of the same arguments left; it ends in the same bits.
        progress: called with (phase, done, total).

    Returns:
        Figures on held-out generated speech: r per motion, minutes by source.

    Raises:
        ConfigError, OutputError.
    """
    if not 0 < hours <= 100:
        raise ConfigError(f"Cannot train on {hours} hours of speech", "--set hours", "ask for 0.05 to 3")
    output = check_output(output)
    from vocalface.sadtalker.open_run import Place
    from vocalface.sadtalker.open_speech import examples
    from vocalface.sadtalker.train_run import sums

    tell = progress or (lambda phase, done, total: None)
    pairs, minutes = [], {}
    for example in examples(hours, seed, lambda done, total: tell("speech", done, total)):
        pairs.append((example.speech, example.lips))
        minutes[example.source] = minutes.get(example.source, 0) + len(example.lips) / 1500
    held_out, own = max(len(pairs) // 20, 1), list(corpus or ())
    told = [sums(*pair) for pair in (*pairs, *own)]
    place = Place.of(
        output, config.checkpoint_seconds, resume, KIND, replace(config, checkpoint_seconds=0.0), seed, told
    )  # fmt: skip
    tensors, figures = fit(pairs[held_out:], own, pairs[:held_out], config, seed, tell, place)
    figures["minutes"] = {source: round(value, 1) for source, value in minutes.items()}
    figures["corpus_minutes"] = round(sum(len(lips) for _, lips in own) / 1500, 1)
    save(output, KIND, tensors, {"schema": SCHEMA, **asdict(config), "seed": seed, "figures": figures})
    place.clear()
    return figures


def fit(
    pairs: Sequence[Pair], corpus: Sequence[Pair], held_out: Sequence[Pair], config: ExpNetConfig, seed: int,
    tell: Callable[[str, int, int], None] = lambda phase, done, total: None, place: Place | None = None,
) -> tuple[dict[str, np.ndarray], dict]:  # fmt: skip
    """Trains the network, from where `place` has it; gives its tensors and figures."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    from vocalface.articulation.train import correlation, pearson
    from vocalface.sadtalker.open_run import one_cycle, run

    class Net(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.stem = nn.Conv1d(inputs, config.hidden, 1)
            self.blocks = nn.ModuleList(nn.Conv1d(config.hidden, config.hidden, k, dilation=d) for k, d in BLOCKS)
            self.head = nn.Conv1d(config.hidden, len(MOTIONS), 1)
            self.dropout = nn.Dropout(config.dropout)

        def forward(self, x):
            x = F.gelu(self.stem(self.dropout(x)), approximate="tanh")
            for block, (taps, dilation) in zip(self.blocks, BLOCKS):
                edge = (taps - 1) // 2 * dilation
                x = x[..., edge:-edge] + self.dropout(F.gelu(block(x), approximate="tanh"))
            return self.head(x)

    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 41])
    known = np.concatenate([lips for _, lips in pairs])
    mean, std = known.mean(0), known.std(0) + 1e-6
    network = Net(pairs[0][0].shape[1])
    optimiser = torch.optim.AdamW(network.parameters(), config.rate, weight_decay=config.weight_decay)
    schedule = one_cycle(optimiser, config.rate, config.steps, 0.2)
    kept: dict = {}

    def one(step: int) -> None:
        x, y = _batch(pairs, corpus, config, rng)
        x = torch.from_numpy(x + config.noise * rng.normal(size=x.shape).astype(np.float32))
        y = (y - mean[:, None]) / std[:, None]
        seen = torch.from_numpy(np.isfinite(y))
        target = torch.from_numpy(np.nan_to_num(y).astype(np.float32))
        guess = torch.where(seen, network(x), 0.0)
        loss = F.mse_loss(guess, target) + config.correlation * (1 - correlation(guess, target).mean())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        kept["loss"] = loss.item()
        if step % 25 == 24 or step + 1 == config.steps:
            tell("training", step + 1, config.steps)

    run(config.steps, one, {"network": network, "optimiser": optimiser, "schedule": schedule}, kept, rng, place)
    network.eval()
    tensors = {name: value.numpy() for name, value in network.state_dict().items()}
    tensors |= {"motion_mean": mean, "motion_std": std}
    made = OpenExpNet.__new__(OpenExpNet)
    made.tensors, made.config = {k: v.astype(np.float32) for k, v in tensors.items()}, asdict(config)
    made.after, made.before = config.ahead, 2 * RADIUS - config.ahead
    guesses = np.concatenate([made(speech) for speech, _ in held_out])
    truth = np.concatenate([lips for _, lips in held_out])
    r = {name: round(pearson(guesses[:, k], truth[:, k]), 3) for k, name in enumerate(MOTIONS)}
    return tensors, {"r": r, "loss": round(kept["loss"], 3)}


def _batch(pairs: Sequence[Pair], corpus: Sequence[Pair], config: ExpNetConfig, rng) -> tuple[np.ndarray, np.ndarray]:
    """Features [B, 176, T + 2 RADIUS] and motions [B, 10, T]; short utterances are repeated at their edges."""
    xs, ys = [], []
    before = 2 * RADIUS - config.ahead
    for k in range(config.batch):
        pool = corpus if corpus and k % 2 else pairs
        speech, lips = pool[rng.integers(len(pool))]
        start = int(rng.integers(0, max(len(lips) - config.frames, 0) + 1))
        at = np.arange(start - before, start + config.frames + config.ahead)
        xs.append(speech[np.clip(at, 0, len(speech) - 1)].T)
        ys.append(lips[np.clip(at[before : before + config.frames], 0, len(lips) - 1)].T)
    return np.stack(xs), np.stack(ys)
