"""Unrolled networks for sparse codes."""

from lightning_landscape.models.sparse_coding.stage_wise import StageWise
from lightning_landscape.models.sparse_coding.unrolled_sparse_coder import UnrolledSparseCoder

__all__ = ["StageWise", "UnrolledSparseCoder"]
