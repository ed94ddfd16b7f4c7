"""Prints what the benchmarks measured, a line for each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def main(results: Path) -> None:
    report = json.loads(results.read_text())
    machine = report["machine_info"]
    table = Table("benchmark", "seconds (median)", "what it shows", title=f"{machine['cpu'].get('count')} cores")
    for bench in report["benchmarks"]:
        shown = [
            f"{key}: {value:.3g}" if isinstance(value, float) else f"{key}: {value}"
            for key, value in bench["extra_info"].items()
        ]
        table.add_row(escape(bench["name"].removeprefix("test_")), f"{bench['stats']['median']:.3g}", "\n".join(shown))
    Console(width=140).print(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
