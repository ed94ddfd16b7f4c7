"""LevelSetConnectivity attached, unchanged, to LightningModules that were not written for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import BackboneFinetuning
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from tests.callbacks.attached_runs import assert_sound, fit
from tests.callbacks.foreign_modules import (
    VAE,
    Annealed,
    FineTuned,
    Plain,
    Stream,
    examples,
    loader,
    probe,
    vae_loss,
)

pytestmark = [
    pytest.mark.filterwarnings(
        "error:.*could not be published", "error:check .* failed", "ignore:There is a performance drop"
    ),
    pytest.mark.usefixtures("blank_figures"),
]


RUNS: dict[str, tuple[Callable[[], LightningModule], Callable[[], Any], dict[str, Any]]] = {
    "vae with a loss of its own": (VAE, loader, {"loss_fn": vae_loss}),
    "stream with batches": (Plain, lambda: DataLoader(Stream(), batch_size=16), {"batches": probe()}),
    "one example": (Plain, lambda: loader(1), {}),
    "two examples": (Plain, lambda: loader(2), {}),
    "larger batch": (Plain, lambda: loader(10), {}),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_attached(name: str, tmp_path: Path) -> None:
    """What is not in the table of tests/callbacks/attachable.py."""
    module, data, options = RUNS[name]
    assert_sound(fit(tmp_path, module(), data(), **options), [1, 2])


def test_loss_depends_on_the_epoch_of_the_check(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Annealed()
    batches = probe()
    callback = fit(tmp_path, module, loader(), batches=batches, pairs="first")
    losses = torch.stack([F.cross_entropy(module.layer(inputs), labels) for inputs, labels in batches])
    penalty = sum(p.square().sum() for p in module.parameters())
    assert callback.rows[-1]["loss_b"] == pytest.approx((losses.mean() + 0.01 * 2 * penalty).item(), rel=1e-6)


def test_only_trainable_parameters_are_coordinates(tmp_path: Path) -> None:
    module = FineTuned()
    other = FineTuned()
    other.backbone.load_state_dict(module.backbone.state_dict())
    torch.save({"state_dict": other.state_dict()}, tmp_path / "other.ckpt")
    callback = fit(tmp_path, module, loader(), epochs=2, pairs="reference", reference=tmp_path / "other.ckpt")
    difference = torch.cat([(a - b).flatten() for a, b in zip(module.parameters(), other.parameters(), strict=True)])
    row = callback.rows[-1]
    assert row["length"] == pytest.approx(row["normalized_length"] * difference.norm().item(), rel=1e-5)


def test_backbone_unfrozen_during_training(tmp_path: Path) -> None:
    module = FineTuned()
    module.backbone.requires_grad_(True)
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=2, verbose=False)
    assert_sound(fit(tmp_path, module, loader(), epochs=4, beside=[finetuning]), [1, 2, 3])


def test_examples_outside_the_sampler_are_no_training_data(tmp_path: Path) -> None:
    inputs, labels = examples().tensors
    inputs[16:] = math.nan  # held out
    data = DataLoader(TensorDataset(inputs, labels), batch_size=8, sampler=SubsetRandomSampler(range(16)))
    assert_sound(fit(tmp_path, Plain(), data), [1, 2])


def test_combined_loaders_work_with_batches(tmp_path: Path) -> None:
    class Combined(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch["a"], batch_idx) + super().training_step(batch["b"], batch_idx)

    batches = [{"a": batch, "b": batch} for batch in probe()]
    loaders = CombinedLoader({"a": loader(), "b": loader(32)}, "max_size_cycle")
    assert_sound(fit(tmp_path, Combined(), loaders, batches=batches), [1, 2])
