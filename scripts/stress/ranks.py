"""2 and 4 ranks with a fault on each in turn, at each phase of a check: does every process end, and say why?

``python -m scripts.stress.ranks`` goes on where it was interrupted and prints a table.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_landscape.storage.rows import KeyedRows
from scripts.stress.one_run import Harm
from scripts.stress.one_run import main as main_of_cell

TIMEOUT = 5.0  # seconds, of the process group
ALLOWED = 2.0  # timeouts from the fault to the end of the last process


def cases(timeout: float = TIMEOUT) -> Iterator[Harm]:
    """All cells.

    A search that sleeps on rank zero is a long search, for which the others wait, and where a rank waits or answers
    no code of a user runs that could sleep or raise.
    """
    for size in (2, 4):
        for rank in range(size):
            for phase in ("setup", "before", "joining", "search", "answer"):
                faults = ["kill", "stop"]
                if phase in ("setup", "before", "joining"):
                    faults += ["sleep", "raise"]
                if phase == "search" and rank == 0:
                    faults.append("raise")
                if phase == "before":
                    faults.append("leave")
                for fault in faults:
                    yield Harm(size, rank, phase, fault, timeout)


def key_of(harm: Harm) -> str:
    """The name of a cell."""
    return f"{harm.size} ranks, {harm.phase}, {harm.fault} on {harm.rank}"


def begin(harm: Harm, folder: Path) -> int:
    """Forks a process that runs one cell, and gives its id."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(folder / "log", os.O_CREAT | os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            main_of_cell(folder, harm)
        finally:
            os._exit(0)
    return child


def judged(harm: Harm, folder: Path) -> dict[str, Any]:
    """The row of a finished cell.

    Returns:
        The cell; ``seconds`` from the fault until the fit of the last process had ended, ``None`` if one went on or
        did not exit; ``named``, whether every survivor's error names the harmed rank (at the answer: one's), and of a
        rank that left early whether its own error names others; ``errors`` by rank; and ``held``, the verdict.
    """
    outcome = json.loads((folder / "outcome.json").read_text())
    errors = {rank: end["error"] for rank, end in outcome["ends"].items()}
    seconds = None
    if set(outcome["expected"]) <= set(outcome["ended"]) and outcome["struck"] is not None:
        seconds = max(outcome["ends"][str(rank)]["moment"] for rank in outcome["expected"]) - outcome["struck"]
    if harm.fault == "leave":
        named = errors.get(str(harm.rank), "").startswith("RankLostError: rank")
    else:
        # Ranks that have the answer already fail in the next collective of the run itself.
        enough = any if harm.phase == "answer" else all
        named = enough(_names(errors.get(str(rank), ""), harm.rank) for rank in outcome["expected"])
    held = named and seconds is not None and seconds <= ALLOWED * harm.timeout
    return asdict(harm) | {"seconds": seconds, "named": named, "held": held, "errors": errors}


def _names(error: str, rank: int) -> bool:
    """Whether the message tells of the rank; what rank zero raised itself it tells the others as such."""
    return f"rank {rank} " in error or (rank == 0 and error.startswith("RuntimeError: on rank zero: "))


def run(cells: Sequence[Harm], at_once: int) -> Iterator[tuple[Harm, dict[str, Any]]]:
    """Cells and their rows, as they end."""
    waiting, running = list(cells), {}
    while waiting or running:
        while waiting and len(running) < at_once:
            harm = waiting.pop(0)
            # No TemporaryDirectory: a fork that ends as a program does would remove it.
            folder = Path(tempfile.mkdtemp())
            running[begin(harm, folder)] = harm, folder
        harm, folder = running.pop(os.wait()[0])
        if not (folder / "outcome.json").exists():
            raise RuntimeError(f"{key_of(harm)} wrote nothing: {(folder / 'log').read_text()[-2000:]}")
        row = judged(harm, folder)
        shutil.rmtree(folder)
        yield harm, row


def main() -> None:
    """Measures what is not measured yet and prints the table."""
    parser = argparse.ArgumentParser(description="Faults on ranks at each phase of a check, and how the others end.")
    parser.add_argument("--out", type=Path, default=Path("results/stress/ranks.jsonl"), help="rows by cell")
    parser.add_argument("--at-once", type=int, default=4, help="cells that run at a time")
    parser.add_argument("--cells", default="", help="a regular expression: only cells whose name it finds")
    args = parser.parse_args()
    rows = KeyedRows(args.out)
    cells = [harm for harm in cases() if re.search(args.cells, key_of(harm))]
    gc.freeze()
    for harm, row in run([harm for harm in cells if rows.get(key_of(harm)) is None], args.at_once):
        rows.put(key_of(harm), row)
        print(f"{key_of(harm)}: {'held' if row['held'] else 'BROKEN ' + str(row)}", flush=True)
    print(table([row for row in (rows.get(key_of(harm)) for harm in cells) if row is not None]))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: by number of ranks, phase and fault, how many cells held, and the longest time to the end."""
    lines = ["| ranks | phase | fault | held | longest, s |", "| ---: | --- | --- | ---: | ---: |"]
    groups: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["size"], row["phase"], row["fault"]), []).append(row)
    for (size, phase, fault), group in groups.items():
        seconds = [row["seconds"] for row in group]
        longest = "never" if None in seconds else f"{max(seconds):.1f}"
        lines.append(
            f"| {size} | {phase} | {fault} | {sum(row['held'] for row in group)} of {len(group)} | {longest} |"
        )
    return "\n".join([*lines, "", f"{sum(row['held'] for row in rows)} of {len(rows)} cells held."])


if __name__ == "__main__":
    main()
