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
        (Net(hidden=7), r"ref.*cannot be compared.*another shape \(\(7, 4\) for \(6, 4\)\): layers\.0\.weight"),
        (Ring(), r"4 parameters are missing, among them layers\.0\.weight.*that it lacks"),
    ],
    ids=["shape", "names"],
)
@pytest.mark.parametrize("rehearsal", [False, True])
def test_reference_of_another_architecture(
    other: LightningModule, message: str, rehearsal: bool, tmp_path: Path
) -> None:
    callback = attached(tmp_path, pairs="reference", reference=other_weights(tmp_path, other))
    trainer = trainer_of(tmp_path, callback, epochs=1, fast_dev_run=rehearsal)
    with pytest.raises(ValueError, match=message):
        trainer.fit(Net())
    assert trainer.global_step == 0


def test_missing_reference_is_refused_before_the_first_step(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, attached(tmp_path, pairs="reference", reference=tmp_path / "none.ckpt"))
    with pytest.raises(SnapshotError, match=r"none.ckpt does not exist: pass a .safetensors file or a Lightning .ckpt"):
        trainer.fit(Net())
    assert trainer.global_step == 0
