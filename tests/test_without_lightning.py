"""The package ``lightning`` is not needed: all works where it is absent, or is something else of that name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import pytorch_lightning as pl, torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.demos.boring_classes import BoringModel
from lightning_landscape import either_lightning
from lightning_landscape.callbacks import LevelSetConnectivity
from lightning_landscape.finders import LinearPath
assert either_lightning.both(pl.Trainer) == (pl.Trainer,)
assert issubclass(either_lightning.MisconfigurationException, MisconfigurationException)
callback = LevelSetConnectivity(finder=LinearPath(), on_error="raise", loss_fn=lambda m, x: m(x).square().mean())
options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
pl.Trainer(max_epochs=2, limit_train_batches=4, accelerator="cpu", logger=False, callbacks=[callback], **options).fit(
    BoringModel()
)
assert len(callback.rows) == 1
"""


@pytest.mark.parametrize("absence", ["import sys; sys.modules['lightning'] = None", "open('lightning.py', 'w')"])
def test_without_the_package(tmp_path: Path, absence: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"{absence}\n{RUN}")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
