"""What attaches: every kind of the table in docs/what-attaches.md is run, with every pairing, and is left as it was."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_landscape.callbacks import LevelSetConnectivity
from tests.callbacks.attachable import KINDS, Kind
from tests.callbacks.attached_runs import assert_sound
from tests.callbacks.fingerprints import assert_same

PAGE = Path(__file__).parents[2] / "docs" / "what-attaches.md"
pytestmark = [
    pytest.mark.filterwarnings("ignore:There is a performance drop", "error:.*could not be published"),
    pytest.mark.usefixtures("blank_figures"),
]


def run(
    kind: Kind, folder: Path, pairs: str | None, **options: Any
) -> tuple[dict[str, Any], list[LevelSetConnectivity]]:
    """What three epochs leave behind, and the callback if there is one."""
    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    module, data = kind.module(), kind.data()
    ours = []
    if pairs is not None:
        options = {"num_batches": 2, "on_error": "raise", "dirpath": folder / "landscape", **kind.options, **options}
        ours = [LevelSetConnectivity(pairs, **options)]
    torch.manual_seed(2)
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*kind.beside(), *ours],
        **kind.trainer,
    )
    trainer.fit(module, data)
    left = {
        "weights": module.state_dict(),
        "metrics": {key: value for key, value in trainer.callback_metrics.items() if not key.startswith("landscape/")},
        "random states": [torch.get_rng_state(), random.getstate(), np.random.get_state()],  # noqa: NPY002
        "steps": trainer.global_step,
    }
    return left, ours


def started(kind: Kind) -> pl.LightningModule:
    module = kind.module()
    module.configure_model()
    return module


def options_of(kind: Kind, folder: Path, pairs: str) -> dict[str, Any]:
    if pairs != "reference":
        return {}
    torch.manual_seed(1)  # frozen parts have to be equal
    torch.save({"state_dict": started(kind).state_dict()}, folder / "other.ckpt")
    return {"reference": folder / "other.ckpt"}


@pytest.mark.parametrize("pairs", ["lagged", pytest.param("first", marks=pytest.mark.slow), "reference", "twin"])
@pytest.mark.parametrize("name", KINDS)
def test_attaches_and_leaves_training_as_it_was(name: str, pairs: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    message = kind.refused or (kind.no_twin if pairs == "twin" else None)
    if message is not None:
        options = options_of(kind, tmp_path, pairs)
        with pytest.raises(MisconfigurationException, match=message):
            run(kind, tmp_path, pairs, **options)
        return
    plain, _ = run(kind, tmp_path / "plain", None)
    options = options_of(kind, tmp_path, pairs)
    watched, (callback,) = run(kind, tmp_path / "watched", pairs, **options)
    assert_same(watched, plain)
    assert_sound(callback, [1, 2] if pairs in ("lagged", "first") else [0, 1, 2])


@pytest.mark.parametrize(
    "name", ["classifier with dropout, batch norm, metrics, a scheduler", "diffusion", "spectral norm"]
)
def test_rows_of_two_identical_runs_are_equal_to_the_last_bit(name: str, tmp_path: Path) -> None:
    first, second = (run(KINDS[name], tmp_path / part, "lagged", overhead=2.0)[1][0].rows for part in ("a", "b"))
    drop = ("seconds",)
    assert_same(*([{key: row[key] for key in row if key not in drop} for row in rows] for rows in (first, second)))


def test_the_page_has_a_row_for_each_kind() -> None:
    assert len(KINDS) >= 40
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and cells[0] != "kind" and not cells[0].startswith("---"):
            found[cells[0]] = cells[1]
    expected = {
        name: "refused" if kind.refused else "works; no twin" if kind.no_twin else "works"
        for name, kind in KINDS.items()
    }
    assert found == expected
