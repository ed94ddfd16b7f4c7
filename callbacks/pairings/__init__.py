"""What the present weights are compared with, one pairing a file."""

from typing import Any, Literal

from lightning_landscape.attach.options import check_choice
from lightning_landscape.callbacks.pairings.base import Pairing
from lightning_landscape.callbacks.pairings.reference import Reference
from lightning_landscape.callbacks.pairings.remembered import First, Lagged
from lightning_landscape.callbacks.pairings.twin import Reinitialize, Twin

PairChoice = Literal["lagged", "first", "reference", "twin"]
PAIRINGS: dict[str, type[Pairing]] = {"lagged": Lagged, "first": First, "reference": Reference, "twin": Twin}


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


__all__ = [
    "PAIRINGS",
    "First",
    "Lagged",
    "PairChoice",
    "Pairing",
    "Reference",
    "Reinitialize",
    "Twin",
    "make_pairing",
]
