"""How the LSTM language model looks to a loss surface: every sequence starts from zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_landscape.models import LSTMLanguageModel
from lightning_landscape.surface import LossSurface
from tests.models.text.lstm_runs import batches, cross_entropy, losses, model


def surface_of(module: LSTMLanguageModel, data: list[tuple[Tensor, Tensor]], **options: Any) -> LossSurface:
    return LossSurface(module, data, **options)


def test_every_probe_sequence_starts_from_zero() -> None:
    data, module = batches(4), model()
    expected = np.mean([float(cross_entropy(module(tokens)[0], targets)) for tokens, targets in data])
    surface = surface_of(module, data)
    assert surface.loss(surface.point()) == pytest.approx(expected, rel=1e-6)
    backwards = surface_of(module, data[::-1])
    assert backwards.loss(surface.point()) == pytest.approx(expected, rel=1e-6)


def test_a_step_in_eval_mode_starts_from_zero_and_keeps_nothing() -> None:
    data, module = batches(3), model()
    losses(module, data)
    state = module._carried
    tokens, targets = data[2]
    assert module.eval().training_step(data[2], 2)["loss"].item() == cross_entropy(module(tokens)[0], targets).item()
    assert module._carried is state


def test_the_surface_does_not_depend_on_what_ran_before() -> None:
    data, module = batches(4), model()
    theta = surface_of(module, data).point()
    expected = surface_of(module, data).loss(theta)
    losses(module, data)
    module.eval()
    module.validation_step(data[0], 0)
    module.train()
    state = module._carried
    after = surface_of(module, data)
    assert after.loss(theta) == expected
    after.gradients(theta[None], data[2])
    assert after.loss(theta) == expected
    losses(module, batches(2, streams=3))  # a state of another shape
    assert after.with_module(module).loss(theta) == expected
    assert state is not None
    assert module._carried[0].shape[1] == 3  # the live state is the live module's


def test_the_surface_neither_reads_nor_moves_a_training_run() -> None:
    data, watched, plain = batches(4), model(), model()
    found = []
    for index, batch in enumerate(data):
        surface = surface_of(watched, data)
        surface.losses(surface.point().expand(2, -1))
        found.append(float(watched.training_step(batch, index)["loss"]))
    assert found == losses(plain, data)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"tied": True}, {"num_layers": 1}], ids=str)
def test_stacks_of_points_and_their_gradients(options: dict[str, Any]) -> None:
    data, module = batches(3), model(**options).double()
    surface = surface_of(module, data)
    assert surface.dimension == sum(p.numel() for p in module.parameters())
    thetas = surface.point() + 0.1 * torch.randn(3, surface.dimension, dtype=torch.float64)
    values = surface.losses(thetas)
    assert values.tolist() == pytest.approx([surface.loss(theta) for theta in thetas])
    _, gradients = surface.gradients(thetas, data[0])
    assert surface.choice() == {"losses": False, "gradients": False}  # nn.LSTM has no batching rule
    one = surface_of(module, data[:1])
    direction = torch.randn(surface.dimension, dtype=torch.float64)
    for theta, gradient in zip(thetas, gradients, strict=True):
        slope = (one.loss(theta + 1e-6 * direction) - one.loss(theta - 1e-6 * direction)) / 2e-6
        assert float(gradient @ direction) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_mapping_over_points_is_refused() -> None:
    surface = surface_of(model(), batches(1), vectorize=True)
    for measure in (surface.losses, lambda thetas: surface.gradients(thetas, batches(1)[0])):
        with pytest.raises(ValueError, match="LSTM has no batching rule for vmap: leave out vectorize=True"):
            measure(surface.point().expand(4, -1))
