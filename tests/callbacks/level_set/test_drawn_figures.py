"""The figures of a run's checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from level_set_runs import Net, attached, trainer_of
from PIL import Image


def test_figures_are_drawn(tmp_path: Path) -> None:
    trainer_of(tmp_path, attached(tmp_path)).fit(Net())
    files = sorted((tmp_path / "landscape").glob("*.png"))
    assert [file.name for file in files] == ["history.png", "profile-0001.png", "profile-0002.png"]
    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert min(pixels.shape[:2]) > 300
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert files[1].read_bytes() != files[2].read_bytes()
