"""The lecture's theorems as constructions that can be run and checked, one result per file."""

from lightning_landscape.theory.bound import PathBound, measure_bound
from lightning_landscape.theory.by_module import connecting_path, descent_path
from lightning_landscape.theory.separated_components import Counterexample, component, counterexample

__all__ = [
    "Counterexample",
    "PathBound",
    "component",
    "connecting_path",
    "counterexample",
    "descent_path",
    "measure_bound",
]
