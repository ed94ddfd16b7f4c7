"""Runs that are harmed on purpose, and what became of them."""
