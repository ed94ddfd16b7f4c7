"""LightningModules to train and study."""

from lightning_landscape.models.graphs.community_gnn import CommunityGNN
from lightning_landscape.models.graphs.line_graph_gnn import LineGraphGNN
from lightning_landscape.models.graphs.pyg_community_model import PyGCommunityModel
from lightning_landscape.models.images.image_classifier import ImageClassifier
from lightning_landscape.models.sparse_coding.unrolled_sparse_coder import UnrolledSparseCoder
from lightning_landscape.models.text.lstm_language_model import LSTMLanguageModel
from lightning_landscape.models.theorems.deep_linear_network import DeepLinearNetwork
from lightning_landscape.models.theorems.deep_quadratic_network import DeepQuadraticNetwork
from lightning_landscape.models.theorems.polynomial_network import PolynomialNetwork
from lightning_landscape.models.theorems.polynomial_regressor import PolynomialRegressor
from lightning_landscape.models.theorems.quadratic_network import QuadraticNetwork
from lightning_landscape.models.theorems.relu_network import ReLUNetwork
from lightning_landscape.models.theorems.two_layer_relu import TwoLayerReLU

__all__ = [
    "CommunityGNN",
    "DeepLinearNetwork",
    "DeepQuadraticNetwork",
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
