from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.callbacks import LevelSetConnectivity, level_set
from lightning_landscape.callbacks.pairings.twin import reset_parameters
from lightning_landscape.datamodules import PolynomialDataModule
from lightning_landscape.finders import DynamicStringSampling
from lightning_landscape.models import PolynomialRegressor

SETUPS: dict[str, dict[str, Any]] = {
    "quadratic": {"bias": False, "output_sigmoid": True},
    "cubic": {"bias": True, "output_sigmoid": False},
}


def fit(name: str, folder: Path, *callbacks: pl.Callback, epochs: int = 2, **data: Any) -> PolynomialRegressor:
    pl.seed_everything(1, verbose=False)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[*callbacks],
    )  # fmt: skip
    module = PolynomialRegressor(**SETUPS[name], learning_rate=0.01)
    trainer.fit(module, datamodule=PolynomialDataModule(name, **{"num_examples": 64, "batch_size": 16, **data}))
    return module


def test_the_two_set_ups_compute_what_the_scripts_compute() -> None:
    x = torch.rand(7, 1)
    quadratic = PolynomialRegressor(**SETUPS["quadratic"])
    first, second, last = (parameter.T for parameter in quadratic.parameters())
    torch.testing.assert_close(quadratic(x), (((x @ first).sigmoid() @ second).sigmoid() @ last).sigmoid())
    cubic = PolynomialRegressor(**SETUPS["cubic"])
    w1, b1, w2, b2, w3, b3 = (p.T if p.ndim == 2 else p for p in cubic.parameters())
    torch.testing.assert_close(cubic(x), ((x @ w1 + b1).sigmoid() @ w2 + b2).sigmoid() @ w3 + b3)


@pytest.mark.parametrize(("hidden", "expected"), [((4, 4), 33), ([3], 10), ((2, 3, 5), 39)])
def test_any_widths(hidden: Any, expected: int) -> None:
    module = PolynomialRegressor(hidden, bias=True)
    assert sum(parameter.numel() for parameter in module.parameters()) == expected
    assert module(torch.zeros(5, 1)).shape == (5, 1)


def test_starts_from_uniform_weights_and_normal_biases_also_when_reset() -> None:
    module = PolynomialRegressor((60, 60), bias=True)
    for _ in range(2):
        weight, bias = module.network[2].weight, module.network[2].bias
        assert weight.abs().max() <= 1
        # Moments of the uniform distribution on [-1, 1]: variance 1/3, fourth moment 1/5.
        assert weight.square().mean().item() == pytest.approx(1 / 3, abs=0.02)
        assert weight.pow(4).mean().item() == pytest.approx(1 / 5, abs=0.02)
        assert bias.std().item() == pytest.approx(1, abs=0.3)
        assert bias.abs().max() > 1
        before = weight.clone()
        reset_parameters(module)
        assert not torch.equal(module.network[2].weight, before)


def step(module: PolynomialRegressor, batch: tuple[Tensor, Tensor]) -> float:
    return LossSurface(module, [batch]).losses(LossSurface(module, [batch]).point()[None])[0].item()


def test_the_loss_is_the_mean_absolute_error() -> None:
    module = PolynomialRegressor(**SETUPS["cubic"])
    x, y = torch.rand(9, 1), torch.randn(9, 1)
    assert step(module, (x, y)) == pytest.approx((module(x) - y).abs().mean().item(), rel=1e-6)


def test_a_target_without_its_axis_is_refused_before_it_broadcasts() -> None:
    module = PolynomialRegressor()
    for x, y in [((4, 1), (4,)), ((4,), (4,)), ((4, 2), (4, 2)), ((4, 1), (3, 1))]:
        with pytest.raises(ValueError, match=r"x and y of shape \(N, 1\) each"):
            module._evaluate((torch.zeros(x), torch.zeros(y)))


def test_adam_with_the_rate_of_the_scripts() -> None:
    optimizer = PolynomialRegressor().configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (0.001, (0.9, 0.999))


def test_logs_exact_errors_and_its_checkpoint_loads_with_weights_only(tmp_path: Path) -> None:
    data = PolynomialDataModule(num_examples=50, batch_size=16)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    module = PolynomialRegressor(learning_rate=1e-30)
    trainer.fit(module, datamodule=data)
    x, y = data.splits["val"].tensors
    expected = nn.functional.l1_loss(module(x), y).item()
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected, rel=1e-5)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = PolynomialRegressor.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(loaded(x), module(x))
    again = PolynomialDataModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.coefficients == (0.5, 0.25, 0.1)
    trainer.test(module, datamodule=data, verbose=False)
    x, y = data.splits["test"].tensors
    expected = nn.functional.l1_loss(module(x), y).item()
    assert trainer.callback_metrics["test/loss"].item() == pytest.approx(expected, rel=1e-5)


def test_learns_the_quadratic(tmp_path: Path) -> None:
    module = fit("quadratic", tmp_path, epochs=120)
    x = torch.linspace(0, 1, 101)[:, None]
    # The mean absolute deviation of p from its median on [0, 1] is 0.19.
    assert (module(x) - (0.5 * x**2 + 0.25 * x + 0.1)).abs().mean() < 0.05


@pytest.mark.parametrize("pairs", ["lagged", "twin"])
@pytest.mark.parametrize("name", SETUPS)
def test_training_is_the_same_with_the_callback(
    tmp_path: Path, name: str, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for figure in ("profile_figure", "history_figure", "save_figure"):  # drawing takes longer than all the rest
        monkeypatch.setattr(level_set, figure, lambda *args: None)
    plain = fit(name, tmp_path / "plain")
    state = torch.get_rng_state()
    callback = LevelSetConnectivity(
        pairs, finder=DynamicStringSampling(max_depth=2, max_bead_steps=3, shorten=1, samples=3), num_batches=2,
        overhead=None, margin=0.0, dirpath=tmp_path / "ours", on_error="raise",
    )  # fmt: skip
    ours = fit(name, tmp_path / "ours", callback)
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    assert len(callback.rows) == (2 if pairs == "twin" else 1)
    assert all(row["reason"] != "error" and row["loss_evaluations"] > 0 for row in callback.rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": []}, r"hidden must be integers of at least 1, such as \[4, 4\], got \[\]"),
        ({"hidden": [4, 0]}, r"hidden .* got \[4, 0\]"),
        ({"hidden": [4.0]}, r"hidden .* got \[4.0\]"),
        ({"hidden": "44"}, "hidden .* got '44'"),
        ({"learning_rate": 0}, "learning_rate must be positive and finite, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive and finite, got nan"),
    ],
)
def test_refuses_bad_arguments_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolynomialRegressor(**arguments)
