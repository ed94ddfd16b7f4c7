"""Metrics of learned sparse coding, for use with and without Lightning."""

from lightning_landscape.metrics.iterations_equivalent import IterationsEquivalent
from lightning_landscape.metrics.nmse import NMSE
from lightning_landscape.metrics.overlap import Overlap
from lightning_landscape.metrics.suboptimality import Suboptimality
from lightning_landscape.metrics.support_recall import SupportRecall

__all__ = ["NMSE", "IterationsEquivalent", "Overlap", "Suboptimality", "SupportRecall"]
