"""Weight matching: the permutation that brings one network's parameters closest to another's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_landscape.alignment.assignment import best_permutation
from lightning_landscape.alignment.specification import Permutation, PermutationSpec, Site, permutation_spec, units

_RESOLUTION = 1e-9  # relative gain below which a step is rounding


@dataclass(frozen=True)
class WeightMatching:
    """What weight matching found.

    Attributes:
        permutations: one for each group of the specification.
        objectives: ``<theta_a, P theta_b>`` at the start of the descent that won and after each change, never falling.
    """

    permutations: list[Permutation]
    objectives: list[float]


def weight_matching(
    module: nn.Module, theta_a: Tensor, theta_b: Tensor, example_input: Any, seed: int = 0, restarts: int = 3
) -> Tensor:
    """``theta_b`` with its hidden units permuted to lie close to ``theta_a``: the same function, another point.

    Maximises ``<theta_a, P theta_b>`` over the permutations P of :func:`permutation_spec`, which minimises
    ``||theta_a - P theta_b||``, by coordinate descent: one group after another is assigned exactly, given the
    others, until nothing improves. The answer is a local maximum; the largest of several descents is
    returned. E does not change: batch norm statistics are no coordinates and are re-estimated by
    ``LossSurface(batch_norm="recalibrate")``; a full ``state_dict()`` is permuted by
    :meth:`PermutationSpec.permute_state`.

    Args:
        module: the architecture; its own parameter values do not matter.
        theta_a: the point to stay close to, shape (P,), as ``LossSurface.point()`` gives it.
        theta_b: the point to permute, shape (P,).
        example_input: what ``forward`` takes: one argument, or a tuple of positional ones.
        seed: random seed of the orders in which groups are visited and of random starts; the global random state is
            left alone.
        restarts: descents, of which the first starts from a greedy match in the order of the evidence, the
            second from the identity, where networks that once were one still match, others at random.

    Returns:
        P theta_b, shape (P,), dtype and device of ``theta_b``.

    Raises:
        ValueError: as :func:`permutation_spec` does, for parameters of another length or that are not finite,
            and for ``restarts`` below 1.

    Source: Ainsworth, Hayase & Srinivasa (2023), "Git Re-Basin", arXiv 2209.04836, algorithm 1; the greedy
    start is ours.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> theta = nn.utils.parameters_to_vector(net.parameters()).detach()
        >>> spec = permutation_spec(net, torch.zeros(1, 2))
        >>> torch.equal(weight_matching(net, theta, spec.apply(theta, spec.random(0)), torch.zeros(1, 2)), theta)
        True
    """
    spec = permutation_spec(module, example_input)
    return spec.apply(theta_b, match_weights(spec, theta_a, theta_b, seed, restarts).permutations)


def match_weights(
    spec: PermutationSpec, theta_a: Tensor, theta_b: Tensor, seed: int = 0, restarts: int = 3
) -> WeightMatching:
    """The permutations behind :func:`weight_matching`, for a specification that is at hand already.

    Args:
        spec: what may be permuted, as :func:`permutation_spec` derives it.
        theta_a: the point that stays, shape (P,).
        theta_b: the point to permute, shape (P,).
        seed: random seed of the orders in which groups are visited and of random starts.
        restarts: descents, of which the best one counts.

    Raises:
        ValueError: if ``restarts`` is below 1, or for parameters of another length or that are not finite.
    """
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1, got {restarts}")
    generator = np.random.default_rng(seed)
    every = range(len(spec.groups))
    found = []
    for restart in range(restarts):
        descent = Descent(spec, theta_a, theta_b)
        if restart == 0:
            descent.start_greedily(every)
        elif restart > 1:
            for group, start in enumerate(spec.random(seed + restart)):
                descent.permute(group, start)
        found.append(WeightMatching(descent.permutations, descent.run(every, generator)))
    return max(found, key=lambda matching: matching.objectives[-1])


class Descent:
    """Coordinate descent on the permutations of groups.

    Args:
        spec: the permutations.
        theta_a: the fixed point, shape (P,).
        theta_b: the permuted point, shape (P,).
        permutations: the permutations to start from, by default the identity.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        theta_a: Tensor,
        theta_b: Tensor,
        permutations: Sequence[Permutation] | None = None,
    ) -> None:
        for name, theta in (("theta_a", theta_a), ("theta_b", theta_b)):
            if theta.shape != (spec.dimension,):
                raise ValueError(
                    f"{name} has shape {tuple(theta.shape)}, and the module has {spec.dimension} trainable parameters: "
                    "give flat vectors as LossSurface.point() returns them"
                )
            if not theta.isfinite().all():
                raise ValueError(f"{name} holds NaN or infinite values, which have no best match")
        self._spec = spec
        self.permutations = list(permutations or spec.identity())
        self._fixed = self._tensors(theta_a)
        self._moving = self._tensors(spec.apply(theta_b, self.permutations))
        self._sites = [spec.sites(group) for group in range(len(spec.groups))]
        self._groups = {
            name: {group for group, sites in enumerate(self._sites) for site in sites if site.tensor == name}
            for name in spec.shapes
        }

    @property
    def objective(self) -> float:
        """``<theta_a, P theta_b>``."""
        return math.fsum(float((self._fixed[name] * self._moving[name]).sum()) for name in self._fixed)

    def start_greedily(self, groups: Iterable[int]) -> None:
        """Matches each group once, first the one of which most is known given those that are done.

        Only tensors count whose other groups are done: against units that are not matched yet, the rest is
        noise. A network is so followed from its input; permuted against itself it is matched without error.
        """
        open_groups = set(groups)
        while open_groups:
            known = {
                group: [site for site in self._sites[group] if self._is_known(site, group, open_groups)]
                for group in sorted(open_groups)
            }
            evidence = {group: sum(self._evidence(site) for site in sites) for group, sites in known.items()}
            group = max(evidence, key=lambda candidate: evidence[candidate])
            self.permute(group, self._best(group, known[group] or self._sites[group]))
            open_groups.remove(group)

    def run(self, groups: Iterable[int], generator: np.random.Generator) -> list[float]:
        """Assigns group after group, in a random order, until no group improves; the objectives on the way."""
        groups = list(groups)
        objectives = [self.objective]
        stale: set[int] = set()
        while len(stale) < len(groups):
            for group in generator.permutation(groups):
                step = self._best(group, self._sites[group])
                names = {site.tensor for site in self._sites[group]}
                before = {name: self._moving[name] for name in names}
                self.permute(group, step)
                gain = math.fsum(float((self._fixed[n] * (self._moving[n] - before[n])).sum()) for n in names)
                # A group on two axes of one tensor makes the objective quadratic: its best step may go too far.
                if gain > _RESOLUTION * (abs(objectives[-1]) + abs(gain)):
                    objectives.append(objectives[-1] + gain)
                    stale = {group}
                else:
                    self.permute(group, np.argsort(step))
                    stale.add(group)
        return objectives

    def _tensors(self, theta: Tensor) -> dict[str, Tensor]:
        chunks = theta.detach().to("cpu", torch.float64).split([math.prod(s) for s in self._spec.shapes.values()])
        return {n: chunk.view(shape) for (n, shape), chunk in zip(self._spec.shapes.items(), chunks, strict=True)}

    def _is_known(self, site: Site, group: int, unknown: set[int]) -> bool:
        axes = {other.axis for other in self._sites[group] if other.tensor == site.tensor}
        return len(axes) == 1 and not (self._groups[site.tensor] & unknown) - {group}

    def _evidence(self, site: Site) -> int:
        return self._fixed[site.tensor].numel() // site.sizes[site.factor]

    def _best(self, group: int, sites: Iterable[Site]) -> Permutation:
        similarity = sum(
            units(self._fixed[site.tensor], site) @ units(self._moving[site.tensor], site).T for site in sites
        )
        return best_permutation(torch.as_tensor(similarity).numpy(), self._spec.groups[group].block)

    def permute(self, group: int, step: Permutation) -> None:
        """Permutes a group further: ``new[i] = now[step[i]]``."""
        steps = self._spec.identity()
        steps[group] = step
        for name in {site.tensor for site in self._sites[group]}:
            self._moving[name] = self._spec.permuted(name, self._moving[name], steps)
        self.permutations[group] = self.permutations[group][step]
