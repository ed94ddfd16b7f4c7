"""Published experiments, measured anew: ``python -m scripts.reproduce.<experiment>``."""
