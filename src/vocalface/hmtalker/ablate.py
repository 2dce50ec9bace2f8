"""The paper's ablations on one's own material: every switch over several seeds, one table with mean and spread."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocalface.errors import ConfigError
from vocalface.hmtalker.config import Config
from vocalface.hmtalker.train import train
from vocalface.training.files import write_atomically
from vocalface.types import Observations

VARIANTS: dict[str, dict] = {
    "hybrid": {},
    "implicit": {"fusion": "implicit"},
    "explicit": {"fusion": "explicit"},
    "concat": {"fusion": "concat"},
    "fixed": {"fusion": "fixed"},
    "blendshape": {"explicit": "blendshape"},
    "3dmm": {"explicit": "3dmm"},
    "expnet": {"mapper": "expnet"},
    "mel": {"audio": "mel"},
    "no-mask": {"path_audio": 0.4, "path_masked": 0.0, "path_vanilla": 0.6},
    "masked-1:7:2": {"path_audio": 0.1, "path_masked": 0.7, "path_vanilla": 0.2},
    "mask-0.9": {"mask_low": 0.9, "mask_high": 0.9},
}
"""Name -> changes of the configuration (Table 4 and Figures 6-7)."""

CONTROLS = ("undeformed", "shuffled_audio", "mouth_frozen")
"""Rows of the hybrid's own validation that stand beside the variants."""


@dataclass(frozen=True)
class Row:
    """Mean and standard deviation over seeds and clips of each number."""

    variant: str
    runs: int
    numbers: dict[str, tuple[float, float]]


def check_variants(variants: tuple[str, ...]) -> None:
    """Raises ConfigError for a name that is none."""
    unknown = set(variants) - set(VARIANTS)
    if unknown:
        raise ConfigError(
            f"no variant is called {', '.join(sorted(unknown))}", "--variants", f"use {', '.join(VARIANTS)}"
        )


def ablate(
    clips: dict[str, Observations],
    folder: Path,
    config: Config,
    *,
    variants: tuple[str, ...],
    seeds: int = 3,
    progress=None,
) -> list[Row]:
    """Train every variant on every clip with every seed.

    Finished runs are kept in `folder` and not trained again for the same clip and configuration; an interrupted one
    goes on.
    """
    check_variants(variants)
    folder.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[dict]] = {}
    for clip, obs in clips.items():
        for variant in variants:
            for seed in range(seeds):
                run = config.replace(seed=seed, **VARIANTS[variant])
                name = f"{clip}-{variant.replace(':', '')}-{seed}"
                metrics = finished(folder / f"{name}.json", obs, run)
                if metrics is None:
                    head = train(
                        obs, folder / "run.vface", config=run, work=folder / f".{name}.work", progress=progress
                    )
                    metrics = head.metrics
                    write_atomically(
                        folder / f"{name}.json",
                        json.dumps({"clip": obs.clip_hash, "config": run.to_dict(), "metrics": metrics}).encode(),
                    )
                runs.setdefault(variant, []).append(metrics["val"])
                if variant == "hybrid":
                    for row in CONTROLS:
                        runs.setdefault(row.replace("_", " "), []).append(metrics["rows"][row])
    for left in ("run.vface", "run.report.html"):  # of the last run
        (folder / left).unlink(missing_ok=True)
    return [summarise(name, values) for name, values in runs.items()]


def finished(path: Path, obs: Observations, config: Config) -> dict | None:
    """Metrics of a run that was finished before, or None where it was another clip or configuration."""
    try:
        done = json.loads(path.read_text())
        same = done["clip"] == obs.clip_hash and done["config"] == json.loads(json.dumps(config.to_dict()))
        return done["metrics"] if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def summarise(variant: str, runs: list[dict]) -> Row:
    numbers = {}
    for key in dict.fromkeys(k for run in runs for k in run):
        values = [run[key] for run in runs if isinstance(run.get(key), (int, float))]
        if values:
            numbers[key] = (float(np.mean(values)), float(np.std(values)))
    return Row(variant, len(runs), numbers)


def table(
    rows: list[Row], keys: tuple[str, ...] = ("psnr_head", "psnr_mouth", "lmd", "mouth_corr", "au26_corr")
) -> str:
    """Markdown, one line a variant."""
    lines = ["| variant | runs | " + " | ".join(keys) + " |", "|---|---|" + "---|" * len(keys)]
    for row in rows:
        cells = [f"{row.numbers[k][0]:.3f} ± {row.numbers[k][1]:.3f}" if k in row.numbers else "n/a" for k in keys]
        lines.append(f"| {row.variant} | {row.runs} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
