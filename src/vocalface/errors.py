"""The errors a user can meet, each in three lines: what is wrong, where, how to mend it."""

from __future__ import annotations


class VocalfaceError(Exception):
    """Something a user can mend.

    Args:
        what: what is wrong, one short sentence.
        where: the file, option or frame it concerns.
        fix: how to mend it, an action or an exact command.
    """

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, str(where), fix
        super().__init__(what, self.where, fix)

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where or '-'}\n  mend:  {self.fix or '-'}"


class MediaError(VocalfaceError):
    """A media file that cannot be read, or lacks what is asked of it."""


class FaceError(VocalfaceError):
    """No face, too many faces, or a face too small or too seldom seen."""


class AssetError(VocalfaceError):
    """A model file that is absent or altered."""


class HeadError(VocalfaceError):
    """A `.vface` file that cannot be used."""


class ObservationsError(VocalfaceError):
    """An observations folder or table that cannot be used."""


class ConfigError(VocalfaceError):
    """An option or a combination of options that makes no sense."""


class DeviceError(VocalfaceError):
    """A device or backend that this machine lacks."""


class OutputError(VocalfaceError):
    """An output that cannot be written."""
