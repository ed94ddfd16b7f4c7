"""Where the result of a check goes: its file, its figures and the trainer's loggers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

from lightning_landscape.connection import Connection, Reason, Verdict
from lightning_landscape.report.check_figures import history_figure, profile_figure
from lightning_landscape.report.loggers import report
from lightning_landscape.report.style import save_figure
from lightning_landscape.storage.check_log import CheckLog

# Names of the logged numbers, which are fields of a row but for the first.
METRICS = (
    "connected",
    "height",
    "barrier",
    "linear_barrier",
    "normalized_length",
    "num_beads",
    "gradient_steps",
    "seconds",
)


def scalars_of(row: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The logged numbers of a row under their full names; NaN where nothing was measured.

    Args:
        row: a row of ``checks.jsonl``.
        prefix: ``landscape`` or ``landscape/<name>``.
    """
    known = {**row, "connected": row["verdict"] == Verdict.CONNECTED}
    return {f"{prefix}/{key}": math.nan if known[key] is None else float(known[key]) for key in METRICS}


def publish(trainer: pl.Trainer, log: CheckLog, row: dict[str, Any], connection: Connection, prefix: str) -> None:
    """Writes the row and the figures beside it, and reports both to every logger; on rank zero.

    Args:
        trainer: its loggers are used.
        log: the record of checks, which comes first: it is the canonical result.
        row: the row of this check.
        connection: what the check found; a failed one has no profile to draw.
        prefix: see :func:`scalars_of`.
    """
    log.append(row)
    failed = connection.reason is Reason.ERROR
    figures = {"history": history_figure(log.rows)}
    if not failed:
        figures["profile"] = profile_figure(connection, f"{row['pair']}, epoch {row['epoch']}")
        save_figure(figures["profile"], log.path.parent / f"profile-{row['check']:04d}.png")
    save_figure(figures["history"], log.path.parent / "history.png")
    for logger in trainer.loggers:
        report(
            logger,
            prefix=prefix,
            scalars={f"{prefix}/check": row["check"], **scalars_of(row, prefix)},
            rows=log.rows,
            connection=None if failed else connection,
            figures=figures,
            step=row["step"],
        )
