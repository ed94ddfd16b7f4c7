"""Reproductions, benchmarks and measured theorems; run from the root of the repository."""
