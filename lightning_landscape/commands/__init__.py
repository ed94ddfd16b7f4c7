"""Commands that examine checkpoints of finished runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_landscape.commands.average import average
from lightning_landscape.commands.components import components
from lightning_landscape.commands.connect import connect
from lightning_landscape.commands.report import report
from lightning_landscape.commands.sweep import sweep
from lightning_landscape.either_lightning import both
from lightning_landscape.storage.atomic import CorruptFileError

COMMANDS = {"connect": connect, "average": average, "components": components, "sweep": sweep, "report": report}
_UNUSABLE = 2  # exit code, as of argparse
_EXPLAINED: tuple[type[Exception], ...] = (ValueError, OSError, CorruptFileError, *both(MisconfigurationException))


def run(command: str, args: Sequence[str], prog: str) -> int:
    """Runs ``command`` and says on stderr why it cannot, where files, recipe or values are not usable.

    Returns:
        The exit code: that of the command, or 2.
    """
    try:
        return COMMANDS[command](args, f"{prog} {command}")
    except _EXPLAINED as error:
        print(f"{prog} {command}: {error}", file=sys.stderr)
        return _UNUSABLE
