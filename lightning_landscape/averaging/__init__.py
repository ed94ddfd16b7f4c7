"""Averages of models: which points to average, and whether the average is worth having."""

from lightning_landscape.averaging.advice import Advice, advice
from lightning_landscape.averaging.average import Average, Candidate, average

__all__ = ["Advice", "Average", "Candidate", "advice", "average"]
