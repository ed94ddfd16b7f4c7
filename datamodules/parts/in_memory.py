"""The part that data modules of small image sets share: splits held as tensors, served by loaders."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset


class InMemoryDataModule(LightningDataModule):
    """Serves the splits ``train``, ``val`` and ``test`` that a subclass fills in ``setup``.

    The loader of ``train`` shuffles with the global generator, as Lightning users expect. The others keep
    the order; predict yields the images of ``test`` without labels, which is what ``forward`` takes.

    Args:
        batch_size: examples in a batch, at least 1. The last batch of a pass may be smaller.
        seed: random seed of the split, in [0, 2^32).
        num_workers: processes that load, 0 for the main one; kept alive between epochs.

    Attributes:
        splits: from the split's name to its images (N, C, H, W) and labels (N,).

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(self, batch_size: int, seed: int, num_workers: int) -> None:
        super().__init__()
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
        if not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise ValueError(f"seed must be an integer in [0, 2**32), got {seed!r}")
        if not isinstance(num_workers, int) or num_workers < 0:
            raise ValueError(f"num_workers must be an integer of at least 0, got {num_workers!r}")
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.splits: dict[str, TensorDataset] = {}

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled batches of the training split: images and labels."""
        return self._loader(self._split("train"), shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of the validation split: images and labels."""
        return self._loader(self._split("val"))

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of the test split: images and labels."""
        return self._loader(self._split("test"))

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """Batches of the test split's images alone."""
        return self._loader(_Rows(self._split("test").tensors[0]))

    def _split(self, name: str) -> TensorDataset:
        if name not in self.splits:
            raise RuntimeError(f"the {name} split is not loaded: call prepare_data() and setup() first")
        return self.splits[name]

    def _loader(
        self, dataset: Dataset[Any], shuffle: bool = False, kind: type[DataLoader[Any]] = DataLoader
    ) -> DataLoader[Any]:
        return kind(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class _Rows(Dataset[Tensor]):
    """The rows of one tensor; a TensorDataset would wrap each in a tuple."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __getitem__(self, index: int) -> Tensor:
        return self.tensor[index]

    def __len__(self) -> int:
        return len(self.tensor)
