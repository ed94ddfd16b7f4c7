"""What the present weights are compared with, one pairing a file. One of your own is a file, and a line here."""

from typing import TYPE_CHECKING, Literal

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
