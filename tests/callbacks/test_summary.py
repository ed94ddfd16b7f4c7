"""At the end of any Trainer's fit the callbacks print what they found, once, unless they are told not to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_landscape.callbacks import AverageWhenConnected, LevelSetConnectivity, MergeTree


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Tensor) -> Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder: Path, epochs: int = 2, **options: Any) -> None:
    callbacks = [
        LevelSetConnectivity(dirpath=folder / "checks", overhead=None, **options),
        MergeTree(dirpath=folder / "tree", overhead=None, **options),
        AverageWhenConnected(dirpath=folder / "average", **options),
    ]
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(Net(), DataLoader(torch.randn(8, 2), batch_size=4))


@pytest.mark.usefixtures("blank_figures")
def test_a_plain_fit_closes_with_table_conclusion_and_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path)
    printed = "".join(capsys.readouterr().out.split())
    for once in (
        "Thelastcheck:",
        f"{tmp_path}/checks",
        f"{tmp_path}/tree",
        "Nothingtoaverage",
    ):
        assert printed.count(once) == 1, once


@pytest.mark.usefixtures("blank_figures")
def test_nothing_is_printed_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, summary=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("rank_zero", "printed"), [(True, "found\n"), (False, "")])
def test_only_rank_zero_speaks(rank_zero: bool, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    class Closing(LevelSetConnectivity):
        def summary(self) -> str:
            return "found"

    callback = Closing()
    callback.active = True
    callback.on_fit_end(SimpleNamespace(is_global_zero=rank_zero), Net())
    assert capsys.readouterr().out == printed
