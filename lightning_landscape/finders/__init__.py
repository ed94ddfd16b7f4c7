"""Ways of finding a path between two points below a level, one per file."""

from lightning_landscape.finders.base import Budget, PathFinder
from lightning_landscape.finders.linear import LinearPath
from lightning_landscape.finders.string_sampling import DynamicStringSampling

__all__ = ["Budget", "DynamicStringSampling", "LinearPath", "PathFinder"]
