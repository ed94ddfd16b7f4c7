"""LightningModules to train and study."""

from lightning_landscape.models.image_classifier import ImageClassifier

__all__ = ["ImageClassifier"]
