"""What cannot work is refused before the first step, with what to do, and not hours later."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import BackboneFinetuning
from pytorch_lightning.demos.boring_classes import BoringModel
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_landscape.callbacks import ForkStability, LevelSetConnectivity, MergeTree, SnapshotRecorder
from lightning_landscape.finders import LinearPath

pytestmark = [
    pytest.mark.usefixtures("blank_figures"),
    pytest.mark.filterwarnings("error:.*failed", "error:.*could not", "ignore:The dirpath"),
]


class Net(BoringModel):
    """A linear layer, or what is given, with an optimiser of its own."""

    def __init__(self, layer: nn.Module | None = None, optimizer: Callable[..., Any] = torch.optim.SGD) -> None:
        super().__init__()
        self.layer = layer if layer is not None else nn.Linear(32, 2)
        self.optimizer = optimizer

    def configure_optimizers(self) -> Any:  # type: ignore[override]
        return self.optimizer([parameter for parameter in self.parameters() if parameter.requires_grad], lr=0.1)


class Sharp(torch.optim.SGD):
    """Has a closure for an option, and cannot do without it."""

    def step(self, closure: Any = None) -> Any:
        assert closure is not None, "sharpness-aware minimisation requires a closure"
        return super().step(closure)


class Thinking(torch.optim.SGD):
    """Calls whatever closure it has."""

    def step(self, closure: Any = None) -> Any:
        closure()
        return super().step()


def trainer_of(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 0} | options
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **settings,
    )


def level_set(pairs: Any = "lagged", **options: Any) -> LevelSetConnectivity:
    return LevelSetConnectivity(pairs, finder=LinearPath(), num_batches=1, **options)


def fork(**options: Any) -> ForkStability:
    return ForkStability(num_batches=1, error_fn=lambda module, batch: module(batch).abs().mean(), **options)


def tree(**options: Any) -> MergeTree:
    return MergeTree(finder=LinearPath(), num_batches=1, **options)


CALLBACKS: dict[str, Callable[..., pl.Callback]] = {
    "level set": level_set,
    "tree": tree,
    "fork": fork,
    "recorder": lambda **options: SnapshotRecorder(every_n_epochs=1, **options),
}


@pytest.mark.parametrize("rehearsal", [False, True])
@pytest.mark.parametrize("kind", CALLBACKS)
def test_a_folder_that_cannot_be_written(tmp_path: Path, kind: str, rehearsal: bool) -> None:
    (tmp_path / "file").touch()
    trainer = trainer_of(
        tmp_path, CALLBACKS[kind](dirpath=tmp_path / "file" / "deep" / "folder"), fast_dev_run=rehearsal
    )
    with pytest.raises(
        MisconfigurationException, match=r"no file can be written into .*file/deep/folder.*another dirpath="
    ):
        trainer.fit(Net())
    assert trainer.global_step == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("kind", CALLBACKS)
def test_a_folder_without_the_right_to_write(tmp_path: Path, kind: str) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(MisconfigurationException, match="no file can be written into"):
        trainer_of(tmp_path, CALLBACKS[kind](dirpath=tmp_path / "locked")).fit(Net())


def deeper() -> dict[str, Any]:
    return {**Net().state_dict(), "more.weight": torch.ones(2)}


FILES: dict[str, tuple[Callable[[], Any], str]] = {
    "deeper": (deeper, r"lacks: more\.weight"),
    "integers": (lambda: {name: value.long() for name, value in Net().state_dict().items()}, "torch.int64"),
    "sparse": (lambda: {name: value.to_sparse() for name, value in Net().state_dict().items()}, "sparse"),
    "meta": (lambda: {name: value.to("meta") for name, value in Net().state_dict().items()}, "meta device"),
    "no weights": (dict, "2 parameters are missing"),
}


@pytest.mark.parametrize("rehearsal", [False, True])
@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("kind", ["level set", "tree"])
def test_a_reference_that_does_not_fit(tmp_path: Path, kind: str, case: str, rehearsal: bool) -> None:
    make, message = FILES[case]
    torch.save({"state_dict": make()}, tmp_path / "other.ckpt")
    reference = tmp_path / "other.ckpt"
    callback = level_set("reference", reference=reference) if kind == "level set" else tree(references=[reference])
    trainer = trainer_of(tmp_path, callback, fast_dev_run=rehearsal)
    with pytest.raises(ValueError, match=rf"other\.ckpt cannot be compared: .*{message}"):
        trainer.fit(Net())
    assert trainer.global_step == 0


@pytest.mark.parametrize("optimizer", [torch.optim.LBFGS, Sharp, Thinking])
@pytest.mark.parametrize("callback", [lambda: level_set("twin"), fork], ids=["twin", "fork"])
def test_optimisers_that_evaluate_the_loss_themselves(tmp_path: Path, optimizer: Any, callback: Any) -> None:
    trainer = trainer_of(tmp_path, callback())
    with pytest.raises(
        MisconfigurationException, match=rf"{optimizer.__name__}\.step needs a closure.*such as SGD or Adam"
    ):
        trainer.fit(Net(optimizer=optimizer))
    assert trainer.global_step == 0


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.NAdam, torch.optim.Adafactor])
def test_other_optimisers_are_none_of_them(tmp_path: Path, optimizer: Any) -> None:
    callback = level_set("twin")
    trainer_of(tmp_path, callback, fork()).fit(Net(optimizer=optimizer))
    assert [row["reason"] != "error" for row in callback.rows] == [True, True]


def test_a_lazy_module_has_no_twin(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"cannot draw layer\.weight.*run one batch through Net before"):
        trainer_of(tmp_path, level_set("twin")).fit(Net(nn.LazyLinear(2)))


class Backbone(BoringModel):
    """A backbone that is frozen for an epoch, below a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.layer = nn.Linear(32, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.backbone(x))

    def configure_optimizers(self) -> Any:  # type: ignore[override]
        return torch.optim.SGD([parameter for parameter in self.parameters() if parameter.requires_grad], lr=0.01)


@pytest.mark.parametrize("callback", [lambda: level_set("twin"), fork], ids=["twin", "fork"])
def test_callbacks_that_unfreeze(tmp_path: Path, callback: Any) -> None:
    trainer = trainer_of(tmp_path, callback(), BackboneFinetuning(unfreeze_backbone_at_epoch=1))
    with pytest.raises(MisconfigurationException, match=r"cannot follow BackboneFinetuning.*learning rate of 0"):
        trainer.fit(Backbone())


def test_a_module_that_unfreezes_itself_gets_a_row_that_says_what_to_do(tmp_path: Path) -> None:
    class Unfreezing(Backbone):
        def __init__(self) -> None:
            super().__init__()
            self.backbone.requires_grad_(False)

        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                self.backbone.requires_grad_(True)
                self.optimizers().add_param_group({"params": list(self.backbone.parameters())})

    callback = fork()
    with pytest.warns(UserWarning, match="the fork at step 0 failed"):
        trainer_of(tmp_path, callback).fit(Unfreezing())
    assert "had groups of [2] parameters, and configure_optimizers now gives [4]" in callback.rows[0]["message"]


def test_a_second_fit_with_another_module_begins_anew(tmp_path: Path) -> None:
    for callback in (level_set("first"), level_set("twin", dirpath=tmp_path / "twin"), tree()):
        trainer = trainer_of(tmp_path, callback)
        trainer.fit(Net())
        former = [dict(row) for row in callback.rows]
        trainer.fit_loop.max_epochs = 4
        second = Net()
        trainer.fit(second)
        assert len(callback.rows) == len(former)
        assert [row["check"] for row in callback.rows] == [row["check"] for row in former]
        assert all(row["epoch"] >= 2 for row in callback.rows)
        trainer.fit_loop.max_epochs = 6
        trainer.fit(second)  # the same module goes on
        assert len(callback.rows) > len(former)


def test_places_that_two_callbacks_share(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "x", target_is_directory=True)
    pairs = [
        (level_set(dirpath=tmp_path / "x"), tree(dirpath=tmp_path / "link")),
        (level_set(dirpath=tmp_path / "x"), SnapshotRecorder(tmp_path / "x", every_n_epochs=1)),
        (SnapshotRecorder(tmp_path / "x" / "snapshots", every_n_epochs=1), tree(dirpath=tmp_path / "x")),
        (level_set(), level_set(name="snapshots")),
        (level_set(name="tree", dirpath=tmp_path / "x"), fork(name="tree", dirpath=tmp_path / "x")),
    ]
    for pair in pairs:
        with pytest.raises(MisconfigurationException, match=r"would write into .*: give each its own dirpath="):
            trainer_of(tmp_path, *pair).fit(Net())
    with pytest.raises(MisconfigurationException, match="would both log under landscape/tree"):
        trainer_of(tmp_path, level_set(name="tree"), fork(name="tree"), tree()).fit(Net())


def test_a_refused_fit_leaves_no_files(tmp_path: Path) -> None:
    loader: DataLoader[Any] = DataLoader(torch.randn(8, 32), 2)
    torch.save({"state_dict": deeper()}, tmp_path / "other.ckpt")
    trainer = trainer_of(tmp_path, level_set("reference", reference=tmp_path / "other.ckpt"))
    with pytest.raises(ValueError, match="lacks"):
        trainer.fit(Net(), loader)
    assert not (tmp_path / "landscape").exists()
