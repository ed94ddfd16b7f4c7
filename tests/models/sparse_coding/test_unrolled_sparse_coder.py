"""The LightningModule of the unrolled coders: what it computes, logs and keeps, and where it runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from lightning_landscape import LossSurface
from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.callbacks.pairings.twin import reset_parameters
from lightning_landscape.cli import main
from lightning_landscape.datamodules import SparseCodingDataModule
from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.sparse_coding import (
    cost_curve,
    fista,
    fista_iterates,
    ista,
    ista_iterates,
)
from lightning_landscape.sparse_coding.layers import LAYERS
from tests.models.sparse_coding.coder_runs import PLAIN, Data, M, N, coder, dictionary_of, trainer_in


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layer", PLAIN)
@pytest.mark.parametrize("depth", [1, 7])
def test_untrained_networks_are_ista_or_fista(layer: Any, dtype: torch.dtype, depth: int) -> None:
    module = coder(layer, depth, dictionary=dictionary_of(dtype)).eval()
    x = torch.randn(5, N, dtype=dtype)
    expected = (fista if layer == "l_fista" else ista)(module.problem, x, depth)
    assert (module(x) - expected).abs().max() <= 1e-6 * expected.abs().max()
    iterates = module.iterates(x)
    assert len(iterates) == depth + 1
    assert not iterates[0].any()
    assert torch.equal(iterates[-1], module(x))


def test_layers_of_tilista_share_their_matrix_and_the_surface_counts_it_once() -> None:
    module = coder("tilista", 4)
    assert all(layer.W is module.layers[0].W for layer in module.layers)
    assert len(list(module.parameters())) == 1 + 2 * 4
    assert LossSurface(module, Data().batches).point().numel() == N * M + 2 * 4


@pytest.mark.parametrize("layer", list(LAYERS))
def test_training_lowers_the_objective(layer: Any, tmp_path: Path) -> None:
    data, module = Data(), coder(layer, learning_rate=0.005)
    before = module.problem.objective(data.x, module(data.x)).mean().item()
    trainer_in(tmp_path, max_epochs=4).fit(module, data)
    module.eval()
    assert module.problem.objective(data.x, module(data.x)).mean().item() < before


def test_the_two_losses() -> None:
    data = Data()
    for loss in ("unsupervised", "supervised"):
        module = coder(loss=loss)
        module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
        batch = data.batches[0]
        z = module(batch.x)
        expected = module.problem.objective(batch.x, z) if loss == "unsupervised" else (z - batch.code).square().sum(1)
        torch.testing.assert_close(module.training_step(batch, 0), expected.mean())


def test_the_penalty_of_a_free_factor_is_averaged_over_layers() -> None:
    data, module = Data(), coder("facnet_free", 2, layer_options={"mu": 4.0})
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    with torch.no_grad():
        module.layers[1].factor.mul_(math.sqrt(2))  # A^T A = 2 I
    fit = module.problem.objective(data.x, module(data.x)).mean()
    torch.testing.assert_close(module.training_step(data.x, 0), fit + 4 * M / 2)


def test_validation_logs_the_loss_and_the_suboptimality_of_every_layer(tmp_path: Path) -> None:
    data, module = Data(), coder(depth=3)
    trainer = trainer_in(tmp_path)
    trainer.validate(module, data, verbose=False)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert set(logged) == {"val/loss", "val/suboptimality_1", "val/suboptimality_2", "val/suboptimality_3"}
    precise = module.problem.to(torch.float64)
    for k, z in enumerate(module.iterates(data.x)):
        if k:
            excess = precise.objective(data.x.double(), z.double()) - data.optimum
            assert logged[f"val/suboptimality_{k}"] == pytest.approx(excess.mean().item(), rel=1e-5)
    # Means over all examples: the last batch is smaller.
    assert logged["val/loss"] == pytest.approx(module.problem.objective(data.x, module(data.x)).mean().item(), rel=1e-5)


@pytest.mark.parametrize(("layer", "depth"), [("lista", 5), ("l_fista", 4)])
def test_a_test_says_what_the_network_is_worth(layer: Any, depth: int, tmp_path: Path) -> None:
    data, module = Data(dtype=torch.float64), coder(layer, depth, dictionary=dictionary_of(torch.float64))
    found = trainer_in(tmp_path).test(module, data, verbose=False)[0]
    solver, other = ("fista", "ista") if layer == "l_fista" else ("ista", "fista")
    assert found[f"test/{solver}_iterations"] == depth
    z = module(data.x)
    curve = cost_curve(module.problem, data.x, fista_iterates if other == "fista" else ista_iterates, 20).mean(0)
    assert found[f"test/{other}_iterations"] == (curve > module.problem.objective(data.x, z).mean()).sum()
    excess = module.problem.objective(data.x, z) - data.optimum
    assert found["test/suboptimality"] == pytest.approx(excess.mean().item(), rel=1e-5)
    assert found["test/suboptimality"] == pytest.approx(found[f"test/suboptimality_{depth}"], rel=1e-5)
    error = 10 * math.log10((z - data.code).square().sum() / data.code.square().sum())
    assert found["test/nmse"] == pytest.approx(error, rel=1e-5)
    assert found["test/support_recall"] == pytest.approx(((z != 0) & (data.code != 0)).sum() / (data.code != 0).sum())


def test_a_test_without_codes_leaves_out_what_needs_them(tmp_path: Path) -> None:
    found = trainer_in(tmp_path).test(coder(), Data(codes=False), verbose=False)[0]
    assert not {"test/nmse", "test/support_recall"} & set(found)


def test_prediction_takes_signals_alone(tmp_path: Path) -> None:
    data, module = Data(), coder()
    codes = torch.cat(trainer_in(tmp_path).predict(module, data))
    torch.testing.assert_close(codes, module(data.x))


def test_the_learning_rate_falls_on_a_plateau(tmp_path: Path) -> None:
    module = coder(learning_rate=1e-6, decay=0.1, patience=1)  # too small for val/loss to improve by its threshold
    trainer = trainer_in(tmp_path, max_epochs=3)
    trainer.fit(module, Data())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-7)


def test_a_reset_without_noise_is_a_copy_and_with_noise_another_network() -> None:
    for noise, same in ((0.0, True), (0.5, False)):
        module = coder(init_noise=noise)
        before = [parameter.detach().clone() for parameter in module.parameters()]
        reset_parameters(module)
        assert all(torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True)) is same


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["lista", "facnet", "facnet_free", "tilista"])
def test_a_twin_is_compared_on_the_surface_of_the_network(layer: Any, tmp_path: Path) -> None:
    module = coder(layer, 2, init_noise=0.3)
    callback = LevelSetConnectivity("twin", dirpath=tmp_path, num_batches=2, on_error="raise")
    trainer_in(tmp_path, callback, max_epochs=1).fit(module, Data())
    batches = Data().batches[:2]
    surface = LossSurface(module, batches)
    points = torch.stack([surface.point(), 1.01 * surface.point()])
    assert surface.losses(points).isfinite().all()
    assert (tmp_path / "checks.jsonl").is_file()


def test_moves_and_converts_with_its_trainer(tmp_path: Path) -> None:
    module = coder("alista", 2)
    trainer_in(tmp_path, max_epochs=1, precision="64-true").fit(module, Data())
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float64}
    assert module(Data().x.double()).dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("layer", list(LAYERS))
def test_a_gpu_computes_the_same(layer: Any) -> None:
    module, x = coder(layer).eval(), Data().x
    expected = module(x)
    torch.testing.assert_close(module.cuda()(x.cuda()).cpu(), expected, rtol=1e-4, atol=1e-5)


def test_the_command_line_fits_and_tests_on_the_problem_of_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["landscape"])
    sizes = {"batch_size": 4, "steps_per_epoch": 2, "val_size": 4, "test_size": 4}
    recipe = {
        "seed_everything": 0,
        "model": {
            "class_path": "lightning_landscape.models.UnrolledSparseCoder",
            "init_args": {"depth": 2, "max_iterations": 30},
        },
        "data": {
            "class_path": "lightning_landscape.datamodules.SparseCodingDataModule",
            "init_args": {"dataset": "gaussian", "lam": 0.02, **sizes},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    main(["fit", "--config", "recipe.yaml"])
    (checkpoint,) = tmp_path.glob("checkpoints/*.ckpt")
    module = UnrolledSparseCoder.load_from_checkpoint(checkpoint)
    data = SparseCodingDataModule("gaussian", lam=0.02)
    assert torch.equal(module.problem.dictionary, data.dictionary)
    assert module.lam == 0.02
    capsys.readouterr()
    main(["test", "--config", "recipe.yaml", "--ckpt_path", str(checkpoint)])
    assert "test/fista_iterations" in capsys.readouterr().out


def test_a_layer_of_the_users_own_is_named_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "halving", LAYERS["slista"])  # removed again, whatever the class statement enters

    class Halving(LAYERS["slista"], kind="halving"):
        def forward(self, dictionary: Tensor, x: Tensor, z: Tensor, previous: Tensor) -> Tensor:
            return super().forward(dictionary, x, z, previous) / 2

    network = UnrolledSparseCoder("halving", depth=1, dictionary=torch.eye(2), lam=0.5)
    assert isinstance(network.layers[0], Halving)
    assert network(torch.tensor([[2.5, 0.0]])).tolist() == [[1.0, 0.0]]
