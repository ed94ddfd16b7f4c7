"""The command line ``landscape fit|validate|test|predict|connect|components --config FILE``."""

from __future__ import annotations

import argparse
import difflib
import os
import pkgutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import WandbLogger

from lightning_landscape import __version__
from lightning_landscape.either_lightning import both
from lightning_landscape.report.plain_help import PlainArgumentParser, PlainLightningParser

_EXAMINING = ("connect", "components")
_SUBCOMMANDS = ("fit", "validate", "test", "predict", *_EXAMINING)


class _Closing:
    """What is ours of a command line, whichever package's LightningCLI it extends."""

    subcommand: str | None
    trainer: pl.Trainer

    def before_instantiate_classes(self) -> None:
        """Name the saved configuration after the subcommand."""
        self.save_config_kwargs = {"config_filename": f"resolved_{self.subcommand}.yaml", "overwrite": True}

    def after_fit(self) -> None:
        """Print what each landscape callback found and where an offline W&B run lies, on rank zero."""
        # Imported here so that `landscape --help` waits for neither matplotlib nor the path finders.
        from rich.console import Console

        from lightning_landscape.callbacks import LevelSetConnectivity, MergeTree

        if not self.trainer.is_global_zero:
            return
        console = Console()
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined] # declared nowhere by Lightning
            if isinstance(callback, LevelSetConnectivity | MergeTree):
                console.print(callback.summary())
        for logger in self.trainer.loggers:
            if isinstance(logger, both(WandbLogger)):
                console.print(
                    f"W&B run: {os.path.abspath(os.path.dirname(logger.experiment.dir))}", markup=False, soft_wrap=True
                )


class LandscapeCLI(_Closing, LightningCLI):
    """A LightningCLI that closes a fit with the tables of what the landscape callbacks have found.

    Model and data are chosen by ``class_path``, so a user's own classes work as they are. The resolved
    configuration goes to ``resolved_<subcommand>.yaml`` in the run's folder, where ``validate`` does not
    overwrite what ``fit`` wrote and nothing overwrites a ``config.yaml`` of the user's.
    """


def main(args: list[str] | None = None, prog: str = "landscape") -> None:
    """Run the command line.

    Args:
        args: the arguments, by default those of the process.
        prog: the name that usage and error messages give.

    Raises:
        SystemExit: with code 2 and the reason on stderr if the command, an argument or the configuration is wrong;
            after ``--version`` with code 0; after ``connect`` and ``components`` always, with their exit code.
    """
    # An installed script leaves out the working directory, where a user's own classes lie; `python -m` does not.
    if not sys.flags.safe_path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    arguments = sys.argv[1:] if args is None else args
    if arguments[:1] == ["--version"]:
        print(f"lightning_landscape {__version__}")
        sys.exit(0)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in _SUBCOMMANDS:
        _refuse(arguments[0], prog)
    if arguments and arguments[0] in _EXAMINING:
        from lightning_landscape.commands import run  # the others wait for neither figures nor finders

        sys.exit(run(arguments[0], arguments[1:], prog))
    description = (
        "Train with PyTorch Lightning and read the geometry of the loss. Two more commands examine checkpoints of "
        "finished runs: `%(prog)s connect A B --config RECIPE` and `%(prog)s components FILES --config RECIPE`; "
        "see their --help. `%(prog)s --version` prints the version."
    )
    cli: Any = LandscapeCLI
    parser: Any = PlainLightningParser
    if _trains_with_lightning(arguments):
        cli = type(cli.__name__, (_Closing, both(LightningCLI)[1]), {})
        parser = type(parser.__name__, (PlainArgumentParser, both(LightningArgumentParser)[1]), {})
    cli(parser_class=parser, parser_kwargs={"prog": prog, "description": description}, args=args)


def _trains_with_lightning(arguments: list[str]) -> bool:
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
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        return yaml.safe_load(Path(file).read_text())


def _refuse(command: str, prog: str) -> None:
    """Ends the process with the commands there are, the one that was very likely meant first."""
    near = difflib.get_close_matches(command, _SUBCOMMANDS, n=1)
    advice = f"did you mean '{near[0]}'?" if near else f"give one of {', '.join(_SUBCOMMANDS)}"
    print(f"usage: {prog} {{{','.join(_SUBCOMMANDS)}}} ...\nerror: no command '{command}': {advice}", file=sys.stderr)
    sys.exit(2)
