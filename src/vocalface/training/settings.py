"""Single fields of a configuration from the command line: `--set batch=4 lr=1e-4`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from vocalface.errors import ConfigError


def parse(pairs: Iterable[str], config: type, hint: str = "") -> dict:
    """`("fusion=concat", "steps=2000")` -> values of the configuration's own types.

    Args:
        config: a dataclass whose fields have defaults.
        hint: where the names stand (default: they are listed).

    Raises:
        ConfigError: a name or a value that does not fit.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    out: dict = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in defaults:
            raise ConfigError(f"no option is called {key!r}", f"--set {pair}", hint or f"use {', '.join(defaults)}")
        kind = type(defaults[key])
        try:
            out[key] = value.lower() in ("1", "true", "yes") if kind is bool else kind(value)
        except ValueError:
            raise ConfigError(
                f"{value!r} is no {kind.__name__}", f"--set {pair}", f"e.g. {key}={defaults[key]}"
            ) from None
    return out
