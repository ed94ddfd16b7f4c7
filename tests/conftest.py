"""Settings and fixtures of the whole suite."""

from __future__ import annotations

import fcntl
import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

# Libraries read these when they are imported, here and in the processes that tests start.
os.environ.update(MPLBACKEND="Agg", WANDB_MODE="offline", WANDB_SILENT="true", OMP_NUM_THREADS="1")

import numpy as np
import pytest
import pytorch_lightning
import torch
import wandb
from matplotlib.figure import Figure

from lightning_landscape.callbacks import level_set
from lightning_landscape.datamodules import CIFAR10DataModule

# Modules that tests share show the values of a failed assertion too, as files of tests do.
pytest.register_assert_rewrite("tests")
torch.set_num_threads(1)
for library in (pytorch_lightning.__name__, "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
    logging.getLogger(library).setLevel(logging.WARNING)

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same global random state, whichever tests run before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_wandb_run() -> Iterator[None]:
    """End a run that the test left open: WandbLogger would reuse it in the next test."""
    yield
    if wandb.run is not None:
        wandb.finish()


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks draw empty figures: drawing would take most of the time of a test, and has tests of its own."""
    for name in ("profile_figure", "history_figure"):
        monkeypatch.setattr(level_set, name, lambda *args: Figure(figsize=(1, 1)))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real data: LANDSCAPE_DATA, by default ../shared/data beside the repository."""
    root = Path(os.environ.get("LANDSCAPE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"real data needs LANDSCAPE_DATA or {REPOSITORY.parent / 'shared' / 'data'}; {root} is no folder")
    return root


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of data, empty at first, for tests that need real data and do not test how they are unpacked."""
    return tmp_path_factory.mktemp("unpacked")


@pytest.fixture(scope="session")
def unpacked_cifar10(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of CIFAR-10: to unpack it takes ten seconds, so the processes of pytest-xdist share one."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "unpacked_cifar10"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the second process waits, and finds the files
        CIFAR10DataModule(root=folder, source=data_root).prepare_data()
    return folder
