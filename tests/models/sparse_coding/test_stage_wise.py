"""StageWise: which layers each epoch trains, at which rate, and what it leaves behind; the loss over all layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_landscape.datamodules import SparseCodingDataModule
from lightning_landscape.metrics import NMSE
from lightning_landscape.models import DeepLinearNetwork, UnrolledSparseCoder
from lightning_landscape.models.sparse_coding import StageWise
from lightning_landscape.sparse_coding import lasso_objective
from tests.models.sparse_coding.coder_runs import coder

QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    "num_sanity_val_steps": 0, "log_every_n_steps": 1,
}  # fmt: skip


class Seen(pl.Callback):
    """What every epoch changed: the layers, by number from 1, and the rate."""

    def __init__(self) -> None:
        self.epochs: list[tuple[list[int], float]] = []
        self.before: list[list[torch.Tensor]] = []

    def state(self, module: UnrolledSparseCoder) -> list[list[torch.Tensor]]:
        return [[value.detach().clone() for value in layer.parameters()] for layer in module.layers]

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.before = self.state(module)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        pairs = enumerate(zip(self.before, self.state(module), strict=True), start=1)
        moved = [k for k, (old, new) in pairs if not all(map(torch.equal, old, new))]
        self.epochs.append((moved, trainer.optimizers[0].param_groups[0]["lr"]))


def data(**options: Any) -> SparseCodingDataModule:
    return SparseCodingDataModule(
        "gaussian", batch_size=10, steps_per_epoch=2, val_size=10, test_size=10, **options
    )  # fmt: skip


def network(kind: str, depth: int, problem: SparseCodingDataModule, **options: Any) -> UnrolledSparseCoder:
    return UnrolledSparseCoder(kind, depth, problem.dictionary, problem.lam, learning_rate=1e-2, **options)


@pytest.mark.parametrize("kind", ["slista", "lista"])
def test_layers_are_trained_one_after_another(kind: str, tmp_path: Path) -> None:
    problem, seen = data(), Seen()
    module = network(kind, 2, problem)
    schedule = StageWise(epochs=1, rates=(1.0, 0.5))
    trainer = pl.Trainer(default_root_dir=tmp_path, max_epochs=5, callbacks=[schedule, seen], **QUIET)
    trainer.fit(module, problem)
    expected = [([1], 1e-2), ([1], 5e-3), ([2], 1e-2), ([1, 2], 5e-3), ([1, 2], 5e-3)]
    assert [moved for moved, _ in seen.epochs] == [moved for moved, _ in expected]
    assert [rate for _, rate in seen.epochs] == pytest.approx([rate for _, rate in expected])
    assert module.trained_depth == 2


def test_a_layer_begins_as_the_one_before(tmp_path: Path) -> None:
    problem = data()
    module = network("slista", 3, problem)
    begun: list[tuple[float, float]] = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                k = module.trained_depth
                begun.append((module.layers[k - 1].gamma.item(), module.layers[max(k - 2, 0)].gamma.item()))

    schedule = StageWise(rates=(1.0,))
    pl.Trainer(default_root_dir=tmp_path, max_epochs=3, callbacks=[schedule, Look()], **QUIET).fit(module, problem)
    assert begun[0] == (1.0, 1.0)
    assert all(own == before != 1.0 for own, before in begun[1:])


def test_a_run_that_goes_on_is_the_run_that_never_stopped(tmp_path: Path) -> None:
    def trainer(epochs: int) -> pl.Trainer:
        return pl.Trainer(
            default_root_dir=tmp_path, max_epochs=epochs, callbacks=[StageWise(rates=(1.0, 0.5))], **QUIET
        )

    whole, parts = network("slista", 2, data()), network("slista", 2, data())
    trainer(4).fit(whole, data())
    stopped = trainer(3)
    with pytest.warns(UserWarning, match="needs max_epochs=4 for 2 layers of 2 stages of 1 epochs, got 3"):
        stopped.fit(parts, data())
    stopped.save_checkpoint(tmp_path / "third.ckpt")
    resumed = network("slista", 2, data())
    trainer(4).fit(resumed, data(), ckpt_path=tmp_path / "third.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.slow
def test_alista_layer_by_layer_recovers_codes(tmp_path: Path) -> None:
    problem = SparseCodingDataModule("supervised", batch_size=64, steps_per_epoch=15, val_size=1, test_size=1)
    options = {"growth": 0.012, "limit": 0.13}
    module = UnrolledSparseCoder("alista", 5, loss="supervised", learning_rate=0.05, layer_options=options)
    schedule = StageWise(rates=(1.0, 0.2))
    trainer = pl.Trainer(default_root_dir=tmp_path, max_epochs=10, callbacks=[schedule], **QUIET)
    trainer.fit(module, problem)
    batch = next(iter(problem.train_dataloader()))
    errors = []
    for z in module.eval().iterates(batch.x)[1:]:
        metric = NMSE()
        metric.update(z, batch.code)
        errors.append(float(metric.compute()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < -8


def test_refuses_what_it_cannot_train(tmp_path: Path) -> None:
    for arguments, message in (
        ({"epochs": 0}, "epochs must be"),
        ({"rates": ()}, "rates must be"),
        ({"rates": (-1.0,)}, "rates"),
    ):
        with pytest.raises(ValueError, match=message):
            StageWise(**arguments)
    with pytest.raises(MisconfigurationException, match="StageWise trains an UnrolledSparseCoder, got DeepLinear"):
        StageWise().on_fit_start(
            pl.Trainer(default_root_dir=tmp_path, **QUIET), DeepLinearNetwork.__new__(DeepLinearNetwork)
        )


def test_the_loss_over_all_layers_is_the_mean_of_theirs() -> None:
    last, every = coder("lista"), coder("lista", loss_over="all")
    x = torch.randn(7, last.dictionary.shape[0])
    problem = last.problem
    losses = [lasso_objective(problem.dictionary, problem.lam, x, z).mean() for z in last.iterates(x)[1:]]
    for module, expected in ((last, losses[-1]), (every, torch.stack(losses).mean())):
        module.log = lambda *_, **__: None  # type: ignore[method-assign]
        torch.testing.assert_close(module.training_step(x, 0), expected)
    with pytest.raises(ValueError, match="loss_over must be 'last' or 'all'"):
        coder("lista", loss_over="first")
