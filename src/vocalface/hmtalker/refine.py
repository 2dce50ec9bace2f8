"""What the tracker says of a frame refined through the rasteriser: Gauss-Newton on pixels, everything else held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Unknowns:
    """What is refined: finite differences, large enough to be seen, and how far the tracker errs; [K], or for all."""

    difference: tuple[float, ...] | float
    spread: tuple[float, ...] | float


# Of (rotation vector rad, shift m), as in `scene.Poses`: finite differences of some tenths of a pixel. Nod and depth
# are what landmarks get wrong: .01 rad and 2 mm rms on a real clip.
POSE = Unknowns((3e-3, 3e-3, 3e-3, 4e-4, 4e-4, 2e-3), (0.02, 0.02, 0.02, 0.004, 0.004, 0.012))
UPPER = Unknowns(0.2, 0.6)  # of the upper face's condition, in its own spread
PRIOR = 1e-6  # of a squared spread against a squared pixel value
HUBER = 0.03  # pixel values further off count less: hair that moves, a hand
LONGEST = 10  # differences, in one step


@torch.no_grad()
def refine(
    picture: Callable[[Tensor], Tensor],
    target: Tensor,
    keep: Tensor,
    start: Tensor,
    iterations: int,
    unknowns: Unknowns = POSE,
) -> tuple[Tensor, float]:
    """The correction [K] near `start` under which `picture` looks like `target`, and the mean error that is left.

    K + 1 drawings an iteration; of a pose one iteration goes most of the way, three all of it, where a hundred steps of
    gradient descent would. A step that makes the picture worse is shortened once, then refused.

    Args:
        picture: from a correction [K] to an image [h, w, 3].
        target: [h, w, 3]; keep: [h, w] bool, the pixels that count.
    """
    keep = keep[..., None].to(target)
    difference, spread = (torch.tensor(v).to(target).expand(len(start)) for v in (unknowns.difference, unknowns.spread))
    count = float(keep.sum()) * 3
    if count == 0:
        return start, 0.0

    def error(delta: Tensor) -> Tensor:
        return (picture(delta) - target).mul_(keep).flatten()

    delta, rest = start, error(start)
    changes = rest.new_empty(len(start), len(rest))
    for _ in range(iterations):
        for change, one in zip(changes, torch.diag(difference)):
            torch.sub(error(delta + one), rest, out=change)
        weight = (HUBER / rest.abs().clamp_min(HUBER)).sqrt()
        changes *= weight
        a, b = changes @ changes.T / torch.outer(difference, difference), changes @ (weight * rest) / difference
        hold = PRIOR * count / spread**2
        step = -torch.linalg.solve(a + torch.diag(hold + 1e-4 * a.diagonal()), b + hold * delta)
        step = step.clamp(-LONGEST * difference, LONGEST * difference)
        for share in (1.0, 0.4):
            trial = delta + share * step
            found = error(trial)
            if found.abs().sum() < rest.abs().sum():
                delta, rest = trial, found
                break
        else:
            break
    return delta, float(rest.abs().mean())
