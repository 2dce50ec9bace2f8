"""Moods laid over the built-in motion, in what its face model can do.

It raises and lowers the brows as a whole, widens and rounds the lips, lifts the upper lip. It has no cheeks, no inner
brow of its own and moves the corners of the mouth outwards, not up or down: a smile stays slight, and sadness, fear and
disgust do not exist here and are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vocalface.errors import ConfigError
from vocalface.sadtalker.motion import BROW, WIDTH, Pose


@dataclass(frozen=True)
class Mood:
    """Added to every frame."""

    width: float = 0.0  # m
    brow: float = 0.0  # m
    upper: float = 0.0  # 0..1
    round: float = 0.0  # 0..1
    aperture: float = 0.0  # m, while speaking
    lids: float = 0.0  # 0..1 of a closure

    def __call__(self, pose: Pose, amount: float) -> Pose:
        wide = pose.aperture
        if wide is not None and wide > 0:
            wide = max(wide + amount * self.aperture, 0.0)
        lids = amount * self.lids
        return replace(
            pose, width=pose.width + amount * self.width, brow=pose.brow + amount * self.brow,
            upper=min(max(pose.upper + amount * self.upper, 0.0), 1.0),
            round=min(max(pose.round + amount * self.round, 0.0), 1.2), aperture=wide,
            blink=max(pose.blink, lids) if lids > 0 else pose.blink,
        )  # fmt: skip


MOODS = {
    "happy": Mood(width=0.8 * WIDTH, brow=0.25 * BROW, upper=0.12),
    "surprised": Mood(brow=1.3 * BROW, aperture=0.002, round=0.1),
    "angry": Mood(brow=-0.9 * BROW, width=-0.15 * WIDTH, upper=0.05),
    "tired": Mood(brow=-0.2 * BROW, lids=0.2, aperture=-0.001),
}


def parse(text: str) -> tuple[Mood, float] | None:
    """ "happy" or "happy=0.5" (0 to 1.5) -> a mood and how much of it; None for nothing. Raises ConfigError."""
    if not text:
        return None
    name, _, amount = text.partition("=")
    if name not in MOODS:
        raise ConfigError(
            f"the built-in face model has no {name!r}", "--emotion", f"choose {', '.join(MOODS)}, e.g. happy=0.5"
        )
    try:
        strength = float(amount or 1)
    except ValueError:
        strength = -1.0
    if not 0 <= strength <= 1.5:
        raise ConfigError(f"{amount!r} is no amount of {name}", "--emotion", "give 0 to 1.5, e.g. happy=0.5")
    return MOODS[name], strength
