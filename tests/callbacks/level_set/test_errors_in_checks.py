"""What goes wrong in a check does not end training, unless asked."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from level_set_runs import BATCHES, METRICS, Failing, Net, attached, rows_on_disk, trainer_of
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_landscape import SnapshotStore
from lightning_landscape.storage.rows import NumberedRows

pytestmark = pytest.mark.usefixtures("blank_figures")


def test_failing_check_warns_and_training_goes_on(tmp_path: Path) -> None:
    callback = attached(tmp_path, finder=Failing(1))
    trainer = trainer_of(tmp_path, callback)
    with pytest.warns(UserWarning, match=r"check 1 of LevelSetConnectivity failed: RuntimeError: call 1 went wrong"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    failed, after = rows_on_disk(tmp_path / "landscape")
    assert (failed["verdict"], failed["reason"]) == ("not_found", "error")
    assert failed["message"] == "RuntimeError: call 1 went wrong"
    assert failed["height"] is None
    assert (after["check"], after["message"]) == (2, None)
    assert after["height"] > 0


def test_failing_check_is_logged_as_nan(tmp_path: Path) -> None:
    callback = attached(tmp_path, finder=Failing(1))
    trainer = trainer_of(tmp_path, callback, epochs=2)
    with pytest.warns(UserWarning, match="call 1 went wrong"):
        trainer.fit(Net())
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert values.keys() >= METRICS
    assert values["landscape/connected"] == 0
    assert math.isnan(values["landscape/height"])
    assert math.isnan(values["landscape/barrier"])


def test_failing_check_ends_the_run_if_asked(tmp_path: Path) -> None:
    callback = attached(tmp_path, finder=Failing(2), on_error="raise")
    trainer = trainer_of(tmp_path, callback, epochs=5)
    with pytest.raises(RuntimeError, match="call 2 went wrong"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    assert [row["check"] for row in rows_on_disk(tmp_path / "landscape")] == [1]


class FullDisk:
    def __init__(self, calls: set[int], work: Any) -> None:
        self.calls, self.work, self.count = calls, work, 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        if self.count in self.calls:
            raise OSError(28, "No space left on device")
        return self.work(*args, **options)


def test_full_disk_under_the_record_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = FullDisk({1}, NumberedRows._write)
    monkeypatch.setattr(NumberedRows, "_write", lambda log: write(log))
    trainer = trainer_of(tmp_path, attached(tmp_path))
    with pytest.warns(UserWarning, match=r"check 1 could not be published: OSError: .*No space left"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    assert [row["check"] for row in rows_on_disk(tmp_path / "landscape")] == [1, 2]


def test_record_that_can_never_be_written_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumberedRows, "append", FullDisk({1, 2}, None))
    callback = attached(tmp_path)
    trainer = trainer_of(tmp_path, callback)
    with pytest.warns(UserWarning, match="could not be published"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    assert trainer.callback_metrics["landscape/height"] > 0


def test_full_disk_ends_the_run_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumberedRows, "append", FullDisk({1}, None))
    with pytest.raises(OSError, match="No space left"):
        trainer_of(tmp_path, attached(tmp_path, on_error="raise")).fit(Net())


def test_full_disk_under_a_snapshot_fails_that_check_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = FullDisk({2}, SnapshotStore.save)
    monkeypatch.setattr(SnapshotStore, "save", lambda *args, **options: save(*args, **options))
    callback = attached(tmp_path)
    with pytest.warns(UserWarning, match="No space left"):
        trainer_of(tmp_path, callback, epochs=4).fit(Net())
    assert [(row["epoch"], row["reason"] == "error") for row in callback.rows] == [(1, True), (2, False), (3, False)]
    # The lagged pair skips the epoch that was never written.
    assert callback.rows[1]["loss_b"] == pytest.approx(callback.rows[2]["loss_a"], rel=1e-6)


def test_a_folder_that_is_lost_in_training_only_warns(tmp_path: Path) -> None:
    class InTheWay(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            shutil.rmtree(tmp_path / "file", ignore_errors=True)
            (tmp_path / "file").write_text("in the way")

    callback = attached(tmp_path, dirpath=tmp_path / "file" / "landscape")
    trainer = trainer_of(tmp_path, callback, InTheWay())
    with pytest.warns(UserWarning, match=r"failed: NotADirectoryError"):
        trainer.fit(Net())
    assert trainer.global_step == 3 * BATCHES
    assert {row["reason"] for row in callback.rows} == {"error"}


def test_altered_snapshot_is_an_error_row(tmp_path: Path) -> None:
    class Vandal(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            for file in tmp_path.rglob("epoch=000-*.safetensors"):
                file.write_bytes(file.read_bytes()[:-4])

    callback = attached(tmp_path, pairs="first")
    with pytest.warns(UserWarning, match="SnapshotError"):
        trainer_of(tmp_path, callback, Vandal()).fit(Net())
    assert [row["reason"] for row in callback.rows] == ["error", "error"]
