"""Progress on stderr with a true time left: measured from the recent pace, not from the average since the start.

stdout stays free for results. On a terminal a bar is drawn; elsewhere (a log file, CI) a line is written every few
seconds.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

WINDOW = 30.0  # seconds that "recent" means
EVERY = 5.0  # seconds between plain lines

Callback = Callable[[int, int, str], None]
"""What rooms without training call: (done, total, label)."""


class Pace:
    """Steps a second over the last `window` seconds, and the seconds that are left at that pace."""

    def __init__(self, total: int, window: float = WINDOW) -> None:
        self.total, self.window = total, window
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, now: float, done: float) -> None:
        samples = self._samples
        samples.append((now, done))
        while len(samples) > 2 and samples[1][0] <= now - self.window:
            samples.popleft()  # keeps one sample at or past the window's edge

    @property
    def rate(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (t0, d0), (t1, d1) = self._samples[0], self._samples[-1]
        return (d1 - d0) / (t1 - t0) if t1 > t0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds left, None while unknown."""
        if not self._samples:
            return None
        todo = self.total - self._samples[-1][1]
        return 0.0 if todo <= 0 else todo / self.rate if self.rate > 0 else None


class Progress:
    """A bar. Use as a context manager, or call `close`.

    Args:
        total: steps in all.
        label: what is going on, two or three words.
        enabled: False writes nothing.
        stream: where to write, stderr by default; `clock`: seconds, for tests.
    """

    def __init__(
        self, total: int, label: str = "", *, enabled: bool = True, stream: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.total, self.label, self.enabled = total, label, enabled
        self._stream, self._clock = stream if stream is not None else sys.stderr, clock
        self._pace = Pace(total)  # counts from the first report: setting up is no step, nor are those before a resume
        self._told = clock()
        self._bar = self._task = None
        if enabled and getattr(self._stream, "isatty", lambda: False)():
            self._open_bar()

    def update(self, done: int, **values: float | str) -> None:
        """`done` steps of the total are behind us; `values` (loss=…, psnr=…) are shown beside the bar."""
        if not self.enabled:
            return
        now = self._clock()
        self._pace.add(now, done)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, values=_values(values), left=clock_text(self._pace.left))
        elif now - self._told >= EVERY or done >= self.total:
            self._told = now
            share = f"{done}/{self.total} ({100 * done / max(self.total, 1):.0f} %)"
            left = f"{clock_text(self._pace.left)} left"
            line = "  ".join(filter(None, [self.label, share, left, _values(values)]))
            self._stream.write(line + "\n")
            self._stream.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self.enabled = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.errors import LiveError
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = [TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(),
                   TextColumn("{task.fields[left]} left"), TextColumn("{task.fields[values]}")]  # fmt: skip
        self._bar = Bar(*columns, console=Console(file=self._stream), refresh_per_second=4, transient=False)
        self._task = self._bar.add_task(self.label, total=self.total, values="", left="?")
        try:
            self._bar.start()
        except LiveError:  # a bar within a bar: plain lines for the inner one
            self._bar = None


class NullProgress:
    """Takes what Progress takes and says nothing."""

    def __init__(self, total: int = 0, label: str = "", **_: Any) -> None:
        self.total, self.label = total, label

    def update(self, done: int, **values: float | str) -> None:
        pass

    def close(self) -> None:
        pass

    def __enter__(self) -> NullProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Reporter:
    """Progress of a whole command, one bar after another."""

    def __init__(self, *, enabled: bool = True, stream: Any = None) -> None:
        self.enabled, self.stream = enabled, stream
        self.bar: Progress | NullProgress = NullProgress()

    def start(self, total: int, label: str = "") -> Progress:
        """Opens the bar of a part of the command and closes the one before."""
        self.close()
        self.bar = Progress(total, label, enabled=self.enabled, stream=self.stream)
        return self.bar

    def count(self, done: int, total: int, label: str = "") -> None:
        """The callback for rooms that know nothing of bars: a new bar whenever the label or the total changes."""
        if (label, total) != (self.bar.label, self.bar.total):
            self.start(total, label)
        self.bar.update(done)
        if done >= total:
            self.close()

    def close(self) -> None:
        self.bar.close()
        self.bar = NullProgress()


def track(items: Iterable, total: int, label: str, progress: Callback | None) -> Iterator:
    """Yields `items`, telling `progress` (which may be None) after each."""
    for i, item in enumerate(items):
        yield item
        if progress is not None:
            progress(i + 1, total, label)


def clock_text(seconds: float | None) -> str:
    """'1:02:03', '4:05', or '?' when unknown."""
    if seconds is None:
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _values(values: dict[str, float | str]) -> str:
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())
