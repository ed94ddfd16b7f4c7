"""Networks that find communities in graphs."""

from lightning_landscape.models.graphs.community_gnn import CommunityGNN
from lightning_landscape.models.graphs.line_graph_gnn import LineGraphGNN
from lightning_landscape.models.graphs.pyg_community_model import PyGCommunityModel

__all__ = ["CommunityGNN", "LineGraphGNN", "PyGCommunityModel"]
