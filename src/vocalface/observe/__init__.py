"""What is seen and heard in a clip. `observe` makes Observations; the heavy parts load when it is called."""

from __future__ import annotations

from vocalface.types import Observations


def observe(clip, folder=None, **options) -> Observations:
    """See `observe.watch.observe`."""
    from vocalface.observe.watch import observe as run

    return run(clip, folder, **options)


__all__ = ["observe"]
