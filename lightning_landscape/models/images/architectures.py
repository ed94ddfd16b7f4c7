"""Networks of a few layers in sequence: a perceptron, a small LeNet and the two image networks of Freeman & Bruna."""

from __future__ import annotations

import math

from torch import nn

_TWO_POOLS = 4  # each of two 2x2 pools halves the side


def mlp(in_channels: int, image_size: int, num_classes: int) -> nn.Sequential:
    """Perceptron with two hidden layers of 128 ReLU units."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_channels * image_size**2, 128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Linear(128, num_classes),
    )


def perceptron(in_channels: int, image_size: int, num_classes: int, width: float) -> nn.Sequential:
    """Perceptron with one hidden layer of ``width`` ReLU units, a whole number."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_channels * image_size**2, int(width)),
        nn.ReLU(),
        nn.Linear(int(width), num_classes),
    )


def lenet(
    in_channels: int, image_size: int, num_classes: int, dropout: float = 0.0, batch_norm: bool = False
) -> nn.Sequential:
    """Small net in the manner of LeNet-5 (LeCun et al. 1998): 3x3x8, pool, 3x3x16, pool, 64 hidden ReLU units.

    Args:
        in_channels: channels of an image.
        image_size: height and width of an image, at least 4.
        num_classes: number of outputs.
        dropout: probability of dropping one of the features that enter the dense layers.
        batch_norm: normalise after each convolution, which then has no bias.
    """

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
        convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=not batch_norm)
        return [convolution, *norm, nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(
        *block(in_channels, 8),
        *block(8, 16),
        nn.Flatten(),
        *([nn.Dropout(dropout)] if dropout else []),
        nn.Linear(16 * (image_size // _TWO_POOLS) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )


def dss_mnist(in_channels: int, image_size: int, num_classes: int) -> nn.Sequential:
    """MNIST network of Freeman & Bruna (2017): 5x5x32, pool, 5x5x64, pool, 1024, dropout 0.5."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 32, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (image_size // _TWO_POOLS) ** 2, 1024),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(1024, num_classes),
    )


def dss_cifar(in_channels: int, image_size: int, num_classes: int) -> nn.Sequential:
    """CIFAR-10 network of Freeman & Bruna (2017): 5x5x64, pool, 5x5x64, pool, 384, 192.

    It is the network of TensorFlow's former CIFAR-10 tutorial, whose pools are 3x3 with stride 2, without the local
    response normalisation after each convolution. Layers are initialised as PyTorch does. The published script feeds
    it 24x24 crops; ``image_size=24`` gives its 1,068,298 parameters, 32 gives 1,756,426.
    """

    def block(inputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, 64, kernel_size=5, padding=2)
        return [convolution, nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2, padding=1)]

    side = math.ceil(image_size / _TWO_POOLS)  # these pools round up
    return nn.Sequential(
        *block(in_channels),
        *block(64),
        nn.Flatten(),
        nn.Linear(64 * side**2, 384),
        nn.ReLU(),
        nn.Linear(384, 192),
        nn.ReLU(),
        nn.Linear(192, num_classes),
    )
