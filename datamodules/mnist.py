"""MNIST through torchvision, from the network, a cache folder or a folder of the raw .gz files."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torchvision.datasets import MNIST

from lightning_landscape.datamodules.caches.idx import check_idx, find_archives, is_complete, unpack
from lightning_landscape.datamodules.parts.cached_images import CachedImageDataModule
from lightning_landscape.storage.atomic import CorruptFileError


class MNISTDataModule(CachedImageDataModule):
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
        seed: random seed of the split into training and validation.
        num_workers: processes that load, 0 for the main one.

    Raises:
        ValueError: if an argument is out of its range, both ``download`` and ``source`` are given, or
            ``root`` and ``source`` are the same folder.

    Example:
        >>> data = MNISTDataModule(root="data", source="../shared/data", val_size=10_000)
        >>> data.raw_folder.as_posix()
        'data/MNIST/raw'
    """

    dataset = MNIST
    raw_files = f"all of {', '.join(name for name, _ in MNIST.resources)}, itself or in MNIST/raw"
    num_training_images = 60_000
    channel_means = (0.1307,)
    channel_stds = (0.3081,)

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
        # Plain strings, because checkpoints that hold a Path do not load with weights_only.
        root = str(root)
        source = None if source is None else str(source)
        super().__init__(root, "MNIST/raw", batch_size, val_size, download, source, seed, num_workers)
        self.save_hyperparameters()

    def _check_cache(self) -> None:
        for name, _ in MNIST.resources:
            check_idx(self._unpacked(name))

    def _find_packed(self, folder: Path) -> Path | None:
        return find_archives(folder, [name for name, _ in MNIST.resources])

    def _unpack_from(self, found: Path) -> None:
        for name, md5 in MNIST.resources:
            if not is_complete(self._unpacked(name)):
                unpack(found / name, md5, self._unpacked(name))

    def _load(self, train: bool) -> tuple[Tensor, Tensor]:
        files = MNIST(str(self.root), train=train)
        if len(files.data) != len(files.targets):
            raise CorruptFileError(
                f"{self.raw_folder} holds {len(files.data)} images and {len(files.targets)} labels "
                f"of the {'training' if train else 'test'} set: delete the files and prepare them anew"
            )
        return files.data.unsqueeze(1), files.targets

    def _unpacked(self, name: str) -> Path:
        return self.raw_folder / name.removesuffix(".gz")
