"""A search with a proof: within one budget, in a callback that leaves training as it is."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape import Connection, LossSurface, Verdict
from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.certificates import Proved, certify
from lightning_landscape.finders import Budget, LinearPath
from lightning_landscape.report.check_figures import profile_figure
from tests.certificates.test_separation import exchanged, planted, surface_of


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(x)
        return answer

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 2, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def surface() -> LossSurface:
    torch.manual_seed(0)
    return LossSurface(Classifier(), [data()[:]], loss_fn=lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]))


def test_a_found_path_is_proved_and_the_proof_is_counted() -> None:
    on = surface()
    ends = on.point(), on.point() + 0.1
    plain, found = (finder.connect(on, *ends, margin=0.2) for finder in (LinearPath(), Proved(LinearPath())))
    assert found.connected
    assert found.certified
    assert max(found.proved_profile.loss) <= found.level
    assert found.proved_profile.t[-1] == 1.0
    assert found.work > plain.work
    assert replace(found, proved_profile=plain.proved_profile, work=plain.work, seconds=plain.seconds) == plain
    back = Connection.from_dict(json.loads(json.dumps(found.to_dict())))
    assert back.proved_profile == found.proved_profile
    assert back.certified
    (legend,) = (axes.get_legend() for axes in profile_figure(found).axes)
    assert [text.get_text() for text in legend.get_texts()] == ["proved bound"]
    row = {key: value for key, value in found.to_dict().items() if key != "proved_profile"}
    assert not Connection.from_dict(row).certified


@pytest.mark.parametrize("work", [0, 1, 3, 10, 30, 1000])
def test_search_and_proof_share_one_budget(work: int) -> None:
    on = surface()
    ends = on.point(), on.point() + 0.1
    before, line = on.work.total, LinearPath().connect(on, *ends, margin=0.2).work
    found = Proved(LinearPath()).connect(on, *ends, margin=0.2, budget=Budget(work))
    assert on.work.total - before - line == pytest.approx(found.work)
    assert found.work <= max(line, work) + 1e-9
    assert found.certified == certify(on, found, budget=Budget(max(0, work - line))).certified


def test_a_failed_search_is_proved_to_have_had_nothing_to_find() -> None:
    module, theta, batch = planted(0)
    found = Proved(LinearPath()).connect(surface_of(module, batch), theta, exchanged(theta, [1, 0, 2]), margin=0.05)
    assert found.verdict == Verdict.SEPARATED
    assert not found.certified


def fit(folder: Path, *callbacks: pl.Callback) -> Classifier:
    torch.manual_seed(0)
    module = Classifier()
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, DataLoader(data(), batch_size=16, shuffle=True))
    fit.metrics = dict(trainer.callback_metrics)  # type: ignore[attr-defined]
    return module


def test_checks_of_a_run_are_certified_and_training_stays_as_it_is(tmp_path: Path) -> None:
    plain = fit(tmp_path / "plain")
    callback = LevelSetConnectivity(
        certify=True, num_batches=2, overhead=None, margin=0.3, finder=LinearPath(), dirpath=tmp_path / "checks"
    )
    module = fit(tmp_path / "watched", callback)
    for ours, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert len(callback.rows) == 2
    for row in callback.rows:
        assert Connection.from_dict(row).certified
    assert fit.metrics["landscape/certified"] == 1.0  # type: ignore[attr-defined]


def test_without_being_asked_nothing_is_proved_and_nothing_logged(tmp_path: Path) -> None:
    callback = LevelSetConnectivity(num_batches=2, finder=LinearPath(), dirpath=tmp_path / "checks")
    fit(tmp_path, callback)
    assert not any(row["proved_profile"]["t"] for row in callback.rows)
    assert "landscape/certified" not in fit.metrics  # type: ignore[attr-defined]
