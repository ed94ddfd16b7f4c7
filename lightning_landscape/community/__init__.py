"""Community detection: block models, line graph operators, thresholds and classical methods."""

from lightning_landscape.community.affiliation import AffiliationGraphFit
from lightning_landscape.community.belief_propagation import BeliefPropagation
from lightning_landscape.community.burer_monteiro import BurerMonteiro
from lightning_landscape.community.graph import CommunityGraph, as_community_graph, community_graph, reverse_edges
from lightning_landscape.community.line_graph import (
    incidence_difference,
    incidence_difference_transpose,
    incidence_sum,
    incidence_sum_transpose,
    nonbacktracking_degree,
    nonbacktracking_product,
    nonbacktracking_product_transpose,
)
from lightning_landscape.community.nonbacktracking import NonBacktrackingSpectral
from lightning_landscape.community.sbm import stochastic_block_model
from lightning_landscape.community.spectral import (
    AdjacencySpectral,
    BetheHessian,
    LaplacianSpectral,
    ProjectedPowerIteration,
)
from lightning_landscape.community.thresholds import (
    Detectability,
    average_degree,
    critical_degrees,
    detectability,
    exact_recovery,
    rates_from_snr,
    signal_to_noise,
    symmetric_connectivity,
)

__all__ = [
    "AdjacencySpectral",
    "AffiliationGraphFit",
    "BeliefPropagation",
    "BetheHessian",
    "BurerMonteiro",
    "CommunityGraph",
    "Detectability",
    "LaplacianSpectral",
    "NonBacktrackingSpectral",
    "ProjectedPowerIteration",
    "as_community_graph",
    "average_degree",
    "community_graph",
    "critical_degrees",
    "detectability",
    "exact_recovery",
    "incidence_difference",
    "incidence_difference_transpose",
    "incidence_sum",
    "incidence_sum_transpose",
    "nonbacktracking_degree",
    "nonbacktracking_product",
    "nonbacktracking_product_transpose",
    "rates_from_snr",
    "reverse_edges",
    "signal_to_noise",
    "stochastic_block_model",
    "symmetric_connectivity",
]
