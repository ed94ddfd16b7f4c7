"""MNIST and CIFAR-10 (scripts MNIST.py and CIFAR10.py): levels of the test error, beads trained on cross-entropy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from lightning_landscape import LossSurface
from lightning_landscape.datamodules import CIFAR10DataModule, MNISTDataModule
from lightning_landscape.models import ImageClassifier
from scripts.reproduce.freeman_bruna.task import Problem, Recipe, Settings, Task

_CROP = 24  # pixels that the CIFAR network of the scripts sees
_CHUNK = 500  # images of a probe batch at most
_PROBE = 10_000  # examples of the test set, as published

# Standard deviation of the weights (a normal distribution cut at two of them) and value of the biases, for each layer
# of the scripts' networks. They set how far apart two networks lie, by which lengths are divided.
_MNIST_SCALES = ((0.1, 0.1),) * 4
_CIFAR_SCALES = ((0.05, 0.0), (0.05, 0.1), (0.04, 0.1), (0.04, 0.1), (1 / 192, 0.0))

Batch = tuple[Tensor, Tensor]
Scales = tuple[tuple[float, float], ...]


class ShuffledBatches:
    """Batches of a fixed size in a new order at each pass, from the global generator.

    Args:
        images: tensor (N, C, H, W).
        labels: tensor (N,).
        size: of a batch; a rest that is smaller is left out.
        crop: height and width of a random crop, each image mirrored with probability 1/2; ``None``: as they are.
    """

    def __init__(self, images: Tensor, labels: Tensor, size: int, crop: int | None = None) -> None:
        self._images, self._labels, self._size, self._crop = images, labels, size, crop

    def __iter__(self) -> Iterator[Batch]:
        for chosen in torch.randperm(len(self._labels)).split(self._size):
            if len(chosen) == self._size:
                images = self._images[chosen]
                yield (images if self._crop is None else _distorted(images, self._crop)), self._labels[chosen]


def _distorted(images: Tensor, size: int) -> Tensor:
    top, left = (int(torch.randint(images.shape[axis] - size + 1, ())) for axis in (2, 3))
    cropped = images[:, :, top : top + size, left : left + size]
    mirrored = torch.rand(len(images)) < 0.5
    return torch.where(mirrored[:, None, None, None], cropped.flip(3), cropped)


def _centre(images: Tensor, size: int) -> Tensor:
    top, left = ((images.shape[axis] - size) // 2 for axis in (2, 3))
    return images[:, :, top : top + size, left : left + size]


def _error(module: nn.Module, batch: Batch) -> Tensor:
    return (module(batch[0]).argmax(dim=1) != batch[1]).float().mean()


def _cross_entropy(module: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(module(batch[0]), batch[1])


def _problem(
    network: ImageClassifier,
    scales: Scales | None,
    train: Batch,
    test: Batch,
    training: ShuffledBatches,
    probe: int,
) -> Problem:
    def chunks(images: Tensor, labels: Tensor) -> list[Batch]:
        count = min(probe, len(labels))
        size = next(size for size in range(_CHUNK, 0, -1) if count % size == 0)  # so that all batches weigh the same
        return list(zip(images[:count].split(size), labels[:count].split(size), strict=True))

    def initial() -> Tensor:
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        for layer in layers:
            layer.reset_parameters()
        for layer, (std, bias) in zip(layers, scales, strict=True) if scales else ():
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.constant_(layer.bias, bias)
        return metric.point(dict(network.named_parameters()))

    metric = LossSurface(network, chunks(*test), _error, training, training_loss_fn=_cross_entropy, vectorize=False)
    loss = LossSurface(network, chunks(*train), _cross_entropy, training, vectorize=False)
    return Problem(initial, metric, loss)


def _tensors(data: MNISTDataModule | CIFAR10DataModule, split: str) -> Batch:
    images, labels = data.splits[split].tensors
    return images, labels


def _open_mnist(settings: Settings) -> Problem:
    data = MNISTDataModule(root=settings.cache, source=settings.source, val_size=5000)
    data.prepare_data()
    data.setup()
    small = settings.network == "lenet"
    (mean,), (std,) = data.channel_means, data.channel_stds
    train, test = (
        (images if small else images * std + mean, labels)  # the script's pixels lie in [0, 1]
        for images, labels in (_tensors(data, "train"), _tensors(data, "test"))
    )
    network = ImageClassifier("lenet" if small else "dss-mnist")
    training = ShuffledBatches(*train, size=100)
    return _problem(network, None if small else _MNIST_SCALES, train, test, training, settings.probe or _PROBE)


def _open_cifar(settings: Settings) -> Problem:
    data = CIFAR10DataModule(root=settings.cache, source=settings.source, val_size=5000)
    data.prepare_data()
    data.setup()
    (images, labels), (test_images, test_labels) = _tensors(data, "train"), _tensors(data, "test")
    network = ImageClassifier("dss-cifar", in_channels=3, image_size=_CROP)
    training = ShuffledBatches(images, labels, size=128, crop=_CROP)
    probe = settings.probe or _PROBE
    train, test = (_centre(images[:probe], _CROP), labels[:probe]), (_centre(test_images, _CROP), test_labels)
    return _problem(network, _CIFAR_SCALES, train, test, training, probe)


_MNIST_RECIPE = Recipe(
    slack=1.02,
    alpha=0.98,
    split="argmax",
    grid=20,
    optimizer=lambda points: Adam(points, lr=1e-4),
    network_check=100,
    bead_check=550,
    max_steps=22_000,
)


def _mnist_recipe(settings: Settings) -> Recipe:
    # The small network learns ten times slower at the rate of the large one.
    quick = replace(_MNIST_RECIPE, optimizer=lambda points: Adam(points, lr=1e-3))
    return quick if settings.network == "lenet" else _MNIST_RECIPE


# Differs from the script: no dropout, and one softmax before the cross-entropy, where the script applies two.
MNIST = Task(
    "mnist",
    "test error in %",
    recipe=_mnist_recipe,
    open=_open_mnist,
    level=lambda threshold: threshold / 100,
    strict_level=lambda threshold: None,
)

# Differs from the script: crops and mirror images, but no change of brightness and contrast; no weight decay of the
# dense layers; no local response normalisation.
CIFAR = Task(
    "cifar",
    "test error in %",
    recipe=lambda settings: Recipe(
        slack=1.1,
        alpha=0.98,
        split="argmax",
        grid=20,
        optimizer=lambda points: SGD(points, lr=0.1),
        network_check=100,
        bead_check=100,
        max_steps=10_000,
    ),
    open=_open_cifar,
    level=lambda threshold: threshold / 100,
    strict_level=lambda threshold: None,
)
