"""Community detection: ``python -m scripts.reproduce.community``."""
