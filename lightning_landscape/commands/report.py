"""``landscape report FOLDER [FOLDER ...]``: what runs and commands have written, as one page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning_landscape.report.page import write_report
from lightning_landscape.report.page.records import find_records


def report(args: Sequence[str], prog: str) -> int:
    """Runs the command.

    Args:
        args: the arguments after the command's name.
        prog: the name that usage and error messages give.

    Returns:
        0.

    Raises:
        SystemExit: with code 2 for arguments that are wrong.
        ValueError: for folders in which nothing can be reported; the message says what to do.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Make one page, report.html, of what runs and commands have written, or compare several. It opens "
        "in a browser from the disk, without a network.",
    )
    parser.add_argument(
        "folders", nargs="+", metavar="FOLDER", help="of a run or a command; inner folders are read too"
    )
    parser.add_argument("--out", help="the page; default: report.html in the folder, or here for several folders")
    namespace = parser.parse_args(args)
    records = [record for folder in dict.fromkeys(namespace.folders) for record in find_records(folder)]
    beside = Path(namespace.folders[0]) if len(namespace.folders) == 1 else Path()
    out = Path(namespace.out) if namespace.out else beside / "report.html"
    write_report(records, out)
    print(f"Report: {out.absolute()}")
    return 0
