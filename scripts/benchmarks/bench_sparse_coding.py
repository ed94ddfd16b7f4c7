"""Inference with LISTA against as many iterations of FISTA as reach the same mean F.

The problem is that of configs/lista.yaml. The network has 7 layers, after a tenth of the recipe's training.
"""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from lightning_landscape.datamodules import SparseCodingDataModule
from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.sparse_coding import cost_curve, fista, fista_iterates

SIGNALS = 10_000


@pytest.fixture(scope="module")
def lista(tmp_path_factory: pytest.TempPathFactory) -> tuple[UnrolledSparseCoder, Tensor, Tensor]:
    """A trained network, signals, and their F*."""
    pl.seed_everything(0, verbose=False)
    data = SparseCodingDataModule("gaussian", normalization="squared_norm", val_size=SIGNALS)
    network = UnrolledSparseCoder("lista", depth=7, learning_rate=3e-3)
    pl.Trainer(
        max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        num_sanity_val_steps=0, limit_val_batches=1, default_root_dir=tmp_path_factory.mktemp("lista"),
    ).fit(network, data)  # fmt: skip
    batches = [*data.val_dataloader()]
    return network.eval(), *(torch.cat([getattr(batch, name) for batch in batches]) for name in ("x", "optimum"))


@pytest.mark.parametrize("name", ["lista", "fista"])
@torch.no_grad()
def test_inference(benchmark: BenchmarkFixture, lista: tuple[UnrolledSparseCoder, Tensor, Tensor], name: str) -> None:
    network, x, optima = lista
    problem, precise = network.problem, network.problem.to(torch.float64)
    reached = precise.objective(x.double(), network(x).double()).mean()
    iterations = int((cost_curve(problem, x, fista_iterates, 100).mean(dim=0) > reached).sum())
    codes = benchmark(network if name == "lista" else lambda x: fista(problem, x, iterations), x)
    benchmark.extra_info["layers or iterations"] = len(network.layers) if name == "lista" else iterations
    benchmark.extra_info["signals"] = len(x)
    benchmark.extra_info["mean F - F*"] = (precise.objective(x.double(), codes.double()) - optima).mean().item()
