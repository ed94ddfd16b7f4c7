"""The theorems, measured: each module runs as ``python -m scripts.theory.<name>``."""
