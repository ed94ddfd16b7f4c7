"""The LightningModule: what it computes, logs and keeps, where its problem comes from, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_landscape import LossSurface
from lightning_landscape.callbacks import AccelerationCertificate, LevelSetConnectivity
from lightning_landscape.callbacks.pairings.twin import reset_parameters
from lightning_landscape.cli import main
from lightning_landscape.datamodules import PolynomialDataModule, SparseCodingDataModule
from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.sparse_coding import (
    LassoProblem,
    SparseCodingBatch,
    cost_curve,
    fista,
    fista_iterates,
    ista,
    ista_iterates,
    reference_optimum,
)
from lightning_landscape.sparse_coding.dictionaries import gaussian_dictionary
from lightning_landscape.sparse_coding.layers import LAYERS

N, M, LAM = 8, 12, 0.1
PLAIN = [name for name in LAYERS if name not in ("alista", "lista_cpss")]


def dictionary_of(dtype: torch.dtype = torch.float32) -> Tensor:
    return gaussian_dictionary(N, M, torch.Generator().manual_seed(0)).to(dtype)


def coder(layer: Any = "lista", depth: int = 3, **arguments: Any) -> UnrolledSparseCoder:
    return UnrolledSparseCoder(
        layer, depth, **{"dictionary": dictionary_of(), "lam": LAM, "max_iterations": 30, **arguments}
    )


class Data(pl.LightningDataModule):
    """Small batches, a few of them; ``x`` replaces the signals."""

    def __init__(self, x: Tensor | None = None, codes: bool = True, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dictionary, self.lam = dictionary_of(dtype), LAM
        generator = torch.Generator().manual_seed(1)
        code = torch.randn(18, M, generator=generator) * (torch.rand(18, M, generator=generator) < 0.3)
        x = (code.to(dtype) @ self.dictionary.T) if x is None else x
        self.x, self.code = x, code.to(dtype)
        solved = reference_optimum(LassoProblem(self.dictionary, LAM), x) if x.isfinite().all() else (None, None)
        parts = [x, self.code if codes else None, *solved]
        split = [[None] * 3 if part is None else part.split([8, 8, 2]) for part in parts]
        self.batches = [SparseCodingBatch(*fields) for fields in zip(*split, strict=True)]
        self.optimum = solved[1]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)

    val_dataloader = test_dataloader = train_dataloader

    def predict_dataloader(self) -> DataLoader[Any]:
        return DataLoader([batch.x for batch in self.batches], batch_size=None)


def trainer_in(folder: Path, *callbacks: pl.Callback, **arguments: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": any(
        isinstance(callback, ModelCheckpoint) for callback in callbacks)}  # fmt: skip
    return pl.Trainer(
        accelerator="cpu", logger=False, default_root_dir=folder, callbacks=[*callbacks], **quiet, **arguments
    )


def trained(folder: Path, layer: Any = "lista", depth: int = 3, **arguments: Any) -> UnrolledSparseCoder:
    """A coder away from its start."""
    module = coder(layer, depth, learning_rate=0.02, **arguments)
    trainer_in(folder, max_epochs=2).fit(module, Data())
    return module


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
    torch.testing.assert_close(module.training_step(data.batches[0]._replace(x=data.x), 0), fit + 4 * M / 2)


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


@pytest.mark.parametrize("layer", list(LAYERS))
def test_a_warm_start_leaves_the_prefix_and_adds_iterations_of_ista(layer: Any, tmp_path: Path) -> None:
    shallow = trained(tmp_path, layer, 3).eval()
    deep = coder(layer, 5).eval()
    start = coder(layer, 5).eval()
    deep.load_shallower(shallow.state_dict())
    x = Data().x
    for before, after in zip(shallow.iterates(x), deep.iterates(x)[:4], strict=True):
        assert torch.equal(before, after)
    own = {key: value for key, value in start.state_dict().items() if key.startswith(("layers.3.", "layers.4."))}
    taken = {key: value for key, value in deep.state_dict().items() if key in own and not key.endswith(".W")}
    assert all(torch.equal(value, own[key]) for key, value in taken.items())
    if layer in ("lista", "facnet", "lista_cp", "slista"):
        expected = ista(deep.problem, x, 2, initial=shallow(x))
        assert (deep(x) - expected).abs().max() <= 1e-5
    if layer == "tilista":
        assert all(kept.W is deep.layers[0].W for kept in deep.layers)
        assert torch.equal(deep.layers[4].W, shallow.layers[0].W)


def test_a_warm_start_undoes_what_was_trained_before(tmp_path: Path) -> None:
    module, again = trained(tmp_path, depth=4), coder(depth=4)
    shallow = coder(depth=2)
    module.load_shallower(shallow.state_dict())
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), again.parameters(), strict=True))


def test_a_fit_warm_starts_from_a_checkpoint_and_reloads_without_it(tmp_path: Path) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path, filename="shallow")
    trainer_in(tmp_path, keep, max_epochs=1).fit(shallow := coder(depth=2, learning_rate=0.02), Data())
    module = UnrolledSparseCoder("lista", 3, warm_start=tmp_path / "shallow.ckpt", learning_rate=1e-12)
    keep = ModelCheckpoint(dirpath=tmp_path, filename="deep")
    trainer_in(tmp_path, keep, max_epochs=1).fit(module, Data())
    x = Data().x
    torch.testing.assert_close(module.iterates(x)[2], shallow(x))
    assert (module(x) - coder(depth=3)(x)).abs().max() > 1e-3
    (tmp_path / "shallow.ckpt").unlink()
    reloaded = UnrolledSparseCoder.load_from_checkpoint(tmp_path / "deep.ckpt")
    assert torch.equal(reloaded(x), module(x))
    with pytest.raises(FileNotFoundError):
        coder(depth=3, warm_start=tmp_path / "shallow.ckpt")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"layer": "lista_cp"}, "has layers of kind 'lista_cp', and this one 'lista'"),
        ({"depth": 4}, "has 4 layers, which are not the first ones"),
        ({"lam": 0.2}, "with lam=0.2 and a dictionary .* is not that of the network, with lam=0.1"),
        ({"dictionary": 2 * dictionary_of()}, "is not that of the network"),
        ({"dictionary": torch.eye(4)}, "is not that of the network"),
    ],
)
def test_a_warm_start_refuses_what_is_no_prefix(other: dict[str, Any], message: str, tmp_path: Path) -> None:
    module = coder(**{"depth": 2, **other})
    trainer = trainer_in(tmp_path)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=message):
        coder().load_shallower(tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    ("kind", "other"), [("facnet", "facnet_free"), ("facnet_free", "facnet"), ("lista_cp", "lista_cpss")]
)
def test_kinds_whose_tensors_look_alike_are_not_mixed_up(kind: Any, other: Any, tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    trainer.strategy.connect(coder(kind))
    trainer.save_checkpoint(tmp_path / "kind.ckpt")
    message = f"has layers of kind '{kind}', and this one '{other}': take one kind"
    with pytest.raises(ValueError, match=message):
        coder(other, warm_start=tmp_path / "kind.ckpt")
    with pytest.raises(ValueError, match=message):
        trainer_in(tmp_path, max_epochs=1).fit(coder(other), Data(), ckpt_path=tmp_path / "kind.ckpt")


def test_a_warm_start_refuses_what_is_no_state(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match="is no checkpoint of UnrolledSparseCoder"):
        coder().load_shallower(tmp_path / "file.pt")
    with pytest.raises(ValueError, match="holds no dictionary"):
        coder().load_shallower({"layers.0.W_g": torch.eye(M)})
    with pytest.raises(ValueError, match=r"has 2 layers, which are not the first ones .*W_m'\] differ"):
        coder("l_fista").load_shallower(coder(depth=2).state_dict())
    with pytest.raises(ValueError, match="has 0 layers"):
        coder().load_shallower({"dictionary": dictionary_of()})
    state = coder().state_dict()
    del state["layers.1.theta"]
    with pytest.raises(ValueError, match=r"\['layers.1.theta'\] differ"):
        coder().load_shallower(state)


def test_the_problem_comes_from_the_data_module_and_goes_into_the_checkpoint(tmp_path: Path) -> None:
    module = UnrolledSparseCoder("facnet", 2)
    with pytest.raises(ValueError, match="no problem yet: pass dictionary and lam, or fit it with a data module"):
        module(torch.zeros(1, N))
    keep = ModelCheckpoint(dirpath=tmp_path, filename="end")
    trainer_in(tmp_path, keep, AccelerationCertificate(), max_epochs=1).fit(module, Data())
    assert torch.equal(module.problem.dictionary, dictionary_of())
    assert module.lam == LAM
    assert set(torch.load(tmp_path / "end.ckpt", weights_only=True)["hyper_parameters"]).isdisjoint(
        {"dictionary", "lam"}
    )
    reloaded = UnrolledSparseCoder.load_from_checkpoint(tmp_path / "end.ckpt").eval()
    x = Data().x
    assert torch.equal(reloaded(x), module.eval()(x))
    assert reloaded.lam == LAM
    trainer_in(tmp_path, max_epochs=2).fit(UnrolledSparseCoder("facnet", 2), Data(), ckpt_path=tmp_path / "end.ckpt")
    with pytest.raises(ValueError, match="is not that of the network"):
        trainer_in(tmp_path, max_epochs=2).fit(
            coder("facnet", 2, lam=0.3), Data().batches, Data().batches, ckpt_path=tmp_path / "end.ckpt"
        )


def test_refuses_a_data_module_of_another_problem_or_of_none(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the problem of Data, with lam=0.1 .* is not that of the network, with lam=0.2"
    ):
        trainer_in(tmp_path, max_epochs=1).fit(coder(lam=0.2), Data())
    with pytest.raises(MisconfigurationException, match="PolynomialDataModule has none either: pass both"):
        trainer_in(tmp_path, max_epochs=1).fit(UnrolledSparseCoder(), PolynomialDataModule("cubic"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("work", ["fit", "validate", "predict", "forward"])
def test_refuses_signals_that_are_not_finite(work: str, value: float, tmp_path: Path) -> None:
    x = torch.randn(18, N)
    x[3, 2] = value
    module, trainer = coder(), trainer_in(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    with pytest.raises(ValueError, match="x must be finite, but 1 of its"):
        module(x) if work == "forward" else getattr(trainer, work)(module, datamodule=Data(x))


def test_refuses_signals_and_batches_that_do_not_fit(tmp_path: Path) -> None:
    module = coder()
    for x in (torch.zeros(N), torch.zeros(2, N + 1), torch.zeros(1, 2, N)):
        with pytest.raises(ValueError, match=r"x must have shape \(batch, 8\)"):
            module(x)
        loader = DataLoader([SparseCodingBatch(x)], batch_size=None)
        with pytest.raises(ValueError, match=r"x must have shape \(batch, 8\)"):
            trainer_in(tmp_path, max_epochs=1).fit(module, loader)
    with pytest.raises(ValueError, match=r"x is torch.float64 .* convert one of them"):
        module(torch.zeros(2, N, dtype=torch.float64))
    with pytest.raises(ValueError, match="a batch must be a SparseCodingBatch, got list"):
        trainer_in(tmp_path, max_epochs=1).fit(module, DataLoader([[torch.zeros(1)]], batch_size=None))
    with pytest.raises(ValueError, match="loss='supervised' needs batches with codes"):
        trainer_in(tmp_path, max_epochs=1).fit(coder(loss="supervised"), Data(codes=False))
    assert module(torch.zeros(0, N)).shape == (0, M)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "lasso"}, "layer must be one of .*'slista'.*, got 'lasso'"),
        ({"depth": 0}, "depth must be an integer of at least 1, got 0"),
        ({"depth": 2.0}, "depth must be an integer"),
        ({"max_iterations": 0}, "max_iterations must be"),
        ({"patience": -1}, "patience must be an integer from 0"),
        ({"loss": "both"}, "loss must be 'unsupervised' or 'supervised', got 'both'"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"decay": 1.0}, r"decay must lie in \(0, 1\)"),
        ({"init_noise": math.inf}, "init_noise must be finite"),
        ({"lam": None}, "dictionary and lam go together"),
        ({"lam": 0.0}, "lam must be positive and finite"),
        ({"lam": -1.0}, "lam must be positive and finite"),
        ({"dictionary": torch.zeros(N, M)}, "columns of zeros, the first is column 0"),
        ({"dictionary": torch.full((N, M), math.nan)}, "dictionary must be finite"),
        ({"dictionary": torch.zeros(N)}, r"dictionary must be a matrix \(n, m\)"),
        ({"layer_options": {"mu": 1.0}}, r"layer_options \['mu'\] are no options of 'lista', which has \[\]"),
        ({"layer": "facnet_free", "layer_options": {"growth": 1.0}}, r"which has \['mu'\]"),
        ({"layer": "lista_cpss", "layer_options": {"limit": 2.0}}, "limit must lie"),
    ],
)
def test_refuses_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coder(**arguments)


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
