"""MNIST through torchvision, from the network, a cache folder or a folder of the raw .gz files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST

from lightning_landscape.datamodules.idx_cache import (
    CorruptFileError,
    check_idx,
    find_archives,
    is_complete,
    unpack,
)
from lightning_landscape.datamodules.in_memory import InMemoryDataModule

MEAN = 0.1307  # of the pixels of the 60,000 training images, scaled to [0, 1]
STD = 0.3081
_NUM_IMAGES = 60_000


class MNISTDataModule(InMemoryDataModule):
    """The MNIST database of handwritten digits (LeCun, Cortes & Burges 1998).

    Images are float32 tensors (N, 1, 28, 28): pixels scaled to [0, 1], then standardised with mean
    0.1307 and standard deviation 0.3081. Labels are int64, (N,). The last ``val_size`` of the training
    images, in an order drawn from ``seed``, are the validation split; the global random state is left
    as it is. All of it is held in memory, 220 MB.

    ``prepare_data`` puts the four unpacked files into ``root/MNIST/raw``, where torchvision reads them.
    Files that are there and whole are kept; any other is made from ``source`` or by ``download``, its
    md5 verified, and appears under its name only when it is complete.

    Args:
        root: cache folder.
        batch_size: examples in a batch.
        val_size: number of training images to validate on.
        download: fetch missing files. Raw .gz files that lie in ``root/MNIST/raw`` already are unpacked
            there without the network.
        source: folder that holds the four raw .gz files, itself or in ``MNIST/raw``. It is only read.
        seed: of the split into training and validation.
        num_workers: processes that load, 0 for the main one.

    Raises:
        ValueError: if an argument is out of its range, both ``download`` and ``source`` are given, or
            ``root`` and ``source`` are the same folder.

    Example:
        >>> data = MNISTDataModule(root="data", source="../shared/data", val_size=10_000)
        >>> data.raw_folder.as_posix()
        'data/MNIST/raw'
    """

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 128,
        val_size: int = 5000,
        download: bool = False,
        source: str | Path | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        if not isinstance(val_size, int) or not 1 <= val_size < _NUM_IMAGES:
            raise ValueError(f"val_size must be an integer from 1 to {_NUM_IMAGES - 1}, got {val_size!r}")
        if download and source is not None:
            raise ValueError(f"download=True and source={str(source)!r} exclude each other: give one of them")
        # Plain strings, because checkpoints that hold a Path do not load with weights_only.
        root = str(root)
        source = None if source is None else str(source)
        self.root = Path(root).expanduser()
        self.source = None if source is None else Path(source).expanduser()
        self.raw_folder = self.root / "MNIST" / "raw"
        if self.source is not None and self.source.resolve() in (self.root.resolve(), self.raw_folder.resolve()):
            raise ValueError(
                f"source={source!r} is only read and cannot be the cache as well: give another root than {root!r}, "
                "or download=True instead of source to unpack in place"
            )
        self.val_size = val_size
        self.download = download
        self.save_hyperparameters()

    def prepare_data(self) -> None:
        """Unpack or download what the cache lacks; safe when several processes do it at once.

        Raises:
            FileNotFoundError: if files are missing and neither ``source`` nor ``download`` brings them.
            CorruptFileError: if a .gz file has a wrong md5, or a cached file is damaged and nothing
                was given to make it anew.
            RuntimeError: if the download fails.
        """
        if all(is_complete(self._unpacked(name)) for name, _ in MNIST.resources):
            return
        names = [name for name, _ in MNIST.resources]
        if self.source is not None:
            folder = find_archives(self.source, names)
            if folder is None:
                raise FileNotFoundError(
                    f"source={str(self.source)!r} must be a folder that holds, itself or in MNIST/raw, all of "
                    f"{', '.join(names)}"
                )
            self._unpack_from(folder)
        elif self.download and find_archives(self.raw_folder, names) is not None:
            self._unpack_from(self.raw_folder)
        elif self.download:
            self._fetch()
        else:
            self._require(names)

    def setup(self, stage: str | None = None) -> None:
        """Load the splits that ``stage`` needs, ``None`` for all.

        Raises:
            FileNotFoundError: if a file is missing from the cache.
            CorruptFileError: if a cached file is damaged.
            ValueError: if ``val_size`` leaves nothing to train on.
        """
        if stage in (None, "fit", "validate") and "train" not in self.splits:
            images, labels = self._load(train=True)
            if self.val_size >= len(labels):
                raise ValueError(f"val_size={self.val_size} must be less than the {len(labels)} training images")
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed))
            train, val = order[: -self.val_size], order[-self.val_size :]
            self.splits["train"] = TensorDataset(images[train], labels[train])
            self.splits["val"] = TensorDataset(images[val], labels[val])
        if stage in (None, "test", "predict") and "test" not in self.splits:
            self.splits["test"] = TensorDataset(*self._load(train=False))

    def _load(self, train: bool) -> tuple[Tensor, Tensor]:
        self._require([name for name, _ in MNIST.resources])
        files = MNIST(str(self.root), train=train)
        if len(files.data) != len(files.targets):
            raise CorruptFileError(
                f"{self.raw_folder} holds {len(files.data)} images and {len(files.targets)} labels "
                f"of the {'training' if train else 'test'} set: delete the files and prepare them anew"
            )
        return files.data.unsqueeze(1).float().div_(255).sub_(MEAN).div_(STD), files.targets

    def _unpacked(self, name: str) -> Path:
        return self.raw_folder / name.removesuffix(".gz")

    def _unpack_from(self, folder: Path) -> None:
        for name, md5 in MNIST.resources:
            if not is_complete(self._unpacked(name)):
                unpack(folder / name, md5, self._unpacked(name))

    def _fetch(self) -> None:
        # torchvision writes in place, so that a killed download or a second one would leave half files in the cache.
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=self.root) as scratch:
            try:
                MNIST(scratch, download=True)
            except (RuntimeError, OSError) as error:
                raise RuntimeError(
                    f"MNIST could not be downloaded into root={str(self.root)!r}: {error}\nOffline, put the four .gz "
                    "files into a folder and give it as source instead of download=True"
                ) from error
            self._unpack_from(Path(scratch) / "MNIST" / "raw")

    def _require(self, names: list[str]) -> None:
        for name in names:
            try:
                check_idx(self._unpacked(name))
            except (FileNotFoundError, CorruptFileError) as error:
                root = str(self.root)
                raise type(error)(
                    f"no usable MNIST in root={root!r}: {error}. With a network: MNISTDataModule(root={root!r}, "
                    "download=True). Without: MNISTDataModule(root=CACHE, source=FOLDER), where FOLDER holds the four "
                    ".gz files, itself or in MNIST/raw, and CACHE is a folder to unpack them into. "
                    "Then prepare_data(), which a Trainer calls by itself"
                ) from error
