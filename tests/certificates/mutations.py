"""Rules of the bound, each made too strong in one place: what a test has to catch."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

from lightning_landscape.certificates import affine, along_paths, losses, maximum, rearranging, smooth

_MODULES: dict[str, ModuleType] = {
    "affine": affine,
    "along_paths": along_paths,
    "losses": losses,
    "maximum": maximum,
    "rearranging": rearranging,
    "smooth": smooth,
}


class Mutation(NamedTuple):
    """A wrong rule.

    Attributes:
        place: module and function, ``module.Class.method`` or ``module.function``.
        right, wrong: what stands there, and what stands there instead.
    """

    place: str
    right: str
    wrong: str


MUTATIONS = [
    Mutation("affine.Affine.middle", "first - last", "last - first"),
    Mutation("affine.Affine.middle", "bent.add_(self.apply((first + last) / 2, middle))", "bent"),
    Mutation("affine.Affine.radius", "return turned if radius is None", "return turned if True"),
    Mutation("affine.Affine.radius", "up * up / 2", "0.0 * up"),
    Mutation("affine.Affine.slack", "size * chord.deviation.slack + fresh", "0.0"),
    Mutation("affine.Linear.norms", "dim=-1, keepdim=True)", "dim=-1, keepdim=True) * 0.3"),
    Mutation("affine.Convolution.norms", ".sqrt_()", ".sqrt_() * 0.3"),
    Mutation("maximum.relu_bounds", "torch.where(on, low, 0.0)", "torch.where(on, low.clamp_min(0), 0.0)"),
    Mutation("maximum.relu_bounds", "torch.maximum(high, -gap)", "high - gap"),
    Mutation("maximum.relu_bounds", "(high - gap).clamp_min_(0.0)", "(high - 2 * gap).clamp_min_(0.0)"),
    Mutation("maximum.relu_bounds", "-crossing(below", "-0.9 * crossing(below"),
    Mutation("maximum.relu_bounds", "high[where] - below, -above", "high[where] - 2 * below, -2 * above"),
    Mutation("maximum.LeakyReLU.deviation", "add_(low, alpha=self._slope)", "add_(low, alpha=0.0)"),
    Mutation("maximum.max_bounds", "touching(top - start, bottom - end)", "2 * touching(top - start, bottom - end)"),
    Mutation("maximum.max_bounds", "first - crossing(", "first - 0.8 * crossing("),
    Mutation("maximum.max_bounds", "torch.where(fallen == 0", "torch.where(fallen < torch.inf"),
    Mutation("maximum.max_bounds", "torch.where(behind == 0", "torch.where(behind < torch.inf"),
    Mutation("maximum.touching", "start.sqrt() + end.sqrt()", "1.2 * (start.sqrt() + end.sqrt())"),
    Mutation("maximum.crossing", "4 * below * above", "0"),
    Mutation("smooth.Smooth.deviation", "square * most", "0.9 * square * most"),
    Mutation("smooth.Smooth.deviation", "square * least", "1.1 * square * least"),
    Mutation("smooth.Smooth.deviation", "bend + curve.jerk * reach", "bend"),
    Mutation("smooth.Smooth.deviation", "slope + sharp * reach", "slope"),
    Mutation("smooth.Smooth.deviation", "flat * high, steep * low, steep * high", "steep * high"),
    Mutation("rearranging.Averaging.deviation", "self._run(radius)", "None"),
    Mutation("rearranging.Averaging.deviation", "self._run(middle)", "None"),
    Mutation("rearranging.Combination.deviation", "abs(factor) * around", "factor * around"),
    Mutation("rearranging.Combination.deviation", "factor * theirs", "abs(factor) * theirs"),
    Mutation("losses.CrossEntropy.each", "factor / 4", "factor / 5"),
    Mutation("losses._differences", "middle - (soft * middle).sum(1, keepdim=True)", "middle"),
    Mutation("losses._differences", "factor[chosen] += around", "factor[chosen] += 0.5 * around"),
    Mutation("losses._differences", "(soft * radius).sum(1, keepdim=True) - 2 * soft * radius", "0"),
    Mutation("losses._differences", "weight - labels[label] @ weight", "weight"),
    Mutation("losses.SquaredError.each", "output.low / 4, output.high / 4", "output.low / 5, output.high / 5"),
    Mutation("losses.SquaredError.each", "torch.maximum((error + low).abs(), ", "("),
    Mutation("along_paths.bound_of", "bend / 4 +", "bend / 5 +"),
    Mutation("along_paths._gain", "max(excess.bent_start - excess.start, ", "max("),
]


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """The package with one rule replaced.

    Raises:
        ValueError: if the place does not hold what is to be replaced.
    """
    name, *path = mutation.place.split(".")
    module = _MODULES[name]
    owner = module if len(path) == 1 else getattr(module, path[0])
    original = getattr(owner, path[-1])
    source = textwrap.dedent(inspect.getsource(original))
    if mutation.right not in source:
        raise ValueError(f"{mutation.place} does not hold {mutation.right!r}")
    names: dict[str, object] = {}
    exec(source.replace(mutation.right, mutation.wrong), module.__dict__, names)
    setattr(owner, path[-1], names[path[-1]])
    try:
        yield
    finally:
        setattr(owner, path[-1], original)
