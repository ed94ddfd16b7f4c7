"""The part that data modules of torchvision's image sets share: a cache folder, where it comes from, and the split."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets import VisionDataset

from lightning_landscape.datamodules.parts.in_memory import InMemoryDataModule
from lightning_landscape.storage.atomic import CorruptFileError


class CachedImageDataModule(InMemoryDataModule, ABC):
    """Serves images that torchvision reads from a cache folder, made from a folder of raw files or by download.

    The last ``val_size`` of the training images, in an order drawn from ``seed``, are the validation split.
    The global random state is left as it is.

    Args:
        root: cache folder.
        batch_size: examples in a batch.
        val_size: number of training images to validate on.
        download: fetch what the cache lacks.
        source: folder that holds the raw files. It is only read.
        seed: random seed of the split into training and validation.
        num_workers: processes that load, 0 for the main one.

    Attributes:
        raw_folder: folder inside ``root`` that torchvision reads.
        raw_files: the raw files in words, for messages.

    Raises:
        ValueError: if an argument is out of its range, both ``download`` and ``source`` are given, or
            ``root`` and ``source`` are the same folder.
    """

    dataset: ClassVar[type[VisionDataset]]
    raw_files: ClassVar[str]
    num_training_images: ClassVar[int]
    channel_means: ClassVar[tuple[float, ...]]  # of the training images, scaled to [0, 1]
    channel_stds: ClassVar[tuple[float, ...]]

    def __init__(
        self,
        root: str,
        raw_folder: str,
        batch_size: int,
        val_size: int,
        download: bool,
        source: str | None,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        most = self.num_training_images - 1
        if not isinstance(val_size, int) or not 1 <= val_size <= most:
            raise ValueError(f"val_size must be an integer from 1 to {most}, got {val_size!r}")
        if download and source is not None:
            raise ValueError(f"download=True and source={source!r} exclude each other: give one of them")
        self.root = Path(root).expanduser()
        self.source = None if source is None else Path(source).expanduser()
        self.raw_folder = self.root / raw_folder
        if self.source is not None and self.source.resolve() in (self.root.resolve(), self.raw_folder.resolve()):
            raise ValueError(
                f"source={source!r} is only read and cannot be the cache as well: give another root than {root!r}, "
                "or download=True instead of source to unpack in place"
            )
        self.val_size = val_size
        self.download = download

    def prepare_data(self) -> None:
        """Unpack or download what the cache lacks; safe when several processes do it at once.

        Raises:
            FileNotFoundError: if files are missing and neither ``source`` nor ``download`` brings them.
            CorruptFileError: if a raw file is damaged, or a cached file is and nothing was given to make it anew.
            RuntimeError: if the download fails.
        """
        try:
            self._check_cache()
        except (FileNotFoundError, CorruptFileError):
            if self.source is not None:
                self._unpack_from(self._find_source(self.source))
            elif not self.download:
                self._require()
            elif (packed := self._find_packed(self.root)) is not None:
                self._unpack_from(packed)
            else:
                self._fetch()

    def setup(self, stage: str | None = None) -> None:
        """Load the splits that ``stage`` needs, ``None`` for all.

        Raises:
            FileNotFoundError: if a file is missing from the cache.
            CorruptFileError: if a cached file is damaged.
            ValueError: if ``val_size`` leaves nothing to train on.
        """
        if stage in (None, "fit", "validate") and "train" not in self.splits:
            self._require()
            images, labels = self._load(train=True)
            if self.val_size >= len(labels):
                raise ValueError(f"val_size={self.val_size} must be less than the {len(labels)} training images")
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed))
            for name, part in (("train", order[: -self.val_size]), ("val", order[-self.val_size :])):
                self.splits[name] = TensorDataset(self._standardised(images[part]), labels[part])
        if stage in (None, "test", "predict") and "test" not in self.splits:
            self._require()
            images, labels = self._load(train=False)
            self.splits["test"] = TensorDataset(self._standardised(images), labels)

    @abstractmethod
    def _check_cache(self) -> None:
        """Raises FileNotFoundError or CorruptFileError, naming the file, unless the cache is whole."""

    @abstractmethod
    def _find_packed(self, folder: Path) -> Path | None:
        """Where ``folder`` holds the raw files as they are published, for :meth:`_unpack_from`."""

    @abstractmethod
    def _unpack_from(self, found: Path) -> None:
        """Brings what the cache lacks from ``found``, verified, each file whole or not at all."""

    @abstractmethod
    def _load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) as bytes, and labels (N,) as int64."""

    def _find_source(self, source: Path) -> Path:
        found = self._find_packed(source)
        if found is None:
            raise FileNotFoundError(f"source={str(source)!r} must be a folder that holds {self.raw_files}")
        return found

    def _standardised(self, images: Tensor) -> Tensor:
        means, stds = (torch.tensor(values).view(-1, 1, 1) for values in (self.channel_means, self.channel_stds))
        return images.float().div_(255).sub_(means).div_(stds)

    def _fetch(self) -> None:
        # torchvision writes in place, so that a killed download or a second one would leave half files in the cache.
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=self.root) as scratch:
            try:
                self.dataset(scratch, download=True)
            except (RuntimeError, OSError) as error:
                raise RuntimeError(
                    f"{self.dataset.__name__} could not be downloaded into root={str(self.root)!r}: {error}\nOffline, "
                    f"give as source instead of download=True a folder that holds {self.raw_files}"
                ) from error
            self._unpack_from(self._find_source(Path(scratch)))

    def _require(self) -> None:
        try:
            self._check_cache()
        except (FileNotFoundError, CorruptFileError) as error:
            root, name = str(self.root), type(self).__name__
            raise type(error)(
                f"no usable {self.dataset.__name__} in root={root!r}: {error}. With a network: {name}(root={root!r}, "
                f"download=True). Without: {name}(root=CACHE, source=FOLDER), where FOLDER holds {self.raw_files}, and "
                "CACHE is a folder to unpack them into. Then prepare_data(), which a Trainer calls by itself"
            ) from error
