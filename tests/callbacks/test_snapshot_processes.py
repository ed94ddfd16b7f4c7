"""SnapshotRecorder in processes of its own: a killed run, and two ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl

from lightning_landscape.callbacks.snapshots import SnapshotRecorder
from tests.callbacks.snapshot_runs import Net, fit, names

PROGRAM = """
import os, signal, sys
from pathlib import Path
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from lightning_landscape.callbacks import SnapshotRecorder
from tests.callbacks.snapshot_runs import Net, fit
folder = Path(sys.argv[1])
"""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / "program.py"
    script.write_text(PROGRAM + program)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(folder)]
    return subprocess.run(command, env=environment, timeout=300, check=False, capture_output=True, text=True)


def test_kill_while_a_snapshot_is_written_then_resume(tmp_path: Path) -> None:
    whole = SnapshotRecorder(tmp_path / "whole", every_n_epochs=1)
    pl.seed_everything(7, verbose=False)
    fit(tmp_path, Net(), whole, max_epochs=4)
    killed = run(
        "fsync, calls = os.fsync, []\n"
        "def kill_third(handle):\n"
        "    calls.append(handle)\n"
        "    if len(calls) == 5:\n"  # two calls, file and folder, for each snapshot
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    fsync(handle)\n"
        "os.fsync = kill_third\n"
        "pl.seed_everything(7, verbose=False)\n"
        "checkpoint = ModelCheckpoint(folder / 'ckpt', save_top_k=-1, filename='{epoch}')\n"
        "fit(folder, Net(), SnapshotRecorder(folder / 'parts', every_n_epochs=1), checkpoint,\n"
        "    enable_checkpointing=True)\n",
        tmp_path,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = SnapshotRecorder(tmp_path / "parts", every_n_epochs=1)
    checkpoint = tmp_path / "ckpt" / "epoch=1.ckpt"
    assert len(list((tmp_path / "parts").glob(".*.tmp"))) == 1
    fit(tmp_path, Net(), resumed, ckpt_path=checkpoint)
    assert names(resumed) == names(whole)
    assert [s.content_hash for s in resumed.snapshots][:2] == [s.content_hash for s in whole.snapshots][:2]
    assert all(snapshot.load() for snapshot in resumed.store)


@pytest.mark.slow
def test_two_processes_write_once_and_do_not_wait_for_each_other(tmp_path: Path) -> None:
    # Without sync_dist the metric differs between ranks: only rank zero's value may decide.
    finished = run(
        "class Ranked(Net):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        loss = super().training_step(batch, batch_idx)\n"
        "        self.log('ranked', 1.0 - self.global_step / 10 - 100.0 * self.global_rank)\n"
        "        self.log('shared', loss.detach(), on_step=False, on_epoch=True, sync_dist=True)\n"
        "        return loss\n"
        "if __name__ == '__main__':\n"
        "    recorders = [SnapshotRecorder(folder / 'ranked', monitor='ranked', thresholds=[0.85]),\n"
        "                 SnapshotRecorder(folder / 'shared', monitor='shared', thresholds=[50.0]),\n"
        "                 SnapshotRecorder(folder / 'steps', every_n_steps=2)]\n"
        "    fit(folder, Ranked(), *recorders, devices=2, strategy='ddp_spawn', use_distributed_sampler=True)\n",
        tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    assert sorted(os.listdir(tmp_path / "ranked")) == ["epoch=001-step=000003.safetensors"]
    # Weights that another recorder holds already are linked, with a note beside them.
    assert [file.name for file in (tmp_path / "shared").glob("*.safetensors")] == ["epoch=000-step=000002.safetensors"]
    assert len(list((tmp_path / "steps").glob("*.safetensors"))) == 4
