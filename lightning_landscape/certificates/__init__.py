"""Proofs about level sets: a path that lies below a level as a whole, and points that no path can join below it."""

from lightning_landscape.certificates.along_paths import Certificate as Certificate
from lightning_landscape.certificates.along_paths import certify as certify
from lightning_landscape.certificates.losses import CrossEntropy as CrossEntropy
from lightning_landscape.certificates.losses import SquaredError as SquaredError
