"""The straight line, the cheapest path there is."""

from __future__ import annotations

from lightning_landscape.connection import Reason
from lightning_landscape.finders.base import PathFinder
from lightning_landscape.finders.chain import Chain
from lightning_landscape.finders.search import Search


class LinearPath(PathFinder):
    """Measures the straight segment and looks no further (linear mode connectivity, Frankle et al. 2020).

    Its ``not_found`` has the reason ``depth``: it is a search of depth 0.

    Args:
        samples: points per straight-line distance of the endpoints on the grid that a search uses. The result is
            measured at a spacing three times finer, and finer still around its largest points.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> import torch
        >>> from lightning_landscape import LossSurface
        >>> point = torch.nn.Linear(2, 1, bias=False)
        >>> surface = LossSurface(point, [None], loss_fn=lambda module, batch: module.weight.square().sum())
        >>> bowl = LinearPath().connect(surface, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
        >>> str(bowl.verdict), bowl.normalized_length, bowl.num_beads
        ('connected', 1.0, 0)
    """

    def __init__(self, *, samples: int = 9) -> None:
        super().__init__(samples=samples)

    def search(self, search: Search) -> tuple[Chain, Reason]:
        """The line itself."""
        return search.chain, Reason.DEPTH
