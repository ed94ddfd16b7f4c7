"""Where the problem of an unrolled coder comes from, and the data and arguments that are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_landscape.callbacks import AccelerationCertificate
from lightning_landscape.datamodules import PolynomialDataModule
from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.sparse_coding import (
    SparseCodingBatch,
)
from tests.models.sparse_coding.coder_runs import LAM, Data, M, N, coder, dictionary_of, trainer_in


def test_the_problem_comes_from_the_data_module_and_goes_into_the_checkpoint(tmp_path: Path) -> None:
    module = UnrolledSparseCoder("facnet", 2)
    with pytest.raises(ValueError, match="no problem yet: pass dictionary and lam, or fit it with a data module"):
        module(torch.zeros(1, N))
    keep = ModelCheckpoint(dirpath=tmp_path, filename="end")
    trainer_in(tmp_path, keep, AccelerationCertificate(), max_epochs=1).fit(module, Data())
    assert torch.equal(module.problem.dictionary, dictionary_of())
    assert module.lam == LAM
    assert set(torch.load(tmp_path / "end.ckpt", weights_only=True)["hyper_parameters"]).isdisjoint(
        {"dictionary", "lam"}
    )
    reloaded = UnrolledSparseCoder.load_from_checkpoint(tmp_path / "end.ckpt").eval()
    x = Data().x
    assert torch.equal(reloaded(x), module.eval()(x))
    assert reloaded.lam == LAM
    trainer_in(tmp_path, max_epochs=2).fit(UnrolledSparseCoder("facnet", 2), Data(), ckpt_path=tmp_path / "end.ckpt")
    with pytest.raises(ValueError, match="is not that of the network"):
        trainer_in(tmp_path, max_epochs=2).fit(
            coder("facnet", 2, lam=0.3), Data().batches, Data().batches, ckpt_path=tmp_path / "end.ckpt"
        )


def test_refuses_a_data_module_of_another_problem_or_of_none(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the problem of Data, with lam=0.1 .* is not that of the network, with lam=0.2"
    ):
        trainer_in(tmp_path, max_epochs=1).fit(coder(lam=0.2), Data())
    with pytest.raises(MisconfigurationException, match="PolynomialDataModule has none either: pass both"):
        trainer_in(tmp_path, max_epochs=1).fit(UnrolledSparseCoder(), PolynomialDataModule("cubic"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("work", ["fit", "validate", "predict", "forward"])
def test_refuses_signals_that_are_not_finite(work: str, value: float, tmp_path: Path) -> None:
    x = torch.randn(18, N)
    x[3, 2] = value
    module, trainer = coder(), trainer_in(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    with pytest.raises(ValueError, match="x must be finite, but 1 of its"):
        module(x) if work == "forward" else getattr(trainer, work)(module, datamodule=Data(x))


def test_refuses_signals_and_batches_that_do_not_fit(tmp_path: Path) -> None:
    module = coder()
    for x in (torch.zeros(N), torch.zeros(2, N + 1), torch.zeros(1, 2, N)):
        with pytest.raises(ValueError, match=r"x must have shape \(batch, 8\)"):
            module(x)
        loader = DataLoader([SparseCodingBatch(x)], batch_size=None)
        with pytest.raises(ValueError, match=r"x must have shape \(batch, 8\)"):
            trainer_in(tmp_path, max_epochs=1).fit(module, loader)
    with pytest.raises(ValueError, match=r"x is torch.float64 .* convert one of them"):
        module(torch.zeros(2, N, dtype=torch.float64))
    for batch, got in (
        ([1.0], "got list"),
        ({"signals": torch.zeros(2, N)}, r"got dict with the keys \['signals'\]"),
        ("x", "got str"),
        ([torch.zeros(2, N)] * 5, "got list"),
    ):
        with pytest.raises(ValueError, match=f"a batch must be a SparseCodingBatch, signals x .*{got}"):
            trainer_in(tmp_path, max_epochs=1).fit(module, DataLoader([batch], batch_size=None))
    for wrong in (
        (torch.zeros(2, N), torch.zeros(2)),  # labels are no codes
        {"x": torch.zeros(2, N), "code": torch.zeros(2, 1)},
        {"x": torch.zeros(2, N), "codes": torch.zeros(3, M)},
        {"x": torch.zeros(2, N), "code": 3},
    ):
        with pytest.raises(ValueError, match=rf"code of a batch must be a tensor \(batch, m\) = \(2, {M}\)"):
            module.training_step(wrong, 0)
    with pytest.raises(ValueError, match="has both 'code' and 'codes'"):
        module.training_step({"x": torch.zeros(2, N), "code": None, "codes": None}, 0)
    with pytest.raises(ValueError, match="loss='supervised' needs batches with codes"):
        trainer_in(tmp_path, max_epochs=1).fit(coder(loss="supervised"), Data(codes=False))
    assert module(torch.zeros(0, N)).shape == (0, M)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "lasso"}, "layer must be one of .*'slista'.*, got 'lasso'"),
        ({"depth": 0}, "depth must be an integer of at least 1, got 0"),
        ({"depth": 2.0}, "depth must be an integer"),
        ({"max_iterations": 0}, "max_iterations must be"),
        ({"patience": -1}, "patience must be an integer from 0"),
        ({"loss": "both"}, "loss must be 'unsupervised' or 'supervised', got 'both'"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"decay": 1.0}, r"decay must lie in \(0, 1\)"),
        ({"init_noise": math.inf}, "init_noise must be finite"),
        ({"lam": None}, "dictionary and lam go together"),
        ({"lam": 0.0}, "lam must be positive and finite"),
        ({"lam": -1.0}, "lam must be positive and finite"),
        ({"dictionary": torch.zeros(N, M)}, "columns of zeros, the first is column 0"),
        ({"dictionary": torch.full((N, M), math.nan)}, "dictionary must be finite"),
        ({"dictionary": torch.zeros(N)}, r"dictionary must be a matrix \(n, m\)"),
        (
            {"layer_options": {"mu": 1.0}},
            r"\['mu'\] are no options of 'lista', which has \['growth', 'limit'\]",
        ),
        ({"layer": "facnet_free", "layer_options": {"growth": 1.0}}, r"which has \['mu'\]"),
        ({"layer": "lista_cpss", "layer_options": {"limit": 2.0}}, "limit must lie"),
    ],
)
def test_refuses_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coder(**arguments)
