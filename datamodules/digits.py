"""The handwritten digits that scikit-learn ships: 1797 grey images of 8x8 pixels, no download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import TensorDataset

from lightning_landscape.datamodules.parts.in_memory import InMemoryDataModule

_NUM_IMAGES = 1797
_NUM_CLASSES = 10
_MAX_PIXEL = 16.0


class DigitsDataModule(InMemoryDataModule):
    """Optical recognition of handwritten digits (Alpaydin & Kaynak 1998), test part, as in scikit-learn.

    Images are float32 tensors (N, 1, 8, 8): pixels scaled from 0..16 to [0, 1], then standardised with
    the mean and the standard deviation over all pixels of the training split. Labels are int64, (N,).
    The three splits are disjoint and stratified by class; they depend on ``seed`` alone and leave the
    global random state as it is.

    Args:
        batch_size: examples in a batch.
        val_fraction: share of all images to validate on.
        seed: random seed of the split.
        num_workers: processes that load, 0 for the main one.
        test_fraction: share of all images to test on.

    Attributes:
        mean, std: what the images, once in [0, 1], were standardised with; set by ``setup``.

    Raises:
        ValueError: if an argument is out of its range, or a split would hold fewer than 10 images, one
            for each class.

    Example:
        >>> data = DigitsDataModule(batch_size=32)
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.val_dataloader()))
        >>> images.shape, labels.dtype
        (torch.Size([32, 1, 8, 8]), torch.int64)
    """

    def __init__(
        self,
        batch_size: int = 64,
        val_fraction: float = 0.2,
        seed: int = 0,
        num_workers: int = 0,
        test_fraction: float = 0.2,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 < fraction < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {fraction!r}")
            if round(fraction * _NUM_IMAGES) < _NUM_CLASSES:
                raise ValueError(f"{name}={fraction!r} leaves fewer than {_NUM_CLASSES} of {_NUM_IMAGES} images")
        self.num_val = round(val_fraction * _NUM_IMAGES)
        self.num_test = round(test_fraction * _NUM_IMAGES)
        if self.num_val + self.num_test > _NUM_IMAGES - _NUM_CLASSES:
            raise ValueError(
                f"val_fraction + test_fraction = {val_fraction + test_fraction:g} leaves fewer than {_NUM_CLASSES} "
                f"of {_NUM_IMAGES} images to train on: lower one of them"
            )
        self.save_hyperparameters()

    def setup(self, stage: str | None = None) -> None:
        """Load and split the images, once, whatever the stage."""
        if self.splits:
            return
        digits = load_digits()
        images = torch.from_numpy(digits.images).float().unsqueeze(1) / _MAX_PIXEL
        classes, seed = digits.target, self.seed
        rest, test = train_test_split(range(len(classes)), test_size=self.num_test, stratify=classes, random_state=seed)
        train, val = train_test_split(rest, test_size=self.num_val, stratify=classes[rest], random_state=seed)
        self.mean = float(images[train].mean())
        self.std = float(images[train].std())
        images = (images - self.mean) / self.std
        labels = torch.from_numpy(classes).long()
        for name, indices in (("train", train), ("val", val), ("test", test)):
            self.splits[name] = TensorDataset(images[indices], labels[indices])
