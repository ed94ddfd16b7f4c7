"""Whether a run has settled: false while the loss falls, true in a valley, and fit for EarlyStopping."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.callbacks.settling import SETTLED_AFTER, quiet


class Bowl(LightningModule):
    """E(w) = 1 + |w|^2, by gradient descent with a learning rate that falls to 0 after some epochs."""

    def __init__(self, lr: float, epochs: int) -> None:
        super().__init__()
        self.lr, self.epochs = lr, epochs
        self.weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))

    def training_step(self, batch: Tensor) -> Tensor:
        return 1 + self.weight.square().sum() + 0 * batch.sum()

    def validation_step(self, batch: Tensor) -> None:
        self.log("val_loss", self.training_step(batch))

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(self.parameters(), self.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: float(epoch < self.epochs))
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class Watch(Callback):
    """The metric as callbacks see it at the end of each epoch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(float(trainer.callback_metrics["landscape/settled"]))


def run(tmp_path, pairs: str, lr: float, moving: int, epochs: int, *others: Callback) -> tuple[Trainer, list[dict]]:
    callback = LevelSetConnectivity(pairs=pairs, dirpath=tmp_path, num_batches=1, overhead=None)
    loader = DataLoader(torch.zeros(2, 1), batch_size=1)
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[callback, *others],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Bowl(lr, moving), loader, loader)
    return trainer, callback.rows


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("pairs", ["lagged", "first"])
def test_a_run_that_descends_has_not_settled_and_one_that_rests_has(tmp_path, pairs: str) -> None:
    watch = Watch()
    _, rows = run(tmp_path, pairs, 0.02, 6, 12, watch)
    settled = [row["settled"] for row in rows]
    if pairs == "lagged":
        # Epochs 1 to 6 move, each later check finds no movement: it has settled after three of them.
        assert all(row["verdict"] == "connected" for row in rows)
        assert settled == [False] * 7 + [True] * 4
        assert watch.seen == [0.0] * 8 + [1.0] * 4
    else:
        assert not any(settled)  # the first weights are far higher than the last


@pytest.mark.usefixtures("blank_figures")
def test_the_numbers_of_a_lagged_pair_are_those_of_the_surface(tmp_path) -> None:
    trainer, rows = run(tmp_path, "lagged", 0.02, 9, 3)
    shrink = (1 - 2 * 0.02) ** 2  # of the weights, in the two steps of an epoch
    for number, row in enumerate(rows, start=1):
        start, end = 5 * shrink**number, 5 * shrink ** (number + 1)
        assert row["distance"] == pytest.approx(start - end, rel=1e-4)
        assert row["relative_distance"] == pytest.approx(1 - shrink, rel=1e-4)
        assert (row["loss_a"], row["loss_b"]) == pytest.approx((1 + start**2, 1 + end**2), rel=1e-4)
    logged = trainer.callback_metrics
    for key in ("distance", "relative_distance", "level", "loss_a", "loss_b", "settled"):
        assert float(logged[f"landscape/{key}"]) == pytest.approx(float(rows[-1][key]))


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("moving", [2, 100])
def test_early_stopping_ends_a_run_that_has_settled_and_no_other(tmp_path, moving: int) -> None:
    stop = EarlyStopping("landscape/settled", mode="max", stopping_threshold=0.5, patience=1000)
    trainer, rows = run(tmp_path, "lagged", 0.02, moving, 9, stop)
    if moving == 2:
        assert trainer.current_epoch == moving + SETTLED_AFTER
        assert rows[-1]["settled"]
    else:
        assert trainer.current_epoch == 9


def test_jumps_around_a_valley_are_quiet_and_hills_and_nan_are_not() -> None:
    def row(a: float | None, middle: float | None, b: float | None, barrier: float | None) -> dict:
        line = {"t": [0.0, 0.5, 1.0], "loss": [a, middle, b]}
        return {"loss_a": a, "loss_b": b, "linear_barrier": barrier, "linear_profile": line}

    assert quiet(row(0.31, 0.25, 0.30, 0.0))
    assert quiet(row(-0.31, -0.33, -0.30, 0.0))
    assert not quiet(row(0.31, 0.32, 0.30, 0.015))
    assert not quiet(row(0.31, 0.305, 0.30, 0.0))
    assert not quiet(row(0.31, None, 0.30, None))
    assert not quiet(row(None, None, 0.30, None))
    assert not quiet(row(0.31, 0.2, 0.30, math.nan))
