"""How well a partition of nodes agrees with the true communities."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_landscape.community.permutation_loss import (
    checked_batch,
    community_sums,
    least_assignment,
    require_labels,
)

_DRAWS = 4000  # of guesses, for a standard error below 1 % of the chance value


class Overlap(Metric):
    """Mean over graphs of ``(max over pi of accuracy - 1/k) / (1 - 1/k)``, pi over the permutations of k names.

    1 is the true partition, 0 is one constant label on communities of equal sizes. A guess scores more than 0, since
    the best permutation is chosen after it: :meth:`chance` gives what uniform guessing scores on the graphs seen.

    Args:
        num_classes: k, at least 2.
        kwargs: further keyword arguments, handed to ``torchmetrics.Metric``.

    Raises:
        ValueError: at construction, if k < 2; in ``update``, if shapes do not fit together or a label is not in
            0, ..., k - 1; in ``compute`` and ``chance``, before any graph.

    References:
        Z. Chen, L. Li, J. Bruna, "Supervised community detection with line graph neural networks", ICLR 2019.

    Example:
        >>> metric = Overlap(num_classes=2)
        >>> metric.update(torch.tensor([1, 1, 0, 1]), torch.tensor([0, 0, 1, 1]))
        >>> metric.compute(), metric.chance()
        (tensor(0.5000, dtype=torch.float64), tensor(0.3753, dtype=torch.float64))
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    sizes: list[Tensor]

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
            raise ValueError(f"num_classes must be an integer of at least 2, got {num_classes!r}")
        self.num_classes = num_classes
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("sizes", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, target: Tensor, batch: Tensor | None = None) -> None:
        """Add graphs: labels (N,) or scores (N, k), of which the largest counts; true labels (N,); graph numbers (N,).

        ``batch`` is that of PyG; ``None`` is one graph. Numbers without a node count as no graph.
        """
        batch, num_graphs = checked_batch(target, batch, None)
        k = self.num_classes
        if scores.shape != target.shape and scores.shape != (len(target), k):
            raise ValueError(
                f"scores must be labels ({len(target)},) or scores ({len(target)}, {k}), got {tuple(scores.shape)}"
            )
        labels = scores.argmax(1) if scores.dim() == 2 else scores
        require_labels(labels, k, "labels")
        require_labels(target, k)
        table = community_sums(nn.functional.one_hot(labels.long(), k).double(), target, batch, num_graphs)
        table = table[table.sum((1, 2)) > 0]
        accuracy = -least_assignment(-table) / table.sum((1, 2))
        # Not in place: the state may come from inference mode, in which Lightning validates but does not train.
        self.total = self.total + ((accuracy - 1 / k) / (1 - 1 / k)).sum()
        self.sizes.append(table.sum(2))

    def compute(self) -> Tensor:
        """The mean over the graphs seen, float64."""
        return self.total / len(self._sizes())

    def chance(self) -> Tensor:
        """What labels drawn uniformly at random score in expectation on the graphs seen, float64."""
        sizes = self._sizes().long()
        return (
            torch.tensor([chance_overlap(*row) for row in sizes.tolist()], dtype=torch.float64).mean().to(sizes.device)
        )

    def _sizes(self) -> Tensor:
        parts = self.sizes if isinstance(self.sizes, list) else [self.sizes]
        sizes = torch.cat(parts) if parts else self.total.new_empty(0, self.num_classes)
        if len(sizes) == 0:
            raise ValueError("Overlap is a mean over graphs, and has seen none: call update first")
        return sizes


@functools.cache
def chance_overlap(*sizes: int) -> float:
    """Expected overlap of labels drawn uniformly at random with communities of the given sizes.

    By 4000 draws of the table of agreements, always the same. For k = 2 the law does not depend on the sizes and the
    value is about ``sqrt(2 / (pi n))``.

    Raises:
        ValueError: for less than two communities, or no node.

    Example:
        >>> round(chance_overlap(80, 80, 80, 80, 80), 3)
        0.06
    """
    k = len(sizes)
    if k < 2 or min(sizes) < 0 or sum(sizes) == 0:
        raise ValueError(f"sizes must be those of at least two communities with a node among them, got {sizes}")
    generator = np.random.default_rng(0)
    # Which of two communities comes first does not matter.
    rows = [generator.multinomial(size, np.full(k, 1 / k), _DRAWS) for size in sorted(sizes)]
    tables = torch.from_numpy(np.stack(rows, 1)).double()
    accuracy = -least_assignment(-tables).mean() / sum(sizes)
    return float((accuracy - 1 / k) / (1 - 1 / k))
