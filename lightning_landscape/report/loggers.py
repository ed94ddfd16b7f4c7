"""Reporting a check to whatever logger a trainer has.

The files beside a run (``checks.jsonl``, PNG figures) are the canonical result; a logger gets as much
of it as its service can show. Only Lightning's own logger classes are imported here, which import
their services on first use, so that no service needs to be installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from matplotlib.figure import Figure
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from lightning_landscape.connection import Connection
from lightning_landscape.either_lightning import both
from lightning_landscape.path import Profile

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

Rows = Sequence[Mapping[str, Any]]


@singledispatch
def report(
    logger: Logger,
    *,
    prefix: str,
    scalars: Mapping[str, float],
    rows: Rows,
    connection: Connection | None,
    figures: Mapping[str, Figure],
    step: int,
) -> None:
    """Report one check to one logger; does nothing on ranks other than zero.

    ======================= ==========================================================================
    logger                  what it gets
    ======================= ==========================================================================
    ``WandbLogger``         scalars over ``<prefix>/check``, both profiles as a line series, the rows as
                            a table, the figures as images, the conclusion in the summary
    ``TensorBoardLogger``   scalars and figures
    ``MLFlowLogger``        scalars and figures
    any other               scalars
    ======================= ==========================================================================

    W&B and TensorBoard have a way to show a number that is not finite and receive it. The others leave
    it out, as services differ: some refuse the whole call, some store infinity as 1.8e308.

    W&B: the check joins the history row that the run is about to write (``commit=False``), so that the
    user's own rows keep their ``_step`` and logging with an explicit ``step=`` stays valid. It is
    written with the next row that anyone logs, or when the run finishes; a process killed before that
    leaves it in the files alone. If no row was logged since the last check, that one is written first.
    Each metric is bound to ``<prefix>/check`` by its full name: Lightning binds ``*`` to
    ``trainer/global_step``, and which of two matching patterns W&B takes is left to chance.

    Args:
        logger: one of ``trainer.loggers``.
        prefix: ``landscape`` or ``landscape/<name>``.
        scalars: full metric names and values, ``<prefix>/check`` among them.
        rows: rows of ``checks.jsonl`` up to this check.
        connection: what this check found; ``None`` when the check itself failed.
        figures: figures by name, such as ``profile`` and ``history``.
        step: the trainer's global step; W&B gets none.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from pytorch_lightning.loggers import CSVLogger
        >>> with TemporaryDirectory() as folder:
        ...     logger = CSVLogger(folder)
        ...     report(logger, prefix="landscape", scalars={"landscape/check": 1, "landscape/height": 0.5},
        ...            rows=[], connection=None, figures={}, step=10)
        ...     logger.experiment.metrics
        [{'landscape/check': 1, 'landscape/height': 0.5, 'step': 10}]
    """
    logger.log_metrics(_finite(scalars), step=step)


@rank_zero_only
def _tensorboard(
    logger: TensorBoardLogger,
    *,
    prefix: str,
    scalars: Mapping[str, float],
    rows: Rows,
    connection: Connection | None,
    figures: Mapping[str, Figure],
    step: int,
) -> None:
    logger.log_metrics(scalars, step=step)
    for name, figure in figures.items():
        # The figure is the caller's, and no other logger has closed it either.
        logger.experiment.add_figure(_named(logger, f"{prefix}/{name}"), figure, global_step=step, close=False)


@rank_zero_only
def _mlflow(
    logger: MLFlowLogger,
    *,
    prefix: str,
    scalars: Mapping[str, float],
    rows: Rows,
    connection: Connection | None,
    figures: Mapping[str, Figure],
    step: int,
) -> None:
    logger.log_metrics(_finite(scalars), step=step)
    for name, figure in figures.items():
        # An artifact has no step of its own; one of the same name would be overwritten.
        file = _named(logger, f"{prefix}/{name}/{scalars[f'{prefix}/check']:05.0f}.png")
        logger.experiment.log_figure(logger.run_id, figure, file)


@dataclass
class _History:
    """What was told to one W&B run: the names bound to a check, and each prefix's unwritten row."""

    bound: set[str] = field(default_factory=set)
    unwritten: dict[str, int] = field(default_factory=dict)


_HISTORIES: WeakKeyDictionary[Run, _History] = WeakKeyDictionary()


@rank_zero_only
def _wandb(
    logger: WandbLogger,
    *,
    prefix: str,
    scalars: Mapping[str, float],
    rows: Rows,
    connection: Connection | None,
    figures: Mapping[str, Figure],
    step: int,
) -> None:
    import wandb  # here, for it takes a second and few importers of this package log to it

    run: Run = logger.experiment
    history = _HISTORIES.setdefault(run, _History())
    metrics: dict[str, Any] = {_named(logger, name): value for name, value in scalars.items()}
    for name in metrics.keys() - history.bound:
        run.define_metric(name, step_metric=_named(logger, f"{prefix}/check"))
        history.bound.add(name)

    if connection is not None and (series := _series(connection)):
        metrics[_named(logger, f"{prefix}/profiles")] = wandb.plot.line_series(
            [profile.t for profile in series.values()],
            [profile.loss for profile in series.values()],
            keys=list(series),
            title=f"{prefix}: loss along the path",
            xname="arc length / length",
        )
    columns = _flat_columns(rows)
    metrics[_named(logger, f"{prefix}/checks")] = wandb.Table(
        columns=[*columns], data=[[row.get(column) for column in columns] for row in rows]
    )
    for name, figure in figures.items():
        metrics[_named(logger, f"{prefix}/{name}")] = wandb.Image(figure)

    named_prefix = _named(logger, prefix)
    if history.unwritten.get(named_prefix) == run.step:
        run.log({}, commit=True)
    run.log(metrics, commit=False)
    if rows and (said := rows[-1].get("conclusion")):
        run.summary[_named(logger, f"{prefix}/conclusion")] = said
    history.unwritten[named_prefix] = run.step


for _kinds, _report_to in (
    (both(TensorBoardLogger), _tensorboard),
    (both(MLFlowLogger), _mlflow),
    (both(WandbLogger), _wandb),
):
    for _kind in _kinds:
        report.register(_kind, _report_to)


def _named(logger: TensorBoardLogger | MLFlowLogger | WandbLogger, name: str) -> str:
    """``name`` behind the logger's own prefix, as ``log_metrics`` would write it."""
    return f"{logger._prefix}{logger.LOGGER_JOIN_CHAR}{name}" if logger._prefix else name


def _finite(scalars: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in scalars.items() if math.isfinite(value)}


def _series(connection: Connection) -> dict[str, Profile]:
    """The two profiles without the points that a chart cannot show, if any point remains."""
    series = {}
    for name, profile in (("straight line", connection.linear_profile), ("found path", connection.profile)):
        points = [(t, loss) for t, loss in zip(profile.t, profile.loss, strict=True) if math.isfinite(loss)]
        if points:
            series[name] = Profile(*zip(*points, strict=True))
    return series


def _flat_columns(rows: Rows) -> list[str]:
    """Keys in order of appearance, without those that hold lists or mappings."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if not any(isinstance(row.get(key), Mapping | list | tuple) for row in rows)]
