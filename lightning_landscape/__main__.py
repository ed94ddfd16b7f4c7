"""The command line as ``python -m lightning_landscape``."""

from lightning_landscape.cli import main

if __name__ == "__main__":
    main(prog="python -m lightning_landscape")
