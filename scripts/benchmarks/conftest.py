"""Models and data that the benchmarks share; real digits, so that the losses are those of a real run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lightning_landscape import LossSurface
from lightning_landscape.datamodules import DigitsDataModule
from lightning_landscape.models import ImageClassifier

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"architecture": "mlp", "image_size": 8},
    "lenet": {"architecture": "lenet", "image_size": 8},
    "lenet-bn": {"architecture": "lenet", "image_size": 8, "batch_norm": True},
}


@pytest.fixture(scope="session")
def digits() -> DigitsDataModule:
    data = DigitsDataModule(batch_size=64)
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture(params=MODELS)
def model_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_model(model_name: str) -> Callable[..., ImageClassifier]:
    return lambda **options: ImageClassifier(**MODELS[model_name], learning_rate=3e-3, **options)


@pytest.fixture
def make_surface(digits: DigitsDataModule) -> Callable[..., LossSurface]:
    def make(module: pl.LightningModule, **options: Any) -> LossSurface:
        torch.manual_seed(0)
        batches = [batch for _, batch in zip(range(8), digits.train_dataloader(), strict=False)]
        return LossSurface(module, batches, training_batches=digits.train_dataloader(), **options)

    return make


def fit(model: pl.LightningModule, data: pl.LightningDataModule, epochs: int, *callbacks: pl.Callback) -> pl.Trainer:
    """A run without bars, loggers and checkpoints: the cost of training alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="auto",
            devices=1,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        )
        trainer.fit(model, datamodule=data)
    return trainer
