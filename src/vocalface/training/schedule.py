"""Schedules as pure functions of the step."""

from __future__ import annotations

import math


def linear(step: float, start: float, end: float, steps: float) -> float:
    """From `start` at step 0 to `end` at `steps`, constant after. (Pruning opacity .05 -> .30 over 49,000 steps.)"""
    return start + (end - start) * min(max(step / steps, 0.0), 1.0)


def log_linear(step: float, start: float, end: float, steps: float) -> float:
    """From `start` to `end` along a straight line of logarithms, constant after (3DGS, learning rate of means)."""
    return math.exp(linear(step, math.log(start), math.log(end), steps))


def cosine(step: float, start: float, end: float, steps: float, warmup: float = 0) -> float:
    """Linear from 0 to `start` over `warmup` steps, then half a cosine from `start` to `end` at `steps`."""
    if step < warmup:
        return start * (step + 1) / warmup
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * linear(step - warmup, 0, 1, max(steps - warmup, 1))))


def motion_factor(step: float, knee: float = 40_000, total: float = 50_000) -> float:
    """Factor on the learning rates of a motion field (TalkingGaussian, which HM-Talker builds on).

    .5^(step/knee) before `knee`, .1^(step/total) from there: 1 at the start, .5 just before the knee, .1 at the end.
    The face field has its knee at 40,000 of 50,000 steps, the mouth field at 39,000 of 49,000.
    """
    return 0.5 ** (step / knee) if step < knee else 0.1 ** (step / total)


def sh_degree(step: int, every: int = 1_000, highest: int = 2) -> int:
    """Active degree of the spherical harmonics: one more every `every` steps (3DGS)."""
    return min(step // every, highest)
