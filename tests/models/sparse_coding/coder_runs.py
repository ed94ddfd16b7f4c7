"""Small unrolled coders, the data of their problem and their runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.sparse_coding import (
    LassoProblem,
    SparseCodingBatch,
    reference_optimum,
)
from lightning_landscape.sparse_coding.dictionaries import gaussian_dictionary
from lightning_landscape.sparse_coding.layers import LAYERS

N, M, LAM = 8, 12, 0.1
PLAIN = [name for name in LAYERS if name not in ("alista", "lista_cpss")]


def dictionary_of(dtype: torch.dtype = torch.float32) -> Tensor:
    return gaussian_dictionary(N, M, torch.Generator().manual_seed(0)).to(dtype)


def coder(layer: Any = "lista", depth: int = 3, **arguments: Any) -> UnrolledSparseCoder:
    return UnrolledSparseCoder(
        layer, depth, **{"dictionary": dictionary_of(), "lam": LAM, "max_iterations": 30, **arguments}
    )


class Data(pl.LightningDataModule):
    """Small batches, a few of them; ``x`` replaces the signals."""

    def __init__(self, x: Tensor | None = None, codes: bool = True, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dictionary, self.lam = dictionary_of(dtype), LAM
        generator = torch.Generator().manual_seed(1)
        code = torch.randn(18, M, generator=generator) * (torch.rand(18, M, generator=generator) < 0.3)
        x = (code.to(dtype) @ self.dictionary.T) if x is None else x
        self.x, self.code = x, code.to(dtype)
        solved = reference_optimum(LassoProblem(self.dictionary, LAM), x) if x.isfinite().all() else (None, None)
        parts = [x, self.code if codes else None, *solved]
        split = [[None] * 3 if part is None else part.split([8, 8, 2]) for part in parts]
        self.batches = [SparseCodingBatch(*fields) for fields in zip(*split, strict=True)]
        self.optimum = solved[1]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)

    val_dataloader = test_dataloader = train_dataloader

    def predict_dataloader(self) -> DataLoader[Any]:
        return DataLoader([batch.x for batch in self.batches], batch_size=None)


def trainer_in(folder: Path, *callbacks: pl.Callback, **arguments: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": any(
        isinstance(callback, ModelCheckpoint) for callback in callbacks)}  # fmt: skip
    return pl.Trainer(
        accelerator="cpu", logger=False, default_root_dir=folder, callbacks=[*callbacks], **quiet, **arguments
    )


def trained(folder: Path, layer: Any = "lista", depth: int = 3, **arguments: Any) -> UnrolledSparseCoder:
    """A coder away from its start."""
    module = coder(layer, depth, learning_rate=0.02, **arguments)
    trainer_in(folder, max_epochs=2).fit(module, Data())
    return module
