"""Networks that the lecture's theorems speak of."""

from lightning_landscape.models.theorems.deep_linear_network import DeepLinearNetwork
from lightning_landscape.models.theorems.polynomial_network import PolynomialNetwork
from lightning_landscape.models.theorems.polynomial_regressor import PolynomialRegressor
from lightning_landscape.models.theorems.quadratic_network import QuadraticNetwork
from lightning_landscape.models.theorems.relu_network import ReLUNetwork
from lightning_landscape.models.theorems.two_layer_relu import TwoLayerReLU

__all__ = [
    "DeepLinearNetwork",
    "PolynomialNetwork",
    "PolynomialRegressor",
    "QuadraticNetwork",
    "ReLUNetwork",
    "TwoLayerReLU",
]
