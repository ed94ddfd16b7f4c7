"""The merge tree of points on a loss surface, and the heights that it is made of."""

from lightning_landscape.components.heights import PairwiseHeights, search_heights
from lightning_landscape.components.merge_tree import Merge, MergeTree

__all__ = ["Merge", "MergeTree", "PairwiseHeights", "search_heights"]
