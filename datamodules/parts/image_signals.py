"""Real signals for sparse coding: digits, images of MNIST made smaller, and patches of them."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from torchvision.datasets import MNIST

from lightning_landscape.datamodules.mnist import MNISTDataModule

_MAX_DIGIT_PIXEL = 16.0
_MAX_MNIST_PIXEL = 255.0
_HELD_OUT_DIGITS = 359  # a fifth of 1797, for validation and again for testing
_HELD_OUT_MNIST = 5000
_SMALL_SIDE = 17  # of the images in Moreau & Bruna (2017)
_PATCH_SIDE = 10
_LEAST_NORM = 1.0  # a patch below it shows background


def digit_signals(seed: int) -> dict[str, Tensor]:
    """The 8x8 digits of scikit-learn as unit vectors (N, 64), by split; disjoint, in an order drawn from ``seed``.

    Example:
        >>> {name: tuple(pool.shape) for name, pool in digit_signals(0).items()}
        {'train': (1079, 64), 'val': (359, 64), 'test': (359, 64)}
    """
    images = torch.from_numpy(load_digits().data).float() / _MAX_DIGIT_PIXEL
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))]
    rest = len(images) - 2 * _HELD_OUT_DIGITS
    train, val, test = _unit(images).split([rest, _HELD_OUT_DIGITS, _HELD_OUT_DIGITS])
    return {"train": train, "val": val, "test": test}


def mnist_files(root: str, source: str | None, download: bool, seed: int) -> MNISTDataModule:
    """What fetches, checks and unpacks the files of MNIST; the last 5000 training images are held out."""
    return MNISTDataModule(root, val_size=_HELD_OUT_MNIST, download=download, source=source, seed=seed)


def small_mnist_signals(root: Path, seed: int) -> dict[str, Tensor]:
    """Images of MNIST in [0, 1], averaged down to 17x17 pixels, (N, 289), by split."""
    return {
        name: interpolate(images, size=_SMALL_SIDE, mode="bilinear", antialias=True).flatten(1)
        for name, images in _mnist(root, seed).items()
    }


def mnist_patch_signals(root: Path, seed: int) -> dict[str, Tensor]:
    """Patches of 10x10 pixels from MNIST as unit vectors (N, 100), by split.

    One is cut from each image, uniformly over all places; those that show background, of norm below 1 with pixels in
    [0, 1], are left out.
    """
    generator = torch.Generator().manual_seed(seed)
    pools = {}
    for name, images in _mnist(root, seed).items():
        places = images.shape[-1] - _PATCH_SIDE + 1
        corners = torch.randint(places, (2, len(images)), generator=generator)
        rows, columns = corners[:, :, None] + torch.arange(_PATCH_SIDE)
        number = torch.arange(len(images))[:, None, None]
        patches = images[number, 0, rows[:, :, None], columns[:, None, :]].flatten(1)
        pools[name] = _unit(patches[torch.linalg.vector_norm(patches, dim=1) >= _LEAST_NORM])
    return pools


def _mnist(root: Path, seed: int) -> dict[str, Tensor]:
    """Images (N, 1, 28, 28) in [0, 1] by split."""
    images = MNIST(str(root), train=True).data.unsqueeze(1).float() / _MAX_MNIST_PIXEL
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))]
    test = MNIST(str(root), train=False).data.unsqueeze(1).float() / _MAX_MNIST_PIXEL
    return {"train": images[:-_HELD_OUT_MNIST], "val": images[-_HELD_OUT_MNIST:], "test": test}


def _unit(signals: Tensor) -> Tensor:
    return normalize(signals, dim=1)
