"""The lecture's theorems as constructions that can be run and checked, one result per file."""

from lightning_landscape.theory.bound import PathBound, measure_bound

__all__ = ["PathBound", "measure_bound"]
