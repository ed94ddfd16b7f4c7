"""Modules, data and partners that a check cannot serve are refused with a way out, and the way out works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from tests.callbacks.attached_runs import assert_sound, fit
from tests.callbacks.foreign_modules import GAN, VAE, FineTuned, Plain, gan_loss, loader

pytestmark = [
    pytest.mark.filterwarnings(
        "error:.*could not be published", "error:check .* failed", "ignore:There is a performance drop"
    ),
    pytest.mark.usefixtures("blank_figures"),
]


class UsesTrainer(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + 1 / self.trainer.estimated_stepping_batches)


class OwnsParameter(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class HoldsLock(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class BatchesOfAnySize:
    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0, 1, 2], [3, 4]])

    def __len__(self) -> int:
        return 2


REFUSED: dict[str, tuple[Any, Callable[[], Any], dict[str, Any], str]] = {
    "gan": (GAN, loader, {}, r"GAN optimises manually.*pass LevelSetConnectivity\(loss_fn="),
    "gan with a twin": (GAN, loader, {"pairs": "twin", "loss_fn": gan_loss}, "use another pairing"),
    "vae": (VAE, loader, {"noise": "refuse"}, r"draws random numbers.*noise='frozen'"),
    "trainer in training_step": (UsesTrainer, loader, {}, r"trainer\.estimated_stepping_batches.*pass loss_fn="),
    "parameter without reset": (OwnsParameter, loader, {"pairs": "twin"}, r"OwnsParameter.*pass reinitialize="),
    "reset to the same": (
        Plain,
        loader,
        {"pairs": "twin", "reinitialize": lambda module: None},
        "has the very weights of the module",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_the_first_step(case: str, tmp_path: Path) -> None:
    make, data, options, advice = REFUSED[case]
    module = make()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(MisconfigurationException, match=f"(?s){advice}"):
        fit(tmp_path, module, data(), **options)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not list(tmp_path.rglob("checks.jsonl"))


def test_module_that_cannot_be_copied_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="HoldsLock cannot be copied"):
        fit(tmp_path, HoldsLock(), loader())


def test_empty_list_of_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="batches is empty"):
        fit(tmp_path, Plain(), loader(), batches=[])


def test_trainer_in_training_step_works_with_loss_fn(tmp_path: Path) -> None:
    def loss_fn(module: UsesTrainer, batch: Any) -> Tensor:
        return F.cross_entropy(module.layer(batch[0]), batch[1])

    assert_sound(fit(tmp_path, UsesTrainer(), loader(), loss_fn=loss_fn), [1, 2])


def test_parameter_without_reset_works_with_reinitialize(tmp_path: Path) -> None:
    def reinitialize(module: LightningModule) -> None:
        for parameter in module.parameters():
            nn.init.normal_(parameter)

    callback = fit(tmp_path, OwnsParameter(), loader(), pairs="twin", reinitialize=reinitialize)
    assert_sound(callback, [0, 1, 2])


def test_frozen_weights_of_the_partner_must_be_those_of_the_module(tmp_path: Path) -> None:
    torch.save({"state_dict": FineTuned().state_dict()}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt cannot be compared: .* frozen parameters differ"):
        fit(tmp_path, FineTuned(), loader(), pairs="reference", reference=tmp_path / "other.ckpt")
