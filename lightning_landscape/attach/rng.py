"""Work beside a training run that draws random numbers without disturbing the run's own."""

from lightning_landscape.surface.random_states import isolated_rng

__all__ = ["isolated_rng"]
