"""The figures of Freeman & Bruna (2017): ``python -m scripts.reproduce.freeman_bruna``."""
