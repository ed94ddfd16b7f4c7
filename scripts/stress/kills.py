"""Runs that are killed, at random moments and at named ones, and resumed: is all as if nothing had happened?

``python -m scripts.stress.kills`` goes on where it was interrupted and prints a table.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_landscape.storage.rows import KeyedRows
from scripts.stress.killed_run import Kill, begin

NAMED = {
    **{"fsync": 6, "rename": 4, "renamed": 3, "link": 3, "unlink": 3},
    **{"append": 3, "figure": 3, "checkpoint": 3, "checkpointed": 2},
}
RANDOM = 20
SAME = ("rows", "weights", "tree", "snapshots", "folders")
TICKS = os.sysconf("SC_CLK_TCK")


def cells(whole: Mapping[str, Mapping[str, Any]], seed: int = 0) -> list[Kill]:
    """All kills, drawn with a seed among the calls, and the CPU seconds, that the whole runs took."""
    chance = random.Random(seed)
    kills = []
    moments = [name for name, count in {**NAMED, "random": RANDOM}.items() for _ in range(count)]
    for number, moment in enumerate(moments):
        pairs = ("lagged", "first", "twin")[number % 3]
        figures = moment == "figure" or (moment == "random" and number % 4 == 0)
        of = whole[run_of(pairs, figures)]
        share = 0.95 * chance.random()  # the end is the release of the folders: a run that is over
        at = share * of["seconds"] if moment == "random" else 1 + int(share * of["calls"][moment])
        kills.append(Kill(moment, at, pairs, figures))
    return kills


def run_of(pairs: str, figures: bool) -> str:
    """The name of a run."""
    return f"{pairs}, with figures" if figures else pairs


def key_of(number: int, kill: Kill) -> str:
    """The name of a cell."""
    return f"{number}: {kill.moment} at {kill.at:.3g}, {run_of(kill.pairs, kill.figures)}"


def outcome(folder: Path) -> dict[str, Any]:
    """What a run wrote, and the files below its folder.

    Raises:
        RuntimeError: if it wrote nothing.
    """
    path = folder.with_suffix(".json")
    if not path.exists():
        raise RuntimeError(f"no outcome of {folder}: {folder.with_suffix('.log').read_text()[-3000:]}")
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [file for file in files if file.parts[0] != "checkpoints"]  # Lightning's, which numbers them anew
    found: dict[str, Any] = json.loads(path.read_text())
    # A run that was killed before its first checkpoint begins again, and moves aside what it had written.
    found["files"] = [str(file) for file in files if not any(part.startswith("earlier-") for part in file.parts)]
    found["leftovers"] = [str(file) for file in files if file.suffix == ".tmp" or file.name == "running.lock"]
    return found


def seconds_of(child: int) -> float:
    """CPU seconds that a process has taken."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def killed(folder: Path, kill: Kill) -> bool:
    """Runs until it is killed; whether it was."""
    child = begin(folder, kill.pairs, kill.figures, kill)
    status = 0
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        if kill.moment == "random" and seconds_of(child) >= kill.at:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def judged(kill: Kill, whole: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Kills a run, resumes it, and compares what came of it with the whole one."""
    folder = root / "run"
    folder.mkdir()
    struck = killed(folder, kill)
    if struck:
        os.waitpid(begin(folder, kill.pairs, kill.figures, None), 0)
    found = outcome(folder)
    differs = [name for name in (*SAME, "files") if found[name] != whole[name]]
    if "files" in differs:
        differs.append(f"{sorted(set(found['files']) ^ set(whole['files']))}")
    held = struck and not differs and not found["leftovers"]
    return asdict(kill) | {"struck": struck, "differs": differs, "leftovers": found["leftovers"], "held": held}


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Cells that held, by moment, in Markdown."""
    lines = ["| killed at | runs | same rows, weights, tree, lists and files | files left over |"]
    lines.append("| --- | ---: | ---: | ---: |")
    by_moment: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_moment.setdefault(row["moment"], []).append(row)
    for moment, of in by_moment.items():
        same, left = sum(not row["differs"] for row in of), sum(len(row["leftovers"]) for row in of)
        lines.append(f"| {moment} | {len(of)} | {same} | {left} |")
    return "\n".join(lines)


def main() -> None:
    """Measures what is not measured yet and prints the table."""
    parser = argparse.ArgumentParser(description="Runs killed at random and named moments, and resumed.")
    parser.add_argument("--out", type=Path, default=Path("results/stress/kills.jsonl"), help="rows by cell")
    parser.add_argument("--cells", type=int, nargs="*", help="numbers of cells; default: all")
    args = parser.parse_args()
    rows = KeyedRows(args.out)
    gc.freeze()
    root = Path(tempfile.mkdtemp())
    whole: dict[str, dict[str, Any]] = {}
    for pairs in ("lagged", "first", "twin"):
        for figures in (False, True):
            folder = root / f"whole-{pairs}-{figures}"
            folder.mkdir()
            os.waitpid(begin(folder, pairs, figures, None), 0)
            whole[run_of(pairs, figures)] = outcome(folder)
    measured = []
    for number, kill in enumerate(cells(whole)):
        if args.cells and number not in args.cells:
            continue
        # Calls are counted, and the same in every run; CPU seconds are not, so that a cell is known by its number.
        key = f"{number}: {kill.moment}"
        row = rows.get(key)
        if row is None:
            place = root / str(number)
            place.mkdir()
            row = judged(kill, whole[run_of(kill.pairs, kill.figures)], place)
            rows.put(key, row)
            shutil.rmtree(place)
            print(f"{key_of(number, kill)}: {'held' if row['held'] else 'BROKEN ' + json.dumps(row)}", flush=True)
        measured.append(row)
    shutil.rmtree(root)
    print(table(measured))
    broken = [row for row in measured if not row["held"]]
    print(f"{len(measured) - len(broken)} of {len(measured)} held")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
