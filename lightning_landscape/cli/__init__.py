"""The command line ``landscape fit|validate|test|predict|connect|average|components|sweep|report``."""

from __future__ import annotations

import difflib
import os
import sys
from typing import TYPE_CHECKING, Any

from lightning_landscape import __version__

# Nothing at the head imports torch, so that `--version` and an answer to a mistyped command come at once.
if TYPE_CHECKING:
    from lightning_landscape.cli.training import LandscapeCLI as LandscapeCLI

_EXAMINING = ("connect", "average", "components", "sweep", "report")
_SUBCOMMANDS = ("fit", "validate", "test", "predict", *_EXAMINING)


def main(args: list[str] | None = None, prog: str = "landscape") -> None:
    """Run the command line.

    Args:
        args: the arguments, by default those of the process.
        prog: the name that usage and error messages give.

    Raises:
        SystemExit: with code 2 and the reason on stderr if the command, an argument or the configuration is wrong;
            after ``--version`` with code 0; after the commands that examine checkpoints always, with their exit code.
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
    from lightning_landscape.cli.training import command_line

    description = (
        "Train with PyTorch Lightning and read the geometry of the loss. More commands examine checkpoints of "
        "finished runs: `%(prog)s connect A B --config RECIPE`, `%(prog)s average FILES --config RECIPE --out FILE` "
        "and `%(prog)s components FILES --config RECIPE`, or a hyperparameter: `%(prog)s sweep --config RECIPE --over "
        "KEY=V1,V2`; see their --help. `%(prog)s report FOLDER` makes a page of what is there. "
        "`%(prog)s --version` prints the version."
    )
    cli, parser = command_line(arguments)
    cli(parser_class=parser, parser_kwargs={"prog": prog, "description": description}, args=args)


def __getattr__(name: str) -> Any:
    """``LandscapeCLI``, imported when it is asked for."""
    if name != "LandscapeCLI":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lightning_landscape.cli import training

    return training.LandscapeCLI


def _refuse(command: str, prog: str) -> None:
    """Ends the process with the commands there are, the one that was very likely meant first."""
    near = difflib.get_close_matches(command, _SUBCOMMANDS, n=1)
    advice = f"did you mean '{near[0]}'?" if near else f"give one of {', '.join(_SUBCOMMANDS)}"
    print(f"usage: {prog} {{{','.join(_SUBCOMMANDS)}}} ...\nerror: no command '{command}': {advice}", file=sys.stderr)
    sys.exit(2)
