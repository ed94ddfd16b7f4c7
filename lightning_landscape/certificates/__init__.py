"""Proofs about level sets: a path that lies below a level as a whole, and points that no path can join below it."""

from lightning_landscape.certificates.along_paths import Certificate as Certificate
from lightning_landscape.certificates.along_paths import certify as certify
from lightning_landscape.certificates.losses import CrossEntropy as CrossEntropy
from lightning_landscape.certificates.losses import SquaredError as SquaredError
from lightning_landscape.certificates.population import PopulationBound as PopulationBound
from lightning_landscape.certificates.population import population_bound as population_bound
from lightning_landscape.certificates.separation import Separation as Separation
from lightning_landscape.certificates.separation import same_component as same_component
from lightning_landscape.certificates.separation import separation_bound as separation_bound
