"""The bound of the expected loss holds as often as it says, on populations that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_landscape import LossSurface, Path
from lightning_landscape.certificates import CrossEntropy, population_bound
from lightning_landscape.certificates.operation import UnsupportedError
from lightning_landscape.certificates.population import _bernstein
from tests.certificates.campaign import Case, exact_losses

CLIP = 1.5


def population(classes: bool, count: int = 400) -> Case:
    """A small network, its loss, a segment, and all examples that there are."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    x = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    start, end = 0.6 * torch.randn(2, 27, generator=generator, dtype=torch.float64)
    if classes:
        labels = torch.randint(3, (count,), generator=generator)
        return Case(module, (x, labels), lambda m, b: functional.cross_entropy(m(b[0]), b[1]), start, end, None)
    targets = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return Case(module, (x, targets), lambda m, b: functional.mse_loss(m(b[0]), b[1]), start, end, None)


def surface_of(case: Case) -> LossSurface:
    return LossSurface(case.module, [case.batch], loss_fn=case.loss)


def truth(case: Case) -> float:
    """The largest expectation of the clipped loss on a fine grid of the segment."""
    s, (x, y) = torch.linspace(0, 1, 41, dtype=torch.float64), case.batch
    each = torch.stack([exact_losses(case._replace(batch=(x[i : i + 1], y[i : i + 1])), s) for i in range(len(x))])
    return float(each.clamp_max(CLIP).mean(0).max())


@pytest.mark.parametrize("classes", [True, False])
def test_the_bound_covers_the_known_truth_and_tends_to_it(classes: bool) -> None:
    case = population(classes)
    surface, path, exact = surface_of(case), Path(torch.stack([case.start, case.end])), truth(case)
    generator = torch.Generator().manual_seed(1)

    def drawn(count: int) -> list[tuple[Tensor, Tensor]]:
        chosen = torch.randint(len(case.batch[0]), (count,), generator=generator)
        return [(case.batch[0][chosen], case.batch[1][chosen])]

    found = [population_bound(surface, path, drawn(200), clip=CLIP, confidence=0.8, pieces=16) for _ in range(40)]
    assert sum(bound.height >= exact for bound in found) >= 32
    # The sample by itself misses: what is added is needed.
    assert sum(bound.mean >= exact for bound in found) < 40
    large = population_bound(surface, path, drawn(40000), clip=CLIP, pieces=64)
    assert exact <= large.height < exact + 0.05


@pytest.mark.parametrize("rate", [0.002, 0.05, 0.5])
@pytest.mark.parametrize("count", [20, 200])
def test_the_inequality_covers_rare_and_common_losses(rate: float, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.bernoulli(torch.full((2000, count), rate, dtype=torch.float64), generator=generator) * CLIP
    covered = sum(_bernstein(row, CLIP, 0.05) >= rate * CLIP for row in draws)
    assert covered >= 0.95 * 2000
    if rate < 0.1:
        assert sum(float(row.mean()) >= rate * CLIP for row in draws) < 0.95 * 2000


def test_the_inequality_is_that_of_the_paper() -> None:
    values = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    term = math.log(2 / 0.1)
    assert _bernstein(values, 1.0, 0.1) == pytest.approx(0.5 + math.sqrt(2 / 3 * term / 4) + 7 * term / 9)


def test_one_part_or_many_give_one_bound() -> None:
    case = population(True, 120)
    x, y = case.batch
    surface, path = surface_of(case), Path(torch.stack([case.start, case.end]))
    parts = [(x[:50], y[:50]), (x[50:51], y[50:51]), (x[51:], y[51:])]
    whole, divided = (population_bound(surface, path, sample, clip=CLIP) for sample in ([case.batch], parts))
    assert divided.examples == whole.examples == 120
    assert divided.height == pytest.approx(whole.height, rel=1e-9)


def test_what_cannot_be_bounded_is_refused() -> None:
    case = population(True, 8)
    surface, path = surface_of(case), Path(torch.stack([case.start, case.end]))
    for wrong in ({"clip": 0.0}, {"clip": math.inf}, {"clip": 1.0, "confidence": 1.0}, {"clip": 1.0, "pieces": 0}):
        with pytest.raises(ValueError, match="clip must be positive"):
            population_bound(surface, path, [case.batch], **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two at least"):
        population_bound(surface, path, [(case.batch[0][:1], case.batch[1][:1])], clip=1.0)
    weights = CrossEntropy(weight=torch.ones(3).double())
    with pytest.raises(UnsupportedError, match="classes have weights"):
        population_bound(surface, path, [case.batch], clip=1.0, loss=weights)
    with pytest.raises(UnsupportedError, match="other targets"):
        population_bound(surface, path, [(case.batch[0], case.batch[1] + 2)], clip=1.0)
