"""Moods laid over the built-in motion, in the expression shapes of the head under the portrait.

They are mixtures of what `motion.Pose` has, after the prototypes of "Facial Action Coding System" (Ekman, Friesen,
1978): happy is AU 6 and 12, sad 1 and 15, surprised 1, 2 and 26, angry 4, disgusted 9 and 10, afraid 1, 2 and 20.
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
    inner: float = 0.0  # m
    smile: float = 0.0  # 0..1
    frown: float = 0.0  # 0..1
    cheek: float = 0.0  # 0..1
    sneer: float = 0.0  # 0..1

    def __call__(self, pose: Pose, amount: float) -> Pose:
        wide = pose.aperture
        if wide is not None and wide > 0:
            wide = max(wide + amount * self.aperture, 0.0)
        lids = amount * self.lids
        return replace(
            pose, width=pose.width + amount * self.width, brow=pose.brow + amount * self.brow,
            upper=min(max(pose.upper + amount * self.upper, 0.0), 1.0),
            round=min(max(pose.round + amount * self.round, 0.0), 1.2), aperture=wide,
            blink=max(pose.blink, lids) if lids > 0 else pose.blink, inner=pose.inner + amount * self.inner,
            smile=pose.smile + amount * self.smile, frown=pose.frown + amount * self.frown,
            cheek=pose.cheek + amount * self.cheek, sneer=pose.sneer + amount * self.sneer,
        )  # fmt: skip


MOODS = {
    "happy": Mood(smile=0.75, cheek=0.6, brow=0.2 * BROW),
    "sad": Mood(inner=0.9 * BROW, frown=0.8, lids=0.12, aperture=-0.001),
    "surprised": Mood(brow=1.3 * BROW, aperture=0.002, round=0.1),
    "angry": Mood(brow=-0.9 * BROW, width=-0.15 * WIDTH, sneer=0.2, frown=0.2),
    "disgusted": Mood(sneer=0.9, upper=0.4, brow=-0.35 * BROW, frown=0.2),
    "afraid": Mood(inner=0.6 * BROW, brow=0.7 * BROW, width=0.45 * WIDTH, aperture=0.0015),
    "tired": Mood(brow=-0.2 * BROW, lids=0.2, aperture=-0.001),
}


def parse(text: str) -> tuple[Mood, float] | None:
    """ "happy" or "happy=0.5" (0 to 1.5) -> a mood and how much of it; None for nothing. Raises ConfigError."""
    if not text:
        return None
    name, _, amount = text.partition("=")
    if name not in MOODS:
        raise ConfigError(f"there is no mood {name!r}", "--emotion", f"choose {', '.join(MOODS)}, e.g. happy=0.5")
    try:
        strength = float(amount or 1)
    except ValueError:
        strength = -1.0
    if not 0 <= strength <= 1.5:
        raise ConfigError(f"{amount!r} is no amount of {name}", "--emotion", "give 0 to 1.5, e.g. happy=0.5")
    return MOODS[name], strength
