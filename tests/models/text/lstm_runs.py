"""Small LSTM language models, their batches and their runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_landscape.datamodules import PennTreebankDataModule
from lightning_landscape.datamodules.penn_treebank import FILES
from lightning_landscape.models import LSTMLanguageModel

WORDS = 7
SMALL = {"vocabulary_size": WORDS, "embedding_size": 5, "hidden_size": 5}


def batches(count: int, width: int = 4, streams: int = 2) -> list[tuple[Tensor, Tensor]]:
    """Windows that continue one another."""
    text = torch.randint(WORDS, (streams, count * width + 1), generator=torch.Generator().manual_seed(1))
    return [(text[:, i : i + width], text[:, i + 1 : i + width + 1]) for i in range(0, count * width, width)]


def model(seed: int = 0, spread: float = 10.0, **arguments: Any) -> LSTMLanguageModel:
    """With weights large enough for the state to matter."""
    torch.manual_seed(seed)
    built = LSTMLanguageModel(**SMALL | arguments)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(spread)
    return built


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, targets[..., None]).mean()


def losses(module: LSTMLanguageModel, data: list[tuple[Tensor, Tensor]]) -> list[float]:
    return [module.training_step(batch, index)["loss"].item() for index, batch in enumerate(data)]


@pytest.fixture
def corpus(tmp_path: Path) -> PennTreebankDataModule:
    """Words that a two-word memory predicts: 24 windows of 2 streams by 4."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, _ in FILES.values():
        (folder / name).write_text("a b a c\nb <unk> a c b\n" * 18)
    return PennTreebankDataModule(folder, batch_size=2, bptt=4, verify=False)


def fit(
    module: LSTMLanguageModel, data: pl.LightningDataModule, *callbacks: pl.Callback, ckpt: Any = None, **options: Any
) -> pl.Trainer:
    settings = {"max_epochs": 2, "logger": False, "enable_checkpointing": any(map(is_checkpoint, callbacks))}
    trainer = pl.Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **settings | options,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt)
    return trainer


def is_checkpoint(callback: pl.Callback) -> bool:
    return isinstance(callback, ModelCheckpoint)


def vector(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters()).detach()
