"""Permutation symmetries: hidden units permute without a change of the function, and so networks come closer."""

from lightning_landscape.alignment.by_activations import activation_matching
from lightning_landscape.alignment.by_weights import WeightMatching, match_weights, weight_matching
from lightning_landscape.alignment.rescaling import repair
from lightning_landscape.alignment.specification import PermutationGroup, PermutationSpec, permutation_spec

__all__ = [
    "PermutationGroup",
    "PermutationSpec",
    "WeightMatching",
    "activation_matching",
    "match_weights",
    "permutation_spec",
    "repair",
    "weight_matching",
]
