from __future__ import annotations

import math
from typing import Any

import pytest
from rich.console import Console

from lightning_landscape.connection import Reason
from lightning_landscape.report.tables import check_table


def row(**changes: Any) -> dict[str, Any]:
    values = {
        "epoch": 4,
        "level": 0.11,
        "linear_height": 2.3041,
        "height": 0.10812345,
        "verdict": "connected",
        "reason": None,
        "num_beads": 3,
        "normalized_length": 1.3249,
        "seconds": 12.34,
    }
    return {**values, **changes}


def render(rows: list[dict[str, Any]], width: int = 80) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(check_table(rows))
    return captured.get().splitlines()


def words(lines: list[str]) -> list[list[str]]:
    return [line.split() for line in lines if line.strip()]


def test_columns_and_numbers() -> None:
    lines = words(render([row()]))
    assert lines[0] == ["linear", "normalised"]
    assert lines[1] == ["epoch", "level", "height", "height", "verdict", "beads", "length", "seconds"]
    assert lines[-1] == ["4", "0.11", "2.304", "0.1081", "connected", "3", "1.325", "12.3"]


def test_one_line_a_check_in_order() -> None:
    lines = words(render([row(epoch=epoch) for epoch in range(5)]))
    assert [line[0] for line in lines[3:]] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("reason", list(Reason))
def test_reason_stands_beside_not_found(reason: Reason) -> None:
    text = "\n".join(render([row(verdict="not_found", reason=str(reason))]))
    assert reason.words.split()[-1] in text
    assert "never proves" in text


def test_no_caveat_when_every_check_connected() -> None:
    assert "never proves" not in "\n".join(render([row()]))


def test_none_is_a_dash() -> None:
    failed = row(verdict="not_found", reason="error", seconds=None, **dict.fromkeys(("level", "linear_height"), None))
    failed.update(height=None, normalized_length=None, num_beads=None, epoch=None)
    line = next(line for line in render([failed]) if "failed" in line)
    assert line.split() == ["-", "-", "-", "-", "failed", "-", "-", "-"]


def test_extreme_values_fit_80_columns_whole() -> None:
    extreme = row(epoch=12345, level=1.2341e-17, linear_height=-1.2341e17, height=-1.2341e-17)
    extreme.update(verdict="not_found", reason="diverged", num_beads=1023, normalized_length=123.4561, seconds=36000.51)
    lines = render([row(), extreme])
    assert max(map(len, lines)) <= 80
    text = " ".join(lines)
    assert "\u2026" not in text
    for part in ("12345", "1.234e-17", "-1.234e+17", "undecided:", "1023", "123.456", "36000.5"):
        assert part in text.split(), part


def test_verdicts_are_coloured() -> None:
    rows = [row(), row(verdict="not_found", reason="budget"), row(verdict="not_found", reason="error")]
    console = Console(width=80, color_system="standard", force_terminal=True, no_color=False)
    with console.capture() as captured:
        console.print(check_table(rows))
    text = captured.get()
    assert "\x1b[32mconnected" in text
    assert "\x1b[33mundecided:" in text
    assert "\x1b[31mundecided:" in text


def test_markup_in_a_file_is_text() -> None:
    assert "[red]" in "\n".join(render([row(verdict="not_found", reason="[red]x[/red]")]))


def test_no_rows_is_an_empty_table() -> None:
    table = check_table([])
    assert table.row_count == 0
    assert len(words(render([]))) == 3


def test_nan_in_a_row_is_not_hidden() -> None:
    assert "nan" in render([row(height=math.nan)])[-1].split()
