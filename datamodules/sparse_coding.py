"""Signals for sparse coding networks: planted codes, a normalised Gaussian, digits and MNIST."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_landscape.datamodules.parts.fresh_batches import FreshBatches, FreshSampler, stream
from lightning_landscape.datamodules.parts.image_signals import (
    digit_signals,
    mnist_files,
    mnist_patch_signals,
    small_mnist_signals,
)
from lightning_landscape.sparse_coding.batch import SparseCodingBatch
from lightning_landscape.sparse_coding.dictionaries import (
    Normalization,
    conditioned,
    fourier_dictionary,
    gaussian_dictionary,
    learned_dictionary,
)
from lightning_landscape.sparse_coding.lasso import reference_optimum
from lightning_landscape.sparse_coding.problem import LassoProblem
from lightning_landscape.sparse_coding.signals import Draw, planted, pooled, unit_correlation
from lightning_landscape.storage.atomic import CorruptFileError
from lightning_landscape.storage.tensor_files import SnapshotError, read_safetensors, write_safetensors

DataSet = Literal["digits", "gaussian", "unit-correlation", "adversarial", "supervised", "mnist", "mnist-patches"]


@dataclass(frozen=True)
class _Setting:
    """What a data set is made of: sizes, lam, and how its codes are planted, where they are."""

    n: int
    m: int
    lam: float
    sparsity: float | None = None
    scale: float = 1.0


_SETTINGS: dict[str, _Setting] = {
    "digits": _Setting(64, 100, 0.1),
    "gaussian": _Setting(64, 100, 0.01, 0.05, 10.0),
    "unit-correlation": _Setting(64, 256, 0.1),
    "adversarial": _Setting(50, 256, 0.01, 0.05, 10.0),
    "supervised": _Setting(250, 500, 0.1, 0.1, 1.0),
    "mnist": _Setting(289, 100, 0.05),
    "mnist-patches": _Setting(100, 200, 0.1),
}
_LEARNED = ("digits", "mnist", "mnist-patches")
_LEARNING_SIGNALS = 10_000
_LEARNING_EPOCHS = 5


class SparseCodingDataModule(LightningDataModule):
    """Batches of signals with a fixed dictionary D (n, m) and weight lam, to be coded by ``min_z F(z)``.

    Every batch is a :class:`~lightning_landscape.sparse_coding.batch.SparseCodingBatch`
    ``(x, code, solution, optimum)``, whole as the loader yields it. Training batches are drawn anew for every step of
    every epoch, from ``(seed, number of the step)`` alone: a run resumed from any checkpoint goes on with the batches
    that it would have had. They neither read nor move the global random state. Validation and test signals are fixed
    and carry reference optima, computed once in ``setup``. Signals are float32, optima float64.

    ==================  ====  ====  ====  ====================================================================
    dataset             n     m     lam   signals
    ==================  ====  ====  ====  ====================================================================
    digits              64    100   .1    unit 8x8 digits of scikit-learn, no download; learned dictionary
    gaussian            64    100   .01   planted codes, sparsity .05, N(0, 10^2) (Moreau & Bruna 2017)
    unit-correlation    64    256   .1    Gaussian with ``||D^T x||_inf = 1``, unit atoms (Ablin et al. 2019)
    adversarial         50    256   .01   as gaussian, over real parts of random Fourier modes
    supervised          250   500   .1    planted codes, sparsity .1, N(0, 1), unit atoms (Chen et al. 2018)
    mnist               289   100   .05   MNIST in [0, 1] at 17x17 pixels; learned dictionary
    mnist-patches       100   200   .1    unit 10x10 patches of MNIST; learned dictionary
    ==================  ====  ====  ====  ====================================================================

    Dictionaries are learned with the lam of the table from at most 10,000 training signals, in seconds, and kept in
    ``root/sparse_coding``.

    Args:
        dataset: a name of the table.
        lam: weight of the l1 norm, ``None`` for that of the table.
        sparsity: probability that a planted coefficient is not zero, ``None`` for that of the table.
        snr: for ``supervised``, signal-to-noise ratio of the signals in dB; ``None`` for no noise.
        condition: for ``supervised``, condition number of the dictionary before its columns are normalised, at least 1;
            ``None`` for that of Gaussians.
        normalization: for ``gaussian``, whether columns are divided by ``||d||`` (``"norm"``) or by ``||d||^2``
            (``"squared_norm"``), as FacNet's published figures very likely were.
        batch_size: signals in a batch.
        steps_per_epoch: training batches in an epoch, over all devices.
        val_size: signals to validate on.
        test_size: signals to test on.
        root: cache folder of learned dictionaries and of MNIST.
        source: for MNIST, folder that holds the raw .gz files, itself or in ``MNIST/raw``. It is only read.
        download: fetch MNIST.
        seed: random seed of the dictionary and of all signals.
        num_workers: processes that draw training batches, 0 for the main one.

    Attributes:
        lam: the weight in use.

    Raises:
        ValueError: if an argument is out of its range or does not go with the data set.

    Example:
        >>> data = SparseCodingDataModule("gaussian", normalization="squared_norm", val_size=5, test_size=5)
        >>> data.dictionary.shape, data.lam  # before setup, to build a network with
        (torch.Size([64, 100]), 0.01)
        >>> data.setup("fit")
        >>> batch = next(iter(data.val_dataloader()))
        >>> excess = data.problem.to(torch.float64).objective(batch.x.double(), batch.code.double()) - batch.optimum
        >>> bool((excess > 0).all())
        True
    """

    def __init__(
        self,
        dataset: DataSet = "digits",
        lam: float | None = None,
        sparsity: float | None = None,
        snr: float | None = None,
        condition: float | None = None,
        normalization: Normalization = "norm",
        batch_size: int = 100,
        steps_per_epoch: int = 100,
        val_size: int = 300,
        test_size: int = 300,
        root: str | Path = "data",
        source: str | Path | None = None,
        download: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if dataset not in _SETTINGS:
            raise ValueError(f"dataset must be one of {[*_SETTINGS]}, got {dataset!r}")
        setting = _SETTINGS[dataset]
        self.lam = setting.lam if lam is None else float(lam)
        if not 0 < self.lam < math.inf:
            raise ValueError(f"lam must be positive and finite, got {lam!r}")
        if sparsity is not None and setting.sparsity is None:
            raise ValueError(f"sparsity={sparsity!r} is for planted codes, leave it out for {dataset!r}")
        self.sparsity = setting.sparsity if sparsity is None else sparsity
        if self.sparsity is not None and not 0 < self.sparsity <= 1:
            raise ValueError(f"sparsity must lie in (0, 1], got {sparsity!r}")
        if dataset != "supervised" and (snr is not None or condition is not None):
            raise ValueError(
                f"snr={snr!r}, condition={condition!r} are for 'supervised', leave them out for {dataset!r}"
            )
        if snr is not None and not math.isfinite(snr):
            raise ValueError(f"snr must be finite, or None for no noise, got {snr!r}")
        if condition is not None and not 1 <= condition < math.inf:
            raise ValueError(f"condition must be finite and at least 1, got {condition!r}")
        if normalization not in ("norm", "squared_norm"):
            raise ValueError(f"normalization must be 'norm' or 'squared_norm', got {normalization!r}")
        if normalization != "norm" and dataset != "gaussian":
            raise ValueError(f"normalization={normalization!r} is for 'gaussian', leave it out for {dataset!r}")
        if not dataset.startswith("mnist") and (source is not None or download):
            raise ValueError(f"source={source!r}, download={download!r} are for MNIST, leave them out for {dataset!r}")
        counts = {"batch_size": batch_size, "steps_per_epoch": steps_per_epoch}
        for name, count in {**counts, "val_size": val_size, "test_size": test_size}.items():
            _require_integer(name, count, least=1)
        _require_integer("num_workers", num_workers, least=0)
        _require_integer("seed", seed, least=0)
        if seed >= 2**32:
            raise ValueError(f"seed must be less than 2**32, got {seed!r}")
        # Plain strings, because checkpoints that hold a Path do not load with weights_only.
        root, source = str(root), None if source is None else str(source)
        self.save_hyperparameters()
        self.dataset = dataset
        self.snr = snr
        self.condition = condition
        self.normalization: Normalization = normalization
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.sizes = {"val": val_size, "test": test_size}
        self.root = Path(root).expanduser()
        self.seed = seed
        self.num_workers = num_workers
        self._files = mnist_files(root, source, download, seed) if dataset.startswith("mnist") else None
        self._batches: dict[str, list[SparseCodingBatch]] = {}

    @cached_property
    def dictionary(self) -> Tensor:
        """D (n, m), float32. Needs no ``setup``; one that is learned is learned or read here.

        Raises:
            CorruptFileError: if the file of a learned dictionary is damaged.
        """
        setting = _SETTINGS[self.dataset]
        generator = stream(self.seed, "dictionary")
        if self.dataset in _LEARNED:
            return self._learned(setting)
        if self.dataset == "adversarial":
            return fourier_dictionary(setting.n, setting.m, generator)
        gaussian = gaussian_dictionary(setting.n, setting.m, generator, self.normalization)
        return gaussian if self.condition is None else conditioned(gaussian, self.condition)

    @property
    def problem(self) -> LassoProblem:
        """The Lasso of the data set, in float32 on the CPU."""
        return LassoProblem(self.dictionary, self.lam)

    def prepare_data(self) -> None:
        """Unpack or download MNIST and learn the dictionary, where they are wanted and not cached yet.

        Raises:
            FileNotFoundError: if MNIST is missing and neither ``source`` nor ``download`` brings it.
            CorruptFileError: if a file is damaged.
        """
        _ = self.dictionary

    def setup(self, stage: str | None = None) -> None:
        """Draw the fixed signals that ``stage`` needs, ``None`` for all, and solve them.

        Raises:
            FileNotFoundError: if MNIST is missing.
            ValueError: if a split has fewer signals than are asked for.
        """
        wanted = {"fit": ["val"], "validate": ["val"], "test": ["test"], "predict": ["test"]}
        for split in wanted.get(stage or "", ["val", "test"]):
            if split not in self._batches:
                self._batches[split] = self._fixed(split)

    def train_dataloader(self) -> DataLoader[SparseCodingBatch]:
        """Batches of signals drawn anew at every step, without optima."""
        dataset = FreshBatches(self._draw("train"), self.batch_size, self.steps_per_epoch, self.seed)
        return self._loader(dataset, FreshSampler.of_trainer(dataset, self.trainer))

    def val_dataloader(self) -> DataLoader[SparseCodingBatch]:
        """Batches of the fixed validation signals, with their optima."""
        return self._loader(_Stored(self._split("val")))

    def test_dataloader(self) -> DataLoader[SparseCodingBatch]:
        """Batches of the fixed test signals, with their optima."""
        return self._loader(_Stored(self._split("test")))

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """Batches x (batch, n) of the test signals alone, which is what ``forward`` takes."""
        return self._loader(_Stored([batch.x for batch in self._split("test")]))

    @cached_property
    def _pools(self) -> dict[str, Tensor]:
        if self._files is None:
            return digit_signals(self.seed)
        self._files.prepare_data()
        signals = small_mnist_signals if self.dataset == "mnist" else mnist_patch_signals
        return signals(self.root, self.seed)

    def _draw(self, split: str) -> Draw:
        if self.dataset in _LEARNED:
            return pooled(self._pools[split])
        if self.sparsity is None:
            return unit_correlation(self.dictionary)
        return planted(self.dictionary, self.sparsity, _SETTINGS[self.dataset].scale, self.snr)

    def _fixed(self, split: str) -> list[SparseCodingBatch]:
        count = self.sizes[split]
        code = None
        if self.dataset in _LEARNED:
            pool = self._pools[split]  # in random order already
            if count > len(pool):
                raise ValueError(f"{split}_size must be at most {len(pool)} for {self.dataset!r}, got {count}")
            x = pool[:count]
        else:
            x, code = self._draw(split)(count, stream(self.seed, split))
        solution, optimum = reference_optimum(self.problem, x)
        return [
            SparseCodingBatch(x[rows], None if code is None else code[rows], solution[rows], optimum[rows])
            for rows in torch.arange(count).split(self.batch_size)
        ]

    def _learned(self, setting: _Setting) -> Tensor:
        path = self.root / "sparse_coding" / f"{self.dataset}-{setting.m}-atoms-seed-{self.seed}.safetensors"
        if not path.is_file():
            signals = self._pools["train"][:_LEARNING_SIGNALS]
            atoms = learned_dictionary(signals, setting.m, setting.lam, _LEARNING_EPOCHS, self.seed)
            write_safetensors(path, {"dictionary": atoms}, header={})
        try:
            return read_safetensors(path)[1]["dictionary"]
        except (SnapshotError, KeyError) as error:
            raise CorruptFileError(f"{path} is damaged ({error}): delete it, and it is learned anew") from error

    def _split(self, name: str) -> list[SparseCodingBatch]:
        if name not in self._batches:
            raise RuntimeError(f"the {name} split is not loaded: call prepare_data() and setup() first")
        return self._batches[name]

    def _loader(self, dataset: Dataset[Any], sampler: FreshSampler | None = None) -> DataLoader[Any]:
        workers = self.num_workers if sampler is not None else 0  # what is fixed lies in memory
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class _Stored(Dataset[Any]):
    """Batches that are there already."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]

    def __len__(self) -> int:
        return len(self.batches)


def _require_integer(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
