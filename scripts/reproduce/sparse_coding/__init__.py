"""Unrolled sparse coding: ``python -m scripts.reproduce.sparse_coding``."""
