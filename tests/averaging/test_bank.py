"""A bank of pairs with known answers: every conclusion is right, in the words and in the numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call

from lightning_landscape import LossSurface
from lightning_landscape.averaging import Advice, average
from lightning_landscape.finders import Budget, DynamicStringSampling
from lightning_landscape.report.conclusion import conclusion
from tests.averaging.bank import BANK, batches, cross_entropy, net


def plain_loss(surface: LossSurface, kind: str, theta: torch.Tensor) -> float:
    """E computed by hand, with no more of this package than the names of the parameters."""
    module = net(kind).eval()
    if kind == "norm":
        # All batches in one are the statistics that a surface estimates, up to the unbiased variance.
        module.train()
    state = surface.parameters(theta)
    whole = tuple(torch.cat(part) for part in zip(*batches(), strict=True))
    with torch.no_grad():
        return float(cross_entropy(lambda x: functional_call(module, state, (x,)), whole))


@pytest.mark.parametrize("name", BANK)
def test_the_conclusion_is_right(name: str) -> None:
    pair = BANK[name]
    surface, a, b = pair.points()
    options = {"budget": 400.0, **pair.options}
    found = DynamicStringSampling(samples=5, max_depth=3).connect(
        surface, a, b, level=options.get("level"), margin=0.05, budget=Budget(options["budget"])
    )
    said = conclusion(found)
    assert said.startswith(pair.begins), said
    assert any(word in said for word in pair.words), said
    ends = [plain_loss(surface, pair.kind, theta) for theta in (a, b)]
    middle = plain_loss(surface, pair.kind, (a + b) / 2)
    tolerance = 1.03 if pair.kind == "norm" else 1.01  # see plain_loss
    if "You may average" in said:
        assert middle <= tolerance * max(ends)
    if "You may average:" in said:
        assert middle <= tolerance * min(ends)
    advised = average(surface, [a, b]).advice
    assert (advised is Advice.AGAINST) == said.startswith("Do not average") or not all(map(math.isfinite, ends))
    assert advised is Advice.AGAINST or all(map(math.isfinite, ends))


def test_there_are_24_pairs() -> None:
    assert len(BANK) == 24
