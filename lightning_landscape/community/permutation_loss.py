"""Cross-entropy up to the names of the communities."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_ENUMERATED = 5  # 120 permutations: to try them all costs less than the way to SciPy and back


def permutation_cross_entropy(
    log_probabilities: Tensor, target: Tensor, batch: Tensor | None = None, num_graphs: int | None = None
) -> Tensor:
    r"""Mean over graphs of ``min over pi of -(1/n) sum_i log o_i[pi(y_i)]``, in nats.

    Communities have no names: every permutation pi of them describes the same partition. With ``L[c, c'] = - sum of
    log o_i[c'] over the nodes i of community c``, k x k numbers a graph, the least of the k! sums is a linear
    assignment problem, solved exactly.

    The gradient is that of the cross-entropy under the best permutation. Up to k = 5 all permutations are compared on
    the device of the tensors, without waiting for it; SciPy solves the larger problems.

    Args:
        log_probabilities: log o (N, k), the nodes of all graphs below each other.
        target: y (N,), integers from 0 to k - 1; communities may be empty.
        batch: (N,) int64, the number of each node's graph, as in PyG's batches; ``None`` for a single graph.
        num_graphs: number of graphs; ``None`` counts them, which waits for the device.

    Raises:
        ValueError: if shapes or types do not fit together; on a CPU, also if a label is out of range.

    References:
        Z. Chen, L. Li, J. Bruna, "Supervised community detection with line graph neural networks", ICLR 2019.

    Example:
        >>> o = torch.tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]).log_softmax(1)
        >>> [round(permutation_cross_entropy(o, torch.tensor(y)).item(), 4) for y in ([0, 0, 1], [1, 1, 0])]
        [0.0181, 0.0181]
    """
    batch, num_graphs = checked_batch(target, batch, num_graphs)
    if target.device.type == "cpu":  # a GPU would have to be waited for
        require_labels(target, log_probabilities.shape[-1])
    table = community_sums(-log_probabilities, target, batch, num_graphs)
    nodes = table.new_zeros(num_graphs).index_add(0, batch, table.new_ones(len(batch)))
    return (least_assignment(table) / nodes.clamp_min(1)).mean()


def community_sums(values: Tensor, target: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
    """The tables (G, k, k) with entry ``[g, c, c'] = sum of values[i, c'] over the nodes i of graph g with y_i = c``.

    Raises:
        ValueError: if ``values`` is not of shape (N, k) for the N nodes of ``target``.
    """
    if values.dim() != 2 or len(values) != len(target):
        raise ValueError(f"there must be k values a node, shape ({len(target)}, k), got {tuple(values.shape)}")
    k = values.shape[1]
    return values.new_zeros(num_graphs * k, k).index_add(0, batch * k + target, values).view(num_graphs, k, k)


def least_assignment(cost: Tensor) -> Tensor:
    """``min over permutations pi of sum_c cost[g, c, pi(c)]``, shape (G,), of tables (G, k, k); differentiable.

    Example:
        >>> least_assignment(torch.tensor([[[3.0, 1.0], [1.0, 2.0]]]))
        tensor([2.])
    """
    k = cost.shape[-1]
    if k <= _ENUMERATED:
        return cost[:, torch.arange(k, device=cost.device), _permutations(k, cost.device)].sum(-1).amin(-1)
    columns = np.empty((len(cost), k, 1), dtype=np.int64)
    for column, table in zip(columns, cost.detach().double().cpu().numpy(), strict=True):
        column[:, 0] = _best_columns(table)
    return cost.gather(2, torch.from_numpy(columns).to(cost.device)).sum((1, 2))


def _best_columns(table: np.ndarray) -> np.ndarray:
    try:
        columns: np.ndarray = linear_sum_assignment(table)[1]
    except ValueError:  # NaN, or an infinite cost in every permutation: one through a NaN, where there is one
        row, column = divmod(int(np.isnan(table).argmax()), len(table))
        columns = (np.arange(len(table)) + column - row) % len(table)
    return columns


def checked_batch(target: Tensor, batch: Tensor | None, num_graphs: int | None) -> tuple[Tensor, int]:
    """The graph of each node of ``target`` (N,), and the number of graphs.

    Raises:
        ValueError: if the two do not fit together, or labels are no integers.
    """
    if target.dim() != 1 or target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(f"target must hold integers of shape (N,), got {target.dtype} {tuple(target.shape)}")
    if batch is None:
        return torch.zeros_like(target, dtype=torch.int64), 1
    if batch.shape != target.shape:
        raise ValueError(f"batch must number the graph of each of {len(target)} nodes, got shape {tuple(batch.shape)}")
    if num_graphs is None:
        num_graphs = int(batch.max()) + 1 if len(batch) else 0
    return batch, num_graphs


def require_labels(labels: Tensor, num_classes: int, name: str = "target") -> None:
    """Raises ValueError for a label that is not one of 0, ..., k - 1; waits for the device."""
    if ((labels < 0) | (labels >= num_classes)).any():
        raise ValueError(
            f"{name} must lie from 0 to {num_classes - 1} where there are {num_classes} classes, "
            f"got {labels.min()} to {labels.max()}"
        )


@functools.cache
@torch.inference_mode(False)  # or who validates first could not train
def _permutations(k: int, device: torch.device) -> Tensor:
    return torch.tensor(list(itertools.permutations(range(k))), device=device)
