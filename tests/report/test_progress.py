"""Bars say what is done, how much of it there is, and how long it will take."""

from __future__ import annotations

import io

from rich.console import Console

from lightning_landscape.report.progress import counted_progress


def test_counted_work_shows_its_number_and_the_time_left() -> None:
    drawn = io.StringIO()
    with counted_progress("training", 3, Console(file=drawn, force_terminal=True, width=80)) as done:
        done()
        done()
    assert "training" in drawn.getvalue()
    assert "2/3" in drawn.getvalue()
    assert "left" in drawn.getvalue()


def test_where_there_is_no_terminal_nothing_is_printed() -> None:
    drawn = io.StringIO()
    with counted_progress("training", 3, Console(file=drawn)) as done:
        done()
    assert not drawn.getvalue().strip()
