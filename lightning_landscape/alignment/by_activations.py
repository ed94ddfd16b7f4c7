"""Activation matching: the permutation under which the units of two networks respond most alike."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_landscape.alignment.assignment import best_permutation
from lightning_landscape.alignment.by_weights import Descent
from lightning_landscape.alignment.labelling import LabelledModule, forward_inputs
from lightning_landscape.alignment.specification import Layout, Site, layout, sites_of, specify, units
from lightning_landscape.surface.batch_norm import Norms
from lightning_landscape.surface.names import modules_in_eval


def activation_matching(module: nn.Module, theta_a: Tensor, theta_b: Tensor, batches: Iterable[Any]) -> Tensor:
    """``theta_b`` with its hidden units permuted to respond as those of ``theta_a`` do: the same function.

    For each group of units of :func:`permutation_spec`, maximises ``sum_i corr(z^a_i, z^b_p(i))`` over its
    permutations p, where z runs over the activations of a unit on all examples, places and points of the
    graph where the group appears, and corr, taken at each point of the graph by itself, is Pearson's
    correlation, 0 for a unit that is constant there. Batch norm uses the statistics of each batch. Groups
    that appear inside a layer alone (lower layers of an LSTM, attention heads), or mixed with another group
    on one axis, are matched by weights, given the others. E does not change, as in :func:`weight_matching`.

    Args:
        module: the architecture; its own parameter values do not matter.
        theta_a: the point whose units are followed, shape (P,).
        theta_b: the point to permute, shape (P,).
        batches: batches of examples; of a tuple or list, ``forward`` takes as many first items as it
            has arguments without a default.

    Returns:
        P theta_b, shape (P,), dtype and device of ``theta_b``.

    Raises:
        ValueError: as :func:`permutation_spec` does, for no batches, for parameters of another length or that
            are not finite, and for activations that are not.

    Source: Ainsworth, Hayase & Srinivasa (2023), "Git Re-Basin", arXiv 2209.04836, Sec. 3.1, with correlation
    in place of the inner product, as in Li et al. (2016), "Convergent Learning", arXiv 1511.07543.

    Example:
        >>> from lightning_landscape.alignment import permutation_spec
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> theta = nn.utils.parameters_to_vector(net.parameters()).detach()
        >>> images = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
        >>> spec = permutation_spec(net, images)
        >>> torch.equal(activation_matching(net, theta, spec.apply(theta, spec.random(0)), [images]), theta)
        True
    """
    with torch.random.fork_rng(devices=[]):  # a DataLoader draws from the global generator
        return _matched(module, theta_a, theta_b, iter(batches))


def _matched(module: nn.Module, theta_a: Tensor, theta_b: Tensor, examples: Iterator[Any]) -> Tensor:
    first = next(examples, None)
    if first is None:
        raise ValueError("batches is empty: correlations need examples")
    traced = LabelledModule(module, forward_inputs(module, first))
    spec, numbers = specify(traced)
    descent = Descent(spec, theta_a, theta_b)
    Norms(traced.module, modules_in_eval(module), "batch").step()
    sites = {name: _clean_sites(name, [layout(axis, numbers) for axis in axes]) for name, axes in traced.nodes.items()}
    correlations: dict[tuple[int, Site], _Correlation] = defaultdict(_Correlation)
    for batch in itertools.chain([first], examples):
        inputs = forward_inputs(module, batch)
        ours, theirs = (_responses(traced, theta, inputs, sites) for theta in (theta_a, theta_b))
        for key, response in ours.items():
            correlations[key].update(response, theirs[key])
    similar: dict[int, Tensor] = {}
    for (group, _), correlation in correlations.items():
        similar[group] = similar.get(group, 0) + correlation.matrix()
    for group, matrix in similar.items():
        descent.permute(group, best_permutation(matrix.numpy(), spec.groups[group].block))
    hidden = [group for group in range(len(spec.groups)) if group not in similar]
    descent.start_greedily(hidden)
    descent.run(hidden, np.random.default_rng(0))
    return spec.apply(theta_b, descent.permutations)


def _clean_sites(name: str, layouts: list[Layout]) -> list[tuple[int, Site]]:
    """Groups and where they act on a tensor; not where units mix with those of a group that is not matched yet."""
    found = [
        (group, site)
        for group in sorted({f.group for parts in layouts for part in parts for f in part if f.group is not None})
        for site in sites_of(name, layouts, group)
    ]
    return [
        (group, site)
        for group, site in found
        if sum(other.axis != site.axis or other.start == site.start for _, other in found) == 1
    ]


def _responses(
    traced: LabelledModule, theta: Tensor, inputs: Any, sites: Mapping[str, list[tuple[int, Site]]]
) -> dict[tuple[int, Site], Tensor]:
    """What each unit answers to the inputs, (n, samples), wherever its group appears in the graph."""
    traced.install(theta)
    responses: dict[tuple[int, Site], Tensor] = {}

    def observe(name: str, value: Any) -> None:
        for group, site in sites.get(name, ()):
            responses[group, site] = units(value, site).to("cpu", torch.float64)

    traced.run(inputs, observe)
    return responses


class _Correlation:
    """Pearson's correlation of every two rows of two matrices whose columns arrive in parts."""

    def __init__(self) -> None:
        self.count = 0
        self.moments: list[Tensor] = []

    def update(self, ours: Tensor, theirs: Tensor) -> None:
        """Adds columns."""
        moments = [ours.sum(1), theirs.sum(1), ours.square().sum(1), theirs.square().sum(1), ours @ theirs.T]
        self.moments = [old + new for old, new in zip(self.moments, moments, strict=True)] if self.count else moments
        self.count += ours.shape[1]

    def matrix(self) -> Tensor:
        """The correlations (n, n)."""
        ours, theirs, ours_squared, theirs_squared, product = (moment / self.count for moment in self.moments)
        if not product.isfinite().all():
            raise ValueError("activations of theta_a or theta_b are not finite on the batches: they cannot be compared")
        spread = _deviation(ours, ours_squared)[:, None] * _deviation(theirs, theirs_squared)
        return torch.where(spread > 0, (product - ours[:, None] * theirs) / spread.clamp(min=1e-300), 0.0)


def _deviation(mean: Tensor, square: Tensor) -> Tensor:
    variance = square - mean.square()
    # What is left of a constant after rounding is no spread.
    return torch.where(variance > 1e-12 * square, variance, 0.0).sqrt()
