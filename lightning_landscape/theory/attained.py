"""Whether a path that should end at a global minimum does so in floating point."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call

from lightning_landscape.path import Path
from lightning_landscape.theory.regression import Batch
from lightning_landscape.theory.weight_lists import weights_at

_SHARE = 1e-6  # of the loss at 0


def require_minimum(module: nn.Module, path: Path, batch: Batch, minimum: float) -> None:
    """Checks that E at the end of the path is the global minimum, to a share of 1e-6 of the loss of predicting 0.

    Args:
        module: the network; its weights are not read.
        path: the path, in float64.
        batch: (x, y), tensors (N, n) and (N, m).
        minimum: the least E, known from a convex problem.

    Raises:
        RuntimeError: if E is larger: the construction lost more digits than float64 has.

    Example:
        >>> end = Path(torch.tensor([[1.0], [3.0]], dtype=torch.float64))
        >>> require_minimum(nn.Linear(1, 1, bias=False), end, (torch.ones(2, 1), torch.full((2, 1), 3.0)), 0.0)
    """
    x, y = (part.detach().to("cpu", torch.float64) for part in batch)
    names = [name for name, _ in module.named_parameters()]
    weights = dict(zip(names, weights_at(module, path.beads[-1]), strict=True))
    with torch.no_grad():
        reached = float((functional_call(module, weights, (x,)) - y).square().sum(1).mean())
    if not reached <= minimum + _SHARE * float(y.square().sum(1).mean()):
        raise RuntimeError(
            f"the path ends at E = {reached:g} where the minimum is {minimum:g}: the numbers in the weights or the "
            "data differ by more than float64 resolves; measure the inputs in other units"
        )
