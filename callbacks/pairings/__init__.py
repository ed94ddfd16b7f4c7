"""What the present weights are compared with, one pairing a file. One of your own is a file, and a line here."""

from typing import TYPE_CHECKING, Any, Literal

from lightning_landscape.attach.options import check_choice
from lightning_landscape.callbacks.pairings.base import PAIRINGS as PAIRINGS
from lightning_landscape.callbacks.pairings.base import Pairing as Pairing
from lightning_landscape.callbacks.pairings.earlier import First as First
from lightning_landscape.callbacks.pairings.earlier import Lagged as Lagged
from lightning_landscape.callbacks.pairings.reference import Reference as Reference
from lightning_landscape.callbacks.pairings.twin import Reinitialize as Reinitialize
from lightning_landscape.callbacks.pairings.twin import Twin as Twin

if TYPE_CHECKING:  # a type checker reads no table
    PairChoice = str
else:
    PairChoice = Literal[tuple(PAIRINGS)]  # the words that the command line takes, and shows in its help


def make_pairing(pairs: str, seed: int, **own: Any) -> Pairing:
    """The pairing of that name, with those of the arguments that it takes.

    Raises:
        ValueError: for an unknown name, and an argument that goes with another one.
    """
    check_choice("pairs", pairs, PAIRINGS)
    kind = PAIRINGS[pairs]
    for argument, value in own.items():
        if value is not None and argument not in kind.options:
            right = next(name for name, other in PAIRINGS.items() if argument in other.options)
            raise ValueError(f"{argument} goes with pairs={right!r}, got pairs={pairs!r}")
    given = own | {"seed": seed}
    return kind(**{argument: given[argument] for argument in kind.options})
