"""Rows are added to a file, survive a kill, and are missed when they are gone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lightning_landscape.storage.rows import KeyedRows, LostRowsError, NumberedRows


@pytest.fixture
def log(tmp_path: Path) -> NumberedRows:
    log = NumberedRows(tmp_path / "landscape" / "checks.jsonl")
    for number in (1, 2, 3):
        log.append({"check": number, "height": number / 7, "seconds": 1.0})
    return log


def resumed(log: NumberedRows, count: int, **options: Any) -> NumberedRows:
    again = NumberedRows(log.path)
    again.resume(count, **options)
    again.repair()
    return again


def test_a_row_is_added_and_nothing_is_written_again(log: NumberedRows) -> None:
    before, node = log.path.read_bytes(), log.path.stat().st_ino
    log.append({"check": 4, "height": None, "seconds": 1.0})
    assert log.path.read_bytes()[: len(before)] == before
    assert log.path.stat().st_ino == node


@pytest.mark.parametrize("kept", [1, 9, 14, 30, -1])
def test_a_row_that_was_cut_by_a_kill_is_written_whole(log: NumberedRows, kept: int) -> None:
    whole = log.path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    log.path.write_bytes(whole[: -len(last)] + last[:kept])
    again = resumed(log, 2)
    assert log.path.read_bytes() in (whole[: -len(last)], whole)
    assert len(again.ahead) == (kept == -1)  # without its line end alone it was whole
    again.append({"check": 3, "height": 3 / 7, "seconds": 1.0})
    assert log.path.read_bytes() == whole


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (b'{"check": 3, "hei', r"lacks 3: put the file back, or pass the dirpath="),
        (b"\xff\xfe\x00\x01\n", r"lacks 3 \(line 3 is not JSON"),
        (b"[" * 100_000 + b"\n", r"lacks 3 \(line 3 is not JSON"),
        (b"17\n", r"lacks 3 \(line 3 is no check of a run"),
        (b'{"check": 2}\n', r"lacks 3 \(line 3 is check 2 again"),
        (b'{"check": 7}\n', r"lacks 3"),
        (b"", r"of the 3 checks that the checkpoint counts, .* lacks 3: put"),
    ],
)
def test_damaged_rows_are_named_and_left_as_they_are(log: NumberedRows, tail: bytes, message: str) -> None:
    good = b"".join(log.path.read_bytes().splitlines(keepends=True)[:2])
    log.path.write_bytes(good + tail)
    with pytest.raises(LostRowsError, match=message) as caught:
        NumberedRows(log.path).resume(3)
    assert caught.value.numbers == [3]
    assert log.path.read_bytes() == good + tail
    # Rows that the checkpoint does not count may be anything: they are written again.
    again = resumed(log, 2)
    again.append({"check": 3, "height": 3 / 7, "seconds": 2.0})
    assert [row["check"] for row in again.rows] == [1, 2, 3]
    assert log.path.read_bytes().startswith(good)
    assert resumed(log, 3).rows == again.rows


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(LostRowsError, match=r"checks.jsonl is not there, and the checkpoint counts 3 checks: put"):
        NumberedRows(tmp_path / "checks.jsonl").resume(3)


def test_rows_that_are_left_are_saved_and_the_damaged_file_is_kept(log: NumberedRows) -> None:
    first, _, third = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(first + b"?\n" + third)
    again = NumberedRows(log.path)
    again.salvage(3)
    again.repair()
    assert [row["check"] for row in again.rows] == [1, 3]
    assert log.path.read_bytes() == first + third
    assert log.path.with_name("checks.damaged-1.jsonl").read_bytes() == first + b"?\n" + third
    again.append({"check": 4})
    assert [row["check"] for row in resumed(log, 4, lost=[2]).rows] == [1, 3, 4]


def test_rows_of_another_run_are_known_by_their_digest(log: NumberedRows, tmp_path: Path) -> None:
    assert resumed(log, 3, digest=log.digest).rows == log.rows
    other = NumberedRows(tmp_path / "other.jsonl")
    for row in log.rows:
        other.append(row | {"height": 0.5})
    with pytest.raises(LostRowsError, match="holds the 3 checks of another run") as caught:
        NumberedRows(other.path).resume(3, digest=log.digest)
    assert caught.value.foreign
    again = NumberedRows(other.path)
    again.salvage(3, log.digest)
    assert again.rows == []


def test_a_row_that_repeats_what_lies_ahead_is_not_written_twice(log: NumberedRows) -> None:
    before = log.path.read_bytes()
    again = resumed(log, 1)
    assert again.repeats({"check": 2, "height": 2 / 7, "seconds": 9.0})
    assert not again.repeats({"check": 2, "height": 2 / 8, "seconds": 1.0})
    again.append({"check": 2, "height": 2 / 7, "seconds": 9.0})
    assert (again.rows, [row["check"] for row in again.ahead]) == (log.rows[:2], [3])
    assert log.path.read_bytes() == before


def test_a_failed_write_leaves_the_rows_before_it(log: NumberedRows, monkeypatch: pytest.MonkeyPatch) -> None:
    before = log.path.read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            log.append({"check": 4, "height": None})
    assert log.path.read_bytes() == before
    log.append({"check": 5, "height": None})
    assert len(log.path.read_text().splitlines()) == 5


def test_a_folder_that_is_lost_in_a_run_gets_all_rows_again(log: NumberedRows) -> None:
    log.path.unlink()
    log.append({"check": 4})
    assert [json.loads(line)["check"] for line in log.path.read_text().splitlines()] == [1, 2, 3, 4]


def test_rows_are_readable_by_whom_the_umask_allows(log: NumberedRows, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    assert log.path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("kept", [3, 12, -1, None])
def test_a_keyed_row_that_was_cut_is_not_there(tmp_path: Path, kept: int | None) -> None:
    path = tmp_path / "pairs.jsonl"
    KeyedRows(path).put("a", {"height": 1.0})
    first = path.read_bytes()
    KeyedRows(path).put("b", {"height": 2.0})
    path.write_bytes(first + path.read_bytes()[len(first) :][:kept])
    again = KeyedRows(path)
    assert (again.get("b") is None) == (kept in (3, 12))
    again.put("a", {"height": 3.0})
    again.put("b", {"height": 2.0})
    assert (KeyedRows(path).get("a"), KeyedRows(path).get("b")) == ({"height": 3.0}, {"height": 2.0})
    assert all(json.loads(line) for line in path.read_text().splitlines())
    path.unlink()
    again.put("c", {"height": 4.0})
    assert len(KeyedRows(path)) == 3
