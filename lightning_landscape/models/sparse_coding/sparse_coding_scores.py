"""What a test of a sparse coding network measures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_landscape.metrics import NMSE, IterationsEquivalent, Suboptimality, SupportRecall
from lightning_landscape.sparse_coding.batch import SparseCodingBatch
from lightning_landscape.sparse_coding.curves import cost_curve
from lightning_landscape.sparse_coding.fista import fista_iterates
from lightning_landscape.sparse_coding.ista import ista_iterates
from lightning_landscape.sparse_coding.problem import LassoProblem


class SparseCodingScores(nn.Module):
    """Metrics of codes: their worth in iterations of ISTA and FISTA, and what batches allow to compare them with.

    Args:
        max_iterations: how far ISTA and FISTA are run.
    """

    def __init__(self, max_iterations: int) -> None:
        super().__init__()
        self.max_iterations = max_iterations
        self.suboptimality = Suboptimality()
        self.ista_iterations = IterationsEquivalent(max_iterations)
        self.fista_iterations = IterationsEquivalent(max_iterations)
        self.nmse = NMSE()
        self.support_recall = SupportRecall()

    def update(self, problem: LassoProblem, batch: SparseCodingBatch, z: Tensor) -> dict[str, Metric]:
        """Add a batch and its codes z (batch, m); the metrics that have seen it, by name.

        Objectives are computed in float64.
        """
        problem, x = problem.to(torch.float64), batch.x.double()
        objectives = problem.objective(x, z.double())
        self.ista_iterations.update(objectives, cost_curve(problem, x, ista_iterates, self.max_iterations))
        self.fista_iterations.update(objectives, cost_curve(problem, x, fista_iterates, self.max_iterations))
        seen: dict[str, Metric] = {"ista_iterations": self.ista_iterations, "fista_iterations": self.fista_iterations}
        if batch.optimum is not None:
            self.suboptimality.update(objectives, batch.optimum)
            seen["suboptimality"] = self.suboptimality
        if batch.code is not None:
            self.nmse.update(z, batch.code)
            self.support_recall.update(z, batch.code)
            seen |= {"nmse": self.nmse, "support_recall": self.support_recall}
        return seen
