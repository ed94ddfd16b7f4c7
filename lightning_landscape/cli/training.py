"""The subcommands that train and evaluate: a LightningCLI that says where the results are."""

from __future__ import annotations

import argparse
import os
import pkgutil
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import WandbLogger

from lightning_landscape.either_lightning import both
from lightning_landscape.report.plain_help import PlainArgumentParser, PlainLightningParser
from lightning_landscape.storage.atomic import CorruptFileError
from lightning_landscape.storage.yaml_files import read_yaml


class _Closing:
    """What is ours of a command line, whichever package's LightningCLI it extends."""

    subcommand: str | None
    trainer: pl.Trainer

    def before_instantiate_classes(self) -> None:
        """Name the saved configuration after the subcommand."""
        self.save_config_kwargs = {"config_filename": f"resolved_{self.subcommand}.yaml", "overwrite": True}

    def after_fit(self) -> None:
        """Print where an offline W&B run lies, on rank zero."""
        from rich.console import Console  # here, for `landscape --help` need not wait for it

        if not self.trainer.is_global_zero:
            return
        console = Console()
        for logger in self.trainer.loggers:
            if isinstance(logger, both(WandbLogger)):
                console.print(
                    f"W&B run: {os.path.abspath(os.path.dirname(logger.experiment.dir))}", markup=False, soft_wrap=True
                )


class LandscapeCLI(_Closing, LightningCLI):
    """A LightningCLI for the recipes, and for modules and data of your own.

    Model and data are chosen by ``class_path``, so a user's own classes work as they are. The resolved
    configuration goes to ``resolved_<subcommand>.yaml`` in the run's folder, where ``validate`` does not
    overwrite what ``fit`` wrote and nothing overwrites a ``config.yaml`` of the user's.
    """


def command_line(arguments: Sequence[str]) -> tuple[Any, Any]:
    """The classes of the command line and of its parser, for what the arguments and the files they name train.

    Args:
        arguments: those of the command line.
    """
    if not _trains_with_lightning(arguments):
        return LandscapeCLI, PlainLightningParser
    cli = type(LandscapeCLI.__name__, (_Closing, both(LightningCLI)[1]), {})
    return cli, type(PlainLightningParser.__name__, (PlainArgumentParser, both(LightningArgumentParser)[1]), {})


def _trains_with_lightning(arguments: Sequence[str]) -> bool:
    """Whether the model, else the data, are of the package ``lightning``, whose trainer alone takes them."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--config", "-c", action="append", default=[])
    for section in ("model", "data"):
        early.add_argument(f"--{section}", f"--{section}.class_path", action="append", default=[])
    # Whatever cannot be read or imported here, the command line itself meets later, and says so better.
    with suppress(Exception):
        given = early.parse_known_args(arguments)[0]
        files = [read for file in reversed(given.config) if isinstance(read := _read(file), dict)]
        for section, kind in (("model", pl.LightningModule), ("data", pl.LightningDataModule)):
            for chosen in [*reversed(getattr(given, section)), *(file.get(section) for file in files)]:
                with suppress(Exception):
                    found = pkgutil.resolve_name(chosen["class_path"] if isinstance(chosen, dict) else chosen)
                    if issubclass(found, both(kind)):
                        return not issubclass(found, kind)
    return False


def _read(file: str) -> Any:
    with suppress(OSError, ValueError, CorruptFileError):
        return read_yaml(file)
