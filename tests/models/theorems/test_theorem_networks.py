from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from lightning_landscape import LossSurface
from lightning_landscape.datamodules import PlantedTeacherDataModule
from lightning_landscape.models import DeepLinearNetwork, PolynomialNetwork, QuadraticNetwork
from lightning_landscape.theory import deep_linear, measure_bound, quadratic
from lightning_landscape.theory.regression import Regression


def train(module: LightningModule, data: PlantedTeacherDataModule, epochs: int) -> float:
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, datamodule=data)
    return float(trainer.callback_metrics["val/loss"])


def test_a_deep_linear_network_is_the_product_of_its_weights() -> None:
    module, x = DeepLinearNetwork(3, 2, [4, 5]), torch.randn(6, 3)
    first, second, third = module.parameters()
    assert [tuple(weight.shape) for weight in (first, second, third)] == [(4, 3), (5, 4), (2, 5)]
    torch.testing.assert_close(module(x), x @ (third @ second @ first).T)


def test_a_polynomial_network_is_numpy_polyval() -> None:
    module, x = PolynomialNetwork(3, 5, 2, [2.0, -1.0, 0.5]), torch.randn(6, 3)
    inner, outer = (weight.detach().numpy() for weight in module.parameters())
    expected = np.polyval([2.0, -1.0, 0.5], x.numpy() @ inner.T) @ outer.T
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_quadratic_network_squares() -> None:
    module, x = QuadraticNetwork(3, 5, 2), torch.randn(6, 3)
    torch.testing.assert_close(module(x), module.readout(module.hidden(x).square()))


def test_the_loss_sums_over_outputs_and_adds_the_ridge_in_training_alone() -> None:
    module = DeepLinearNetwork(2, 2, [3], ridge=0.5)
    batch = torch.randn(4, 2), torch.randn(4, 2)
    error = (module(batch[0]) - batch[1]).norm(dim=1).square().mean()
    penalty = sum(weight.norm().square() for weight in module.parameters()) / 2
    assert module.squared_error(batch).item() == pytest.approx(error.item(), rel=1e-6)
    assert LossSurface(module, [batch]).loss(LossSurface(module, [batch]).point()) == pytest.approx(
        (error + penalty).item(), rel=1e-6
    )


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (DeepLinearNetwork, {"hidden": [3, 0]}, r"hidden\[1\] must be an integer of at least 1, got 0"),
        (DeepLinearNetwork, {"num_inputs": 0}, "num_inputs must be"),
        (DeepLinearNetwork, {"num_outputs": 1.5}, "num_outputs must be"),
        (DeepLinearNetwork, {"ridge": -1.0}, "ridge must be finite and at least 0, got -1.0"),
        (DeepLinearNetwork, {"ridge": float("nan")}, "ridge must be finite"),
        (DeepLinearNetwork, {"learning_rate": 0.0}, "learning_rate must be positive"),
        (QuadraticNetwork, {"hidden_units": 0}, "hidden_units must be"),
        (PolynomialNetwork, {"coefficients": []}, "coefficients must be finite numbers, not all of them 0"),
        (PolynomialNetwork, {"coefficients": [0.0, 0.0]}, "not all of them 0"),
        (PolynomialNetwork, {"coefficients": [float("inf")]}, "coefficients must be finite"),
    ],
)
def test_arguments_out_of_range(make: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((4, 2), (4, 3)), ((4, 2), (3, 2)), ((2,), (2,)), ((4, 2), (4,))])
def test_batches_of_other_shapes_are_refused(shapes: Any) -> None:
    # A y of shape (4,) would be broadcast against (4, 2) in silence.
    with pytest.raises(ValueError, match=r"a batch holds x \(N, 2\) and y \(N, 2\)"):
        DeepLinearNetwork(2, 2, [3]).training_step(tuple(torch.zeros(shape) for shape in shapes), 0)


@pytest.mark.parametrize("make", [DeepLinearNetwork, PolynomialNetwork, QuadraticNetwork])
def test_a_checkpoint_brings_back_the_network(make: Any, tmp_path: Any) -> None:
    module = make(num_inputs=2, num_outputs=2)
    trainer = Trainer(
        max_epochs=0, logger=False, accelerator="cpu", enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "network.ckpt")
    again = make.load_from_checkpoint(tmp_path / "network.ckpt", weights_only=True)
    x = torch.randn(3, 2)
    assert torch.equal(module.eval()(x), again.eval()(x))


def test_a_trained_pair_of_deep_linear_networks_is_connected_by_the_theorem() -> None:
    data = PlantedTeacherDataModule("linear", num_inputs=4, num_outputs=3, teacher_units=2, num_examples=64)
    thetas = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        module = DeepLinearNetwork(4, 3, [4, 4])
        assert train(module, data, epochs=200) < 0.1
        thetas.append(torch.cat([weight.detach().flatten() for weight in module.parameters()]))
    batch = data.splits["train"].tensors
    path = deep_linear.connecting_path(module, *thetas, batch)
    bound = measure_bound(module, path, batch)
    assert bound.excess <= 1e-9
    assert bound.height < 1.5 * Regression(batch).minimum()


def test_a_trained_pair_of_quadratic_networks_is_connected_by_the_theorem() -> None:
    data = PlantedTeacherDataModule("quadratic", num_inputs=2, num_outputs=1, num_examples=64)
    thetas = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        module = QuadraticNetwork(2, 12, 1)
        assert train(module, data, epochs=40) < 0.1
        thetas.append(torch.cat([weight.detach().flatten() for weight in module.parameters()]))
    batch = data.splits["train"].tensors
    bound = measure_bound(module, quadratic.connecting_path(module, *thetas, batch), batch)
    assert bound.excess <= 1e-9
    assert bound.height < 0.1
