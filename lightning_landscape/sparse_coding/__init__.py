"""Sparse coding: the Lasso, its iterative solvers and what is known of learned ones."""

from lightning_landscape.sparse_coding.batch import SparseCodingBatch, sparse_coding_batch
from lightning_landscape.sparse_coding.certificate import (
    check_factorization,
    facnet_step,
    least_scale,
    random_design,
    step_bound,
)
from lightning_landscape.sparse_coding.curves import cost_curve
from lightning_landscape.sparse_coding.fista import fista, fista_iterates, momentum_weights
from lightning_landscape.sparse_coding.ista import ista, ista_iterates
from lightning_landscape.sparse_coding.lasso import lasso, reference_optimum
from lightning_landscape.sparse_coding.layers import LAYERS, UnrolledLayer
from lightning_landscape.sparse_coding.problem import LassoProblem, lasso_objective, soft_threshold

__all__ = [
    "LAYERS",
    "LassoProblem",
    "SparseCodingBatch",
    "UnrolledLayer",
    "check_factorization",
    "cost_curve",
    "facnet_step",
    "fista",
    "fista_iterates",
    "ista",
    "ista_iterates",
    "lasso",
    "lasso_objective",
    "least_scale",
    "momentum_weights",
    "random_design",
    "reference_optimum",
    "soft_threshold",
    "sparse_coding_batch",
    "step_bound",
]
