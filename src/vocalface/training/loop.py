"""The loop around a training step: progress, checkpoints, a clean stop, and steps whose gradients are not finite."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping

import torch

from vocalface.errors import VocalfaceError
from vocalface.training.progress import NullProgress, Progress


class SkipStep(Exception):
    """Raised in a step to leave it out: nothing was changed by it."""


def finite_gradients(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether every gradient is finite (parameters without one are passed over)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return True
    return bool(torch.stack([g.sum().isfinite() for g in gradients]).all())


def step_optimizers(*optimizers: torch.optim.Optimizer) -> None:
    """Steps and clears all `optimizers`, or clears them and raises SkipStep when any gradient is not finite."""
    parameters = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    good = finite_gradients(parameters)
    for optimizer in optimizers:
        if good:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if not good:
        raise SkipStep("gradients are not finite")


class Loop:
    """Runs `step_fn(step)` for step = start .. total - 1.

    Args:
        total_steps: steps in all, those of earlier runs included.
        step_fn: one step; may return values to show, and raises SkipStep to be left out (see `step_optimizers`).
        save_fn: called with the number of steps done; writes the checkpoint.
        checkpoint_every_seconds, checkpoint_every_steps: when to save; None leaves that rule out. The end always saves.
        progress: shown while running.
        max_skips: skipped steps in a row after which the run fails.
        heard: (number of the signal that came, or 0) -> that of all processes, so that they stop after the same step.
        clock: seconds, for tests.

    SIGINT and SIGTERM finish the step, save, and raise KeyboardInterrupt; a second one raises at once.
    """

    def __init__(
        self,
        total_steps: int,
        step_fn: Callable[[int], Mapping[str, float] | None],
        *,
        save_fn: Callable[[int], object] | None = None,
        checkpoint_every_seconds: float | None = 60.0,
        checkpoint_every_steps: int | None = None,
        progress: Progress | NullProgress | None = None,
        max_skips: int = 50,
        heard: Callable[[int], int] = int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.step_fn, self.save_fn = total_steps, step_fn, save_fn
        self.every_seconds, self.every_steps = checkpoint_every_seconds, checkpoint_every_steps
        self.progress = progress if progress is not None else NullProgress()
        self.max_skips, self.heard, self.clock = max_skips, heard, clock
        self.skipped = 0  # in all
        self._in_a_row = 0
        self._saved_at = self._saved_step = -1

    def run(self, start: int = 0) -> None:
        """Runs from `start` (steps that a checkpoint holds) to the end.

        Raises:
            VocalfaceError: training diverged.
            KeyboardInterrupt: stopped by a signal, after a checkpoint.
        """
        self._saved_at, self._saved_step = self.clock(), start
        with _Signals() as signals:
            for step in range(start, self.total):
                values = self._step(step)
                done = step + 1
                self.progress.update(done, **values)
                stop = self.heard(signals.received)
                if stop or self._due(done):
                    self._save(done)
                if stop:
                    raise KeyboardInterrupt(signal.Signals(stop).name)
            if self._saved_step != self.total:
                self._save(self.total)

    def _step(self, step: int) -> Mapping[str, float]:
        try:
            values = self.step_fn(step) or {}
        except SkipStep as skip:
            self.skipped += 1
            self._in_a_row += 1
            if self._in_a_row >= self.max_skips:
                raise VocalfaceError(
                    f"training diverged: {self._in_a_row} steps in a row left out ({skip})",
                    f"step {step} of {self.total}",
                    "resume from the last checkpoint with smaller learning rates",
                ) from None
            return {"skipped": self.skipped}
        self._in_a_row = 0
        return values

    def _due(self, done: int) -> bool:
        if self.every_steps and done % self.every_steps == 0:
            return True
        return self.every_seconds is not None and self.clock() - self._saved_at >= self.every_seconds

    def _save(self, done: int) -> None:
        if self.save_fn is not None:
            self.save_fn(done)
        self._saved_at, self._saved_step = self.clock(), done


class _Signals:
    """Notes SIGINT and SIGTERM while open. Signals reach the main thread only: elsewhere it does nothing."""

    def __enter__(self) -> _Signals:
        self.received = 0
        self._old = {}
        if threading.current_thread() is threading.main_thread():
            self._old = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.received:
            raise KeyboardInterrupt(signal.Signals(number).name)
        self.received = number
