"""CIFAR-10 and CIFAR-100 through torchvision, from the network, a cache folder or a folder of the raw files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10, CIFAR100

from lightning_landscape.datamodules.caches.tar import check_files, copy_files, lacking, unpack_files
from lightning_landscape.datamodules.parts.augmentation import AugmentingLoader
from lightning_landscape.datamodules.parts.cached_images import CachedImageDataModule


class CIFAR10DataModule(CachedImageDataModule):
    """The CIFAR-10 images of 10 classes (Krizhevsky 2009).

    Images are float32 tensors (N, 3, 32, 32): pixels scaled to [0, 1], then standardised by the mean and the
    standard deviation of each channel over the 50,000 training images. Labels are int64, (N,). The last
    ``val_size`` of the training images, in an order drawn from ``seed``, are the validation split; the global random
    state is left as it is. All of it is held in memory, 740 MB.

    ``augment`` shifts every training image by up to 4 pixels over a border of zeros and mirrors every second one, at
    random under ``seed_everything``. Validation, test and the probe set of the landscape callbacks are never
    augmented, so that the loss they define is one function.

    ``prepare_data`` puts the unpacked files into ``root``, where torchvision reads them. Files that are there
    and whole are kept; any other is made from ``source`` or by ``download``, its md5 verified, and appears
    under its name only when it is complete.

    Args:
        root: cache folder.
        batch_size: examples in a batch.
        val_size: number of training images to validate on.
        augment: train on random flips and crops.
        download: fetch missing files. An archive that lies in ``root`` already is unpacked there without the network.
        source: folder that holds ``cifar-10-python.tar.gz`` as published, ``cifar-10-batches-py.tar.xz`` or
            ``.tar.gz``, or the unpacked folder ``cifar-10-batches-py``, or is that folder. It is only read.
        seed: random seed of the split into training and validation.
        num_workers: processes that load, 0 for the main one.

    Raises:
        ValueError: if an argument is out of its range, both ``download`` and ``source`` are given, or
            ``root`` and ``source`` are the same folder.

    Example:
        >>> data = CIFAR10DataModule(root="data", source="../shared/data", val_size=10_000)
        >>> data.raw_folder.as_posix()
        'data/cifar-10-batches-py'
    """

    dataset: ClassVar[type[CIFAR10]] = CIFAR10
    raw_files = "cifar-10-python.tar.gz, cifar-10-batches-py.tar.xz or the unpacked folder cifar-10-batches-py"
    num_training_images = 50_000
    channel_means = (0.4914, 0.4822, 0.4465)
    channel_stds = (0.2470, 0.2435, 0.2616)

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 128,
        val_size: int = 5000,
        augment: bool = True,
        download: bool = False,
        source: str | Path | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        # Plain strings, because checkpoints that hold a Path do not load with weights_only.
        root = str(root)
        source = None if source is None else str(source)
        super().__init__(root, self.dataset.base_folder, batch_size, val_size, download, source, seed, num_workers)
        self.augment = augment
        self.save_hyperparameters()

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled batches of the training split: images, augmented if so asked, and labels."""
        return self._loader(self._split("train"), shuffle=True, kind=AugmentingLoader if self.augment else DataLoader)

    def _checksums(self) -> dict[str, str]:
        meta = self.dataset.meta
        return {**dict([*self.dataset.train_list, *self.dataset.test_list]), meta["filename"]: meta["md5"]}

    def _check_cache(self) -> None:
        check_files(self.raw_folder, self._checksums())

    def _find_packed(self, folder: Path) -> Path | None:
        base = self.dataset.base_folder
        archives = (folder / name for name in (self.dataset.filename, f"{base}.tar.xz", f"{base}.tar.gz"))
        return next((archive for archive in archives if archive.is_file()), None)

    def _find_source(self, source: Path) -> Path:
        for folder in (source / self.dataset.base_folder, source):
            if all((folder / name).is_file() for name in self._checksums()):
                return folder
        return super()._find_source(source)

    def _unpack_from(self, found: Path) -> None:
        take = copy_files if found.is_dir() else unpack_files
        take(found, self.raw_folder, lacking(self.raw_folder, self._checksums()))

    def _load(self, train: bool) -> tuple[Tensor, Tensor]:
        files = self.dataset(str(self.root), train=train)
        return torch.from_numpy(files.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(files.targets)


class CIFAR100DataModule(CIFAR10DataModule):
    """The CIFAR-100 images of 100 classes (Krizhevsky 2009), in every other respect as :class:`CIFAR10DataModule`.

    The folder of raw files is ``cifar-100-python``, its archive ``cifar-100-python.tar.gz`` or ``.tar.xz``.

    Example:
        >>> CIFAR100DataModule(root="data").raw_folder.as_posix()
        'data/cifar-100-python'
    """

    dataset = CIFAR100
    raw_files = "cifar-100-python.tar.gz, cifar-100-python.tar.xz or the unpacked folder cifar-100-python"
    channel_means = (0.5071, 0.4865, 0.4409)
    channel_stds = (0.2673, 0.2564, 0.2762)
