"""Ways of finding a path between two points below a level, one per file."""

from lightning_landscape.connection import Reason
from lightning_landscape.finders.auto_neb import AutoNEB
from lightning_landscape.finders.base import PathFinder
from lightning_landscape.finders.bezier import BezierCurve
from lightning_landscape.finders.chain import Chain, Segment
from lightning_landscape.finders.ladder import Ladder
from lightning_landscape.finders.linear import LinearPath
from lightning_landscape.finders.measurement import measured
from lightning_landscape.finders.polygonal_chain import PolygonalChain
from lightning_landscape.finders.search import Budget, Search
from lightning_landscape.finders.simplified_string import SimplifiedString
from lightning_landscape.finders.string_sampling import DynamicStringSampling

__all__ = [
    "AutoNEB",
    "BezierCurve",
    "Budget",
    "Chain",
    "DynamicStringSampling",
    "Ladder",
    "LinearPath",
    "PathFinder",
    "PolygonalChain",
    "Reason",
    "Search",
    "Segment",
    "SimplifiedString",
    "measured",
]
