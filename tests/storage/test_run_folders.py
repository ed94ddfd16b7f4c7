"""Who writes into a folder, what a killed process left there, and what moves aside."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_landscape.storage.atomic import remove_abandoned, replacing
from lightning_landscape.storage.claims import LOCK, Claim
from lightning_landscape.storage.processes import is_gone, this_process
from lightning_landscape.storage.run_folders import link_snapshots, own_folder, set_aside
from lightning_landscape.storage.snapshots import SnapshotStore


def in_a_child(work: Callable[[], None]) -> int | None:
    """How a forked process ended that did this."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    return child.exitcode


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_written(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"half")
        file.flush()
        die()


def test_a_killed_process_is_gone_and_its_temporary_file_with_it(tmp_path: Path) -> None:
    assert in_a_child(lambda: half_written(tmp_path / "figure.png")) == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".figure.")
    with replacing(tmp_path / "mine.png") as file:  # a living process writes
        remove_abandoned(tmp_path)
        assert not leftover.exists()
        assert len(list(tmp_path.iterdir())) == 1
        file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_a_process_of_another_place_is_left_its_file_for_an_hour(tmp_path: Path) -> None:
    elsewhere = tmp_path / ".figure.00000000-1-1.00000000.png.tmp"
    elsewhere.touch()
    remove_abandoned(tmp_path)
    assert elsewhere.exists()
    hours_ago = time.time() - 7200
    os.utime(elsewhere, (hours_ago, hours_ago))
    remove_abandoned(tmp_path)
    assert not elsewhere.exists()


def test_a_number_that_another_process_has_by_now_is_not_mistaken() -> None:
    place, number, started = this_process().split("-")
    assert is_gone(f"{place}-{number}-{int(started) + 1}")
    assert not is_gone(f"{place}-{number}-{started}")
    zombie = os.fork()
    if zombie == 0:
        time.sleep(60)
        os._exit(0)
    name = f"{place}-{zombie}-{Path(f'/proc/{zombie}/stat').read_text().rpartition(')')[2].split()[19]}"
    assert not is_gone(name)
    os.kill(zombie, signal.SIGKILL)
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)  # ended, and still listed
    assert is_gone(name)
    os.waitpid(zombie, 0)


def test_a_folder_has_one_run_and_a_kill_is_seen(tmp_path: Path) -> None:
    folder, run = tmp_path / "landscape", object()
    claim = Claim.take(folder, run)
    assert claim is not None
    assert not claim.interrupted
    assert in_a_child(lambda: os._exit(Claim.take(folder, object()) is None)) == 1
    claim.end()
    assert not folder.exists()  # it made it, and nothing was written

    def killed() -> None:
        assert Claim.take(folder, object()) is not None
        die()

    assert in_a_child(killed) == -signal.SIGKILL
    assert (folder / LOCK).exists()
    after = Claim.take(folder, run)
    assert after is not None
    assert after.interrupted
    assert Claim.take(folder, run) is after
    after.end()
    assert (folder / LOCK).exists()  # the second holder still runs
    after.abandon()
    assert (folder / LOCK).exists()


def test_a_run_moves_aside_as_one_even_when_the_move_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("checks.jsonl", "history.png", "snapshots")

    def fill() -> None:
        (tmp_path / "snapshots").mkdir()
        for name in ("checks.jsonl", "history.png", "snapshots/x"):
            (tmp_path / name).touch()

    assert set_aside(tmp_path, names) is None
    fill()
    (tmp_path / "of the user").touch()
    moves: list[str] = []
    replace = os.replace

    def deadly(source: Path, target: Path) -> None:
        moves.append(source.name)
        if len(moves) == 2:
            die()
        replace(source, target)

    def killed() -> None:
        monkeypatch.setattr(os, "replace", deadly)
        set_aside(tmp_path, names)

    assert in_a_child(killed) == -signal.SIGKILL
    assert set_aside(tmp_path, names) == tmp_path / "earlier-1"
    assert {path.name for path in (tmp_path / "earlier-1").iterdir()} == set(names)
    fill()
    assert set_aside(tmp_path, names) == tmp_path / "earlier-2"
    assert {path.name for path in tmp_path.iterdir()} == {"earlier-1", "earlier-2", "of the user"}


def test_linked_snapshots_take_no_room_and_are_not_changed_by_the_other(tmp_path: Path) -> None:
    source, target = SnapshotStore(tmp_path / "a"), SnapshotStore(own_folder(tmp_path / "a"))
    for step in (1, 2):
        source.save({"w": torch.full((3,), float(step))}, step=step, epoch=0)
    link_snapshots(source, target, lambda snapshot: snapshot.step < 2)
    (snapshot,) = target
    assert snapshot.path.stat().st_ino == source.open(snapshot.name).path.stat().st_ino
    target.save({"w": torch.zeros(3)}, step=1, epoch=0)
    assert source.load(snapshot.name)["w"].tolist() == [1.0] * 3
