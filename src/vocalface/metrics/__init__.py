"""The numbers of the three papers, one file a family."""

from vocalface.metrics.image import head_fit

__all__ = ["head_fit"]
