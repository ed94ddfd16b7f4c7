"""The points of the published figures (Freeman & Bruna 2017, Figs. 1 and 2), read from their plots."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

POINTS = Path(__file__).parent / "data" / "dss_published_points.csv"
_PLOTS = {"quadratics": "quadratics", "cubics": "cubics", "mnist": "MNIST", "cifar": "CIFAR", "ptb": "PTB"}
_ENDPOINTS = 2  # the published counts include both


@dataclass(frozen=True)
class Point:
    """A published mean with the ends of its bar, mean -+ one standard error over pairs."""

    mean: float
    lower: float
    upper: float

    def minus(self, offset: float) -> Point:
        """The point on a scale whose zero lies at ``offset``."""
        return Point(self.mean - offset, self.lower - offset, self.upper - offset)


def published(task: str) -> dict[float, tuple[Point, Point]]:
    """From threshold to normalised length and interior beads, in the order of the thresholds.

    The published code counts both endpoints as beads and always trains a first one: its 3.0 is a single
    interior bead. Here beads are interior ones, as everywhere in this package.

    Example:
        >>> length, beads = published("mnist")[2.0]
        >>> length.mean, round(beads.mean, 2)
        (1.0053, 2.79)
    """
    curves: dict[str, dict[float, Point]] = {"normlength": {}, "numbeads": {}}
    with open(POINTS, newline="") as file:
        for row in csv.DictReader(file):
            for quantity, points in curves.items():
                if row["figure"] == quantity + _PLOTS[task]:
                    points[float(row["x"])] = Point(float(row["mean"]), float(row["lower"]), float(row["upper"]))
    return {x: (curves["normlength"][x], curves["numbeads"][x].minus(_ENDPOINTS)) for x in sorted(curves["normlength"])}
