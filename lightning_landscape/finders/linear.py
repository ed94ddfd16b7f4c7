"""The straight line, the cheapest path there is."""

from __future__ import annotations

from lightning_landscape.finders.base import PathFinder, Search
from lightning_landscape.finders.chain import Chain
from lightning_landscape.path import Reason


class LinearPath(PathFinder):
    """Measures the straight segment and looks no further (linear mode connectivity, Frankle et al. 2020).

    Its ``not_found`` has the reason ``depth``: it is a search of depth 0.

    Example:
        >>> import torch
        >>> from lightning_landscape import LossSurface
        >>> point = torch.nn.Linear(2, 1, bias=False)
        >>> surface = LossSurface(point, [None], loss_fn=lambda module, batch: module.weight.square().sum())
        >>> bowl = LinearPath().connect(surface, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
        >>> str(bowl.verdict), bowl.normalized_length, bowl.num_beads
        ('connected', 1.0, 0)
    """

    def search(self, search: Search) -> tuple[Chain, Reason]:
        """The line itself."""
        return Chain([search.line], search.line.length, self.samples), Reason.DEPTH
