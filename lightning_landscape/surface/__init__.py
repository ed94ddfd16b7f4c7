"""The loss surface E(theta) of a module, and what it costs to evaluate."""

from lightning_landscape.surface.batch_norm import BatchNormMode
from lightning_landscape.surface.loss_surface import LossSurface
from lightning_landscape.surface.noise import NoiseMode
from lightning_landscape.surface.objective import LossFunction
from lightning_landscape.surface.slices import Plane, Slice, evaluate_slice
from lightning_landscape.surface.work import Progress, Work

__all__ = [
    "BatchNormMode",
    "LossFunction",
    "LossSurface",
    "NoiseMode",
    "Plane",
    "Progress",
    "Slice",
    "Work",
    "evaluate_slice",
]
