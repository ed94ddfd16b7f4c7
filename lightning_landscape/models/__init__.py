"""LightningModules to train and study."""

from lightning_landscape.models.community_gnn import CommunityGNN
from lightning_landscape.models.deep_linear_network import DeepLinearNetwork
from lightning_landscape.models.image_classifier import ImageClassifier
from lightning_landscape.models.line_graph_gnn import LineGraphGNN
from lightning_landscape.models.lstm_language_model import LSTMLanguageModel
from lightning_landscape.models.polynomial_network import PolynomialNetwork
from lightning_landscape.models.polynomial_regressor import PolynomialRegressor
from lightning_landscape.models.pyg_community_model import PyGCommunityModel
from lightning_landscape.models.quadratic_network import QuadraticNetwork
from lightning_landscape.models.relu_network import ReLUNetwork
from lightning_landscape.models.two_layer_relu import TwoLayerReLU
from lightning_landscape.models.unrolled_sparse_coder import UnrolledSparseCoder

__all__ = [
    "CommunityGNN",
    "DeepLinearNetwork",
    "ImageClassifier",
    "LSTMLanguageModel",
    "LineGraphGNN",
    "PolynomialNetwork",
    "PolynomialRegressor",
    "PyGCommunityModel",
    "QuadraticNetwork",
    "ReLUNetwork",
    "TwoLayerReLU",
    "UnrolledSparseCoder",
]
