"""Language models."""

from lightning_landscape.models.text.lstm_language_model import LSTMLanguageModel

__all__ = ["LSTMLanguageModel"]
