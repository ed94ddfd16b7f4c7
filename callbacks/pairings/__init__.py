"""What the present weights are compared with, one pairing a file."""

from typing import Literal

from lightning_landscape.callbacks.pairings.base import Pairing
from lightning_landscape.callbacks.pairings.reference import Reference
from lightning_landscape.callbacks.pairings.remembered import First, Lagged
from lightning_landscape.callbacks.pairings.twin import Reinitialize, Twin

PairChoice = Literal["lagged", "first", "reference", "twin"]
PAIRINGS: dict[str, type[Pairing]] = {"lagged": Lagged, "first": First, "reference": Reference, "twin": Twin}

__all__ = ["PAIRINGS", "First", "Lagged", "PairChoice", "Pairing", "Reference", "Reinitialize", "Twin"]
