"""LightningModules to train and study."""

from lightning_landscape.models.deep_linear_network import DeepLinearNetwork
from lightning_landscape.models.image_classifier import ImageClassifier
from lightning_landscape.models.lstm_language_model import LSTMLanguageModel
from lightning_landscape.models.polynomial_network import PolynomialNetwork
from lightning_landscape.models.polynomial_regressor import PolynomialRegressor
from lightning_landscape.models.quadratic_network import QuadraticNetwork
from lightning_landscape.models.relu_network import ReLUNetwork
from lightning_landscape.models.two_layer_relu import TwoLayerReLU

__all__ = [
    "DeepLinearNetwork",
    "ImageClassifier",
    "LSTMLanguageModel",
    "PolynomialNetwork",
    "PolynomialRegressor",
    "QuadraticNetwork",
    "ReLUNetwork",
    "TwoLayerReLU",
]
