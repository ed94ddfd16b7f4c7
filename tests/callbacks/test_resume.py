"""A run that was killed and resumed writes the rows of one that was not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger
from resumable import EPOCHS, KILLED, SAVED, run, without_figures

from lightning_landscape import SnapshotStore
from lightning_landscape.callbacks import LevelSetConnectivity, level_set
from lightning_landscape.finders import LinearPath

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]
PAIRS = ("lagged", "first", "twin")


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("profile_figure", "history_figure", "save_figure"):
        monkeypatch.setattr(level_set, name, getattr(level_set, name))  # so that they come back
    without_figures()


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "landscape" / "checks.jsonl").read_text().splitlines()]


def latest(folder: Path) -> Path:
    return max((folder / "checkpoints").iterdir(), key=lambda path: int(path.stem.partition("=")[2]))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs that were killed at various moments."""
    folder = tmp_path_factory.mktemp("killed")
    repository = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("resumable.py")), str(folder)]
    done = subprocess.run(command, env=environment, timeout=240, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("pairs", PAIRS)
def test_killed_run_resumes_with_the_rows_of_an_uninterrupted_one(tmp_path: Path, killed: Path, pairs: str) -> None:
    whole = run(tmp_path, pairs)
    expected = timeless(whole.rows)
    assert len(expected) == EPOCHS - (pairs != "twin")
    assert any(row["gradient_steps"] > 0 for row in expected)
    for moment in KILLED[pairs]:
        folder = killed / f"{pairs}-{moment}"
        file = folder / "landscape" / "checks.jsonl"
        lines = file.read_bytes().split(b"\n") if file.exists() else [b""]
        assert bool(lines.pop()) == (moment == "rows")
        rows = [json.loads(line) for line in lines]
        assert len(rows) < len(expected)
        assert timeless(rows) == expected[: len(rows)]
        store = SnapshotStore(folder / "landscape" / "snapshots")
        assert all(snapshot.load() for snapshot in store)
        assert bool(list((folder / "landscape").rglob(".*"))) == (moment == "snapshot")
        assert (folder / "landscape" / "running.lock").exists()
        resumed = run(folder, pairs, ckpt_path=latest(folder))
        assert timeless(resumed.rows) == expected
        assert timeless(written(folder)) == expected
        names = {path.name for path in (folder / "landscape").iterdir()}
        assert names == {path.name for path in (tmp_path / "landscape").iterdir()} == {"checks.jsonl", "snapshots"}
        assert not list((folder / "landscape").rglob(".*"))
        hashes = {snapshot.name: snapshot.content_hash for snapshot in store}
        assert hashes == {snapshot.name: snapshot.content_hash for snapshot in whole._store}


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("pairs", PAIRS)
def test_resume_from_an_older_checkpoint_writes_the_later_rows_again(tmp_path: Path, pairs: str, saved: str) -> None:
    expected = timeless(run(tmp_path / "run", pairs, saved, keep="all").rows)
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == EPOCHS
    for epoch in (0, 2):
        folder = tmp_path / f"resumed-{epoch}"
        shutil.copytree(tmp_path / "run" / "landscape", folder / "landscape")
        resumed = run(folder, pairs, saved, tmp_path / "run" / "checkpoints" / f"epoch={epoch}.ckpt", keep="all")
        assert resumed.folder == folder / "landscape-2"
        assert timeless(resumed.rows) == expected
        assert timeless(written(folder)) == expected


def test_checkpoint_after_the_last_batch_of_all_still_gets_its_check(tmp_path: Path) -> None:
    expected = timeless(run(tmp_path, "lagged", "after the last batch").rows)
    resumed = run(tmp_path, "lagged", "after the last batch", tmp_path / "checkpoints" / f"epoch={EPOCHS - 1}.ckpt")
    assert timeless(resumed.rows) == expected


def test_lagged_pairing_goes_on_after_its_partner_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = LevelSetConnectivity.on_train_epoch_end

    def losing(self: Any, trainer: Any, pl_module: Any) -> None:
        end(self, trainer, pl_module)
        if trainer.current_epoch == 1:
            self._store.delete("epoch=001-step=000008")

    monkeypatch.setattr(LevelSetConnectivity, "on_train_epoch_end", losing)
    with pytest.warns(UserWarning, match="check 2 .* failed: SnapshotError: .* does not exist"):
        callback = run(tmp_path, "lagged", on_error="warn")
    assert [row["reason"] == "error" for row in callback.rows] == [False, True, False, False]


def test_state_is_plain_and_small(tmp_path: Path) -> None:
    callback = run(tmp_path, "lagged")
    saved = torch.load(latest(tmp_path), weights_only=True)["callbacks"][callback.state_key]
    assert saved["checks"] == EPOCHS - 2  # saved at the end of validation, before the check of the epoch
    assert saved["epochs"] == EPOCHS - 1
    assert saved["pairing"]["name"] == "epoch=003-step=000016"
    assert len(json.dumps(saved)) < 2000


def test_a_run_that_named_no_folder_goes_on_in_the_one_it_had(tmp_path: Path) -> None:
    # Loggers number the versions of a run, and a resumed one is another version.
    def fit(epochs: int, ckpt_path: Path | None = None) -> LevelSetConnectivity:
        callback = LevelSetConnectivity(finder=LinearPath(), num_batches=1)
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=CSVLogger(tmp_path, name="run"),
            callbacks=[callback, ModelCheckpoint(tmp_path / "checkpoints", save_last=True)],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(BoringModel(), ckpt_path=ckpt_path)
        return callback

    first = fit(2)
    resumed = fit(4, tmp_path / "checkpoints" / "last.ckpt")
    assert resumed.folder == first.folder
    assert [row["check"] for row in resumed.rows] == [1, 2, 3]
