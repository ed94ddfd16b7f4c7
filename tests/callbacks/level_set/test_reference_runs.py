"""Checks against the weights of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from level_set_runs import Net, Ring, attached, other_weights, trainer_of
from pytorch_lightning import LightningModule

from lightning_landscape import SnapshotStore
from lightning_landscape.storage.snapshots import SnapshotError

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.mark.parametrize("kind", ["ckpt", "snapshot"])
def test_reference_files(kind: str, tmp_path: Path) -> None:
    other = Net()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    if kind == "ckpt":
        trainer = trainer_of(tmp_path, epochs=0)
        trainer.fit(other)
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        reference = tmp_path / "run.ckpt"
    else:
        reference = SnapshotStore(tmp_path / "store").save(other, step=0, epoch=0).path
    callback = attached(tmp_path, pairs="reference", reference=reference)
    module = Net()
    trainer_of(tmp_path, callback, epochs=2).fit(module)
    chord = torch.cat([(value - before[name]).flatten() for name, value in module.state_dict().items()]).norm()
    row = callback.rows[-1]
    assert row["length"] == pytest.approx(float(chord) * row["normalized_length"], rel=1e-5)
    assert [row["epoch"] for row in callback.rows] == [0, 1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Net(hidden=7), r"parameter 'layers.0.weight' has shape \(7, 4\) where the module has \(6, 4\)"),
        (Ring(), r"4 parameters of the module are missing, among them \['layers.0.weight'"),
    ],
    ids=["shape", "names"],
)
def test_reference_of_another_architecture(other: LightningModule, message: str, tmp_path: Path) -> None:
    callback = attached(tmp_path, pairs="reference", reference=other_weights(tmp_path, other))
    with pytest.warns(UserWarning, match=message):
        trainer_of(tmp_path, callback, epochs=1).fit(Net())
    (row,) = callback.rows
    assert row["reason"] == "error"


def test_missing_reference_is_refused_before_the_first_step(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, attached(tmp_path, pairs="reference", reference=tmp_path / "none.ckpt"))
    with pytest.raises(SnapshotError, match=r"none.ckpt does not exist: pass a .safetensors file or a Lightning .ckpt"):
        trainer.fit(Net())
    assert trainer.global_step == 0
