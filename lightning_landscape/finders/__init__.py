"""Ways of finding a path between two points below a level, one per file. A new one is a file, and a line here."""

from lightning_landscape.connection import Reason as Reason
from lightning_landscape.finders.auto_neb import AutoNEB as AutoNEB
from lightning_landscape.finders.base import PathFinder as PathFinder
from lightning_landscape.finders.bezier import BezierCurve as BezierCurve
from lightning_landscape.finders.chain import Chain as Chain
from lightning_landscape.finders.chain import Segment as Segment
from lightning_landscape.finders.curve_then_beads import CurveThenBeads as CurveThenBeads
from lightning_landscape.finders.default import default_finder as default_finder
from lightning_landscape.finders.ladder import Ladder as Ladder
from lightning_landscape.finders.linear import LinearPath as LinearPath
from lightning_landscape.finders.measurement import measured as measured
from lightning_landscape.finders.polygonal_chain import PolygonalChain as PolygonalChain
from lightning_landscape.finders.search import Budget as Budget
from lightning_landscape.finders.search import Search as Search
from lightning_landscape.finders.simplified_string import SimplifiedString as SimplifiedString
from lightning_landscape.finders.string_sampling import DynamicStringSampling as DynamicStringSampling
