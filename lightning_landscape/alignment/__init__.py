"""Permutation symmetries: hidden units permute without a change of the function, and so networks come closer."""

from lightning_landscape.alignment.by_activations import activation_matching
from lightning_landscape.alignment.by_weights import WeightMatching, match_weights, weight_matching
from lightning_landscape.alignment.rescaling import repair, repair_mean
from lightning_landscape.alignment.specification import PermutationGroup, PermutationSpec, permutation_spec
from lightning_landscape.alignment.together import match_together

__all__ = [
    "PermutationGroup",
    "PermutationSpec",
    "WeightMatching",
    "activation_matching",
    "match_together",
    "match_weights",
    "permutation_spec",
    "repair",
    "repair_mean",
    "weight_matching",
]
