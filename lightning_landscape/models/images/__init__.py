"""Classifiers of images."""

from lightning_landscape.models.images.image_classifier import ImageClassifier

__all__ = ["ImageClassifier"]
