"""Drawing leaves the user's session alone, and a file is replaced whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path as FilePath
from typing import Any, BinaryIO

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from lightning_landscape.report.check_figures import history_figure, profile_figure
from lightning_landscape.report.style import save_figure
from tests.report.drawn_checks import check_row, connection, pixels, rng_states

# A glyph that is missing or an axis that cannot be scaled is a warning of matplotlib's.
pytestmark = pytest.mark.filterwarnings("error")


def test_session_of_the_user_is_left_alone(tmp_path: FilePath) -> None:
    matplotlib.use("Agg")
    mine = pyplot.figure()
    plain = tmp_path / "plain.png"
    save_figure(profile_figure(connection()), plain)
    with matplotlib.rc_context(
        {"font.size": 40, "axes.facecolor": "black", "savefig.dpi": 20, "savefig.bbox": "tight"}
    ):
        before = dict(matplotlib.rcParams)
        states = rng_states()
        save_figure(profile_figure(connection()), tmp_path / "styled.png")
        save_figure(history_figure([check_row(1)]), tmp_path / "history.png")
        with pytest.raises(ValueError, match="rows"):
            history_figure([])
        assert dict(matplotlib.rcParams) == before
    assert rng_states() == states
    assert pyplot.get_fignums() == [mine.number]
    assert pyplot.gcf() is mine
    pyplot.close(mine)
    # The picture does not depend on the user's style either.
    assert np.array_equal(pixels(plain), pixels(tmp_path / "styled.png"))


def test_save_makes_the_folder_and_replaces(tmp_path: FilePath) -> None:
    target = tmp_path / "new" / "profile.png"
    save_figure(profile_figure(connection()), target)
    first = target.read_bytes()
    save_figure(profile_figure(connection(level=0.2)), target)
    assert target.read_bytes() != first
    assert pixels(target).shape == (660, 1050, 3)
    assert [file.name for file in target.parent.iterdir()] == ["profile.png"]


def test_failed_write_keeps_the_old_file(tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "profile.png"
    target.write_bytes(b"old")

    def half(self: Figure, file: BinaryIO, **_: Any) -> None:
        file.write(b"\x89PNG half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        save_figure(Figure(), target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_killed_write_keeps_the_old_file(tmp_path: FilePath) -> None:
    target = tmp_path / "profile.png"
    target.write_bytes(b"old")

    class Deadly(Figure):
        def savefig(self, file: Any, **options: Any) -> None:
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=save_figure, args=(Deadly(), target))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    (leftover,) = tmp_path.glob(".*.tmp")
    os.utime(leftover, (0, 0))
    save_figure(profile_figure(connection()), target)
    assert list(tmp_path.iterdir()) == [target]  # the next write clears what an old kill left
