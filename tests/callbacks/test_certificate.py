from __future__ import annotations

import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_landscape.callbacks import AccelerationCertificate
from lightning_landscape.datamodules import SparseCodingDataModule
from lightning_landscape.sparse_coding import (
    LassoProblem,
    SparseCodingBatch,
    facnet_step,
    ista,
    random_design,
    reference_optimum,
    step_bound,
)

N, M, DEPTH = 6, 9, 3


class Factorised(nn.Module):
    """A layer whose A is unitary by construction and whose S is free."""

    def __init__(self, lipschitz: float) -> None:
        super().__init__()
        self.skew = nn.Parameter(torch.zeros(M, M))
        self.S = nn.Parameter(torch.full((M,), lipschitz))

    @property
    def A(self) -> Tensor:
        return torch.matrix_exp(self.skew - self.skew.T)

    def forward(self, problem: LassoProblem, x: Tensor, z: Tensor) -> Tensor:
        rotated = (z - problem.gradient(x, z) @ ((self.A.T / self.S) @ self.A)) @ self.A.T
        return (torch.relu(rotated - problem.lam / self.S) - torch.relu(-rotated - problem.lam / self.S)) @ self.A


class Plain(nn.Module):
    """A layer without a factorisation: an iteration of ISTA with a learned step."""

    def __init__(self, lipschitz: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(1 / lipschitz))

    def forward(self, problem: LassoProblem, x: Tensor, z: Tensor) -> Tensor:
        move = z - self.rate * problem.gradient(x, z)
        return torch.relu(move - self.rate * problem.lam) - torch.relu(-move - self.rate * problem.lam)


class Network(pl.LightningModule):
    """What the callback asks of a module, in the fewest lines."""

    def __init__(self, layer: type[nn.Module] = Factorised, rate: float = 1e-3) -> None:
        super().__init__()
        dictionary = torch.randn(N, M, generator=torch.Generator().manual_seed(0))
        self.problem = LassoProblem(dictionary / dictionary.norm(dim=0), 0.1)
        self.layers = nn.ModuleList(layer(self.problem.lipschitz) for _ in range(DEPTH))
        self.rate = rate

    def iterates(self, x: Tensor) -> list[Tensor]:
        codes = [x.new_zeros(len(x), M)]
        for layer in self.layers:
            codes.append(layer(self.problem, x, codes[-1]))
        return codes

    def training_step(self, batch: SparseCodingBatch, batch_idx: int) -> Tensor:
        loss = self.problem.objective(batch.x, self.iterates(batch.x)[-1]).mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: SparseCodingBatch, batch_idx: int) -> None:
        self.log("val/loss", self.problem.objective(batch.x, self.iterates(batch.x)[-1]).mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.rate)


class Data(pl.LightningDataModule):
    def __init__(self, problem: LassoProblem, solved: bool = True) -> None:
        super().__init__()
        x = torch.randn(20, N, generator=torch.Generator().manual_seed(1))
        solution, optimum = reference_optimum(problem, x)
        known = (None, solution, optimum) if solved else (None, None, None)
        parts = [part.split([8, 8, 4]) if part is not None else [None] * 3 for part in (x, *known)]
        self.batches = [SparseCodingBatch(*fields) for fields in zip(*parts, strict=True)]
        self.x, self.solution = x, solution

    def train_dataloader(self) -> DataLoader[SparseCodingBatch]:
        return DataLoader(self.batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[SparseCodingBatch]:
        return DataLoader(self.batches, batch_size=None)


def quiet_trainer(folder: Path, *callbacks: pl.Callback, **arguments: object) -> pl.Trainer:
    return pl.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), **arguments,
    )  # fmt: skip


def validated(module: Network, folder: Path) -> tuple[dict[str, float], Data]:
    data = Data(module.problem)
    trainer = quiet_trainer(folder, AccelerationCertificate())
    trainer.validate(module, data, verbose=False)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}, data


def test_an_untrained_network_has_the_bounds_of_ista(tmp_path: Path) -> None:
    module = Network()
    values, data = validated(module, tmp_path)
    for k in range(1, DEPTH + 1):
        found = {name.rpartition("/")[2]: value for name, value in values.items() if f"layer_{k}/" in name}
        assert set(found) == {
            "valid", "smallest_eigenvalue", "unitarity_error", "bound", "ista_bound", "suboptimality", "improves"
        }  # fmt: skip
        assert found["valid"] == 1
        assert found["bound"] == pytest.approx(found["ista_bound"], rel=1e-5)
        assert found["improves"] == 0
        reached = module.problem.objective(data.x, ista(module.problem, data.x, k)).mean().item()
        optimum = module.problem.to(torch.float64).objective(data.x.double(), data.solution).mean().item()
        assert found["suboptimality"] == pytest.approx(reached - optimum, abs=1e-5)
        assert found["suboptimality"] <= found["bound"]


def test_values_are_those_of_the_functions(tmp_path: Path) -> None:
    module = Network()
    with torch.no_grad():
        for layer in module.layers:
            layer.skew.copy_(0.02 * torch.randn(M, M))
            layer.S.mul_(1.5)
    values, data = validated(module, tmp_path)
    iterates = module.iterates(data.x)
    condition = random_design(module.problem, iterates, data.solution)
    for k in range(DEPTH + 1):
        assert values[f"certificate/design_holds_{k}"] == pytest.approx(condition.holds[k].double().mean().item())
    assert values["certificate/design_first_failure"] == pytest.approx(condition.first_failure.double().mean().item())
    for k, layer in enumerate(module.layers):
        step = step_bound(module.problem, data.x, iterates[k], data.solution, layer.A, layer.S)
        assert values[f"certificate/layer_{k + 1}/bound"] == pytest.approx(step.bound.mean().item(), rel=1e-5)
        assert torch.allclose(
            iterates[k + 1], facnet_step(module.problem, data.x, iterates[k], layer.A, layer.S), atol=1e-5
        )


def test_a_layer_that_breaks_the_hypotheses_has_no_bound(tmp_path: Path) -> None:
    module = Network()
    with torch.no_grad():
        module.layers[1].S.mul_(0.3)
        module.layers[2].S.fill_(math.nan)
    values, _ = validated(module, tmp_path)
    assert [values[f"certificate/layer_{k}/valid"] for k in (1, 2, 3)] == [1, 0, 0]
    assert values["certificate/layer_2/smallest_eigenvalue"] < 0
    for k in (2, 3):
        for name in ("bound", "ista_bound", "suboptimality", "improves"):
            assert math.isnan(values[f"certificate/layer_{k}/{name}"])


def test_layers_without_a_factorisation_have_the_random_design_alone(tmp_path: Path) -> None:
    values, _ = validated(Network(Plain), tmp_path)
    names = {name for name in values if name.startswith("certificate/")}
    assert names == {f"certificate/design_{what}" for what in ("first_failure", *(f"holds_{k}" for k in range(4)))}


@pytest.mark.parametrize("layer", [Factorised, Plain])
def test_training_stays_bit_identical(layer: type[nn.Module], tmp_path: Path) -> None:
    weights, metrics = [], []
    for callbacks in ((), (AccelerationCertificate(),)):
        torch.manual_seed(0)
        module = Network(layer)
        trainer = quiet_trainer(tmp_path, *callbacks, max_epochs=3)
        trainer.fit(module, Data(module.problem))
        weights.append(torch.cat([parameter.flatten() for parameter in module.parameters()]))
        metrics.append({name: value for name, value in trainer.callback_metrics.items() if "certificate" not in name})
        assert ("certificate/design_holds_0" in trainer.callback_metrics) is bool(callbacks)
    assert torch.equal(*weights)
    assert metrics[0] == metrics[1]


def test_works_on_the_batches_of_the_data_module(tmp_path: Path) -> None:
    data = SparseCodingDataModule("gaussian", batch_size=4, steps_per_epoch=2, val_size=6, test_size=2)

    class Zero(Network):
        def __init__(self) -> None:
            super().__init__(Plain)
            self.problem = data.problem

        def iterates(self, x: Tensor) -> list[Tensor]:
            return [self.layers[0].rate * 0 + x.new_zeros(len(x), 100)]

    trainer = quiet_trainer(tmp_path, AccelerationCertificate(), max_epochs=2)
    trainer.fit(Zero(), data)
    assert trainer.callback_metrics["certificate/design_holds_0"] == 1


def test_refuses_a_module_that_is_no_sparse_coder(tmp_path: Path) -> None:
    class Other(pl.LightningModule):
        def validation_step(self, batch: Tensor, batch_idx: int) -> None: ...

    with pytest.raises(MisconfigurationException, match="Other has no dictionary, lam, iterates, layers: see"):
        quiet_trainer(tmp_path, AccelerationCertificate()).validate(Other(), [torch.zeros(1)], verbose=False)


def test_refuses_batches_without_solutions(tmp_path: Path) -> None:
    module = Network()
    with pytest.raises(
        MisconfigurationException, match="compares with minimisers, which these validation batches lack"
    ):
        quiet_trainer(tmp_path, AccelerationCertificate(), max_epochs=1).fit(module, Data(module.problem, solved=False))
