"""Randomness that survives a restart: generator states in and out of a checkpoint, and draws that need no state.

The simplest way to resume exactly is to have nothing to restore: `at(seed, step)` and `Order` are pure functions of
the seed and the step. `state` and `restore` are for generators that cannot be made so.
"""

from __future__ import annotations

import numpy as np
import torch


def at(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """A generator that depends on (seed, step, stream) alone; give each use of randomness in a step its own stream."""
    return np.random.default_rng(np.random.SeedSequence((seed, stream, step)))


def torch_at(seed: int, step: int, stream: int = 0, device: str | torch.device = "cpu") -> torch.Generator:
    """The same for torch."""
    words = np.random.SeedSequence((seed, stream, step)).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(words[0] >> 1))


def state(**generators: np.random.Generator | torch.Generator) -> dict:
    """The states of `generators` and of torch's and NumPy's global ones, as a checkpoint can hold them."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    saved: dict = {
        "torch": torch.get_rng_state(),
        "numpy": {"name": name, "keys": keys, "position": position, "has_gauss": has_gauss, "gauss": gauss},
        "named": {k: g.get_state() if isinstance(g, torch.Generator) else g.bit_generator.state
                  for k, g in generators.items()},
    }  # fmt: skip
    if torch.cuda.is_available():
        saved["cuda"] = torch.cuda.get_rng_state_all()
    return saved


def restore(saved: dict, **generators: np.random.Generator | torch.Generator) -> None:
    """Undoes `state` in place. Every generator in `saved` has to be given again, under its name."""
    torch.set_rng_state(saved["torch"])
    numpy = saved["numpy"]
    np.random.set_state((numpy["name"], numpy["keys"], numpy["position"], numpy["has_gauss"], numpy["gauss"]))
    if "cuda" in saved and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda"])
    for name, value in saved["named"].items():
        generator = generators[name]
        if isinstance(generator, torch.Generator):
            generator.set_state(value)
        else:
            generator.bit_generator.state = value


class Order:
    """Which of `n` items each step sees: random without replacement within an epoch.

    `order[step]` is a pure function of (seed, step), so that a resumed run sees what an unbroken one would.
    """

    def __init__(self, n: int, seed: int = 0, stream: int = 0) -> None:
        if n < 1:
            raise ValueError("an order needs at least one item")
        self.n, self.seed, self.stream = n, seed, stream
        self._epoch, self._permutation = -1, np.arange(n)

    def __getitem__(self, step: int) -> int:
        epoch, place = divmod(step, self.n)
        if epoch != self._epoch:
            self._epoch, self._permutation = epoch, at(self.seed, epoch, self.stream).permutation(self.n)
        return int(self._permutation[place])
