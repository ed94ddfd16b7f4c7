"""Every form of a batch feeds the coder: the same numbers, and metrics where their codes are given."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks import AccelerationCertificate, LevelSetConnectivity, MergeTree
from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.sparse_coding import SparseCodingBatch
from lightning_landscape.surface import LossSurface
from tests.models.sparse_coding.coder_runs import Data, N, coder, trainer_in

SIGNALS: dict[str, Callable[[SparseCodingBatch], Any]] = {
    "tensor": lambda batch: batch.x,
    "tuple": lambda batch: (batch.x,),
    "list": lambda batch: [batch.x],
    "dict": lambda batch: {"x": batch.x, "index": 3},
    "unknown codes": lambda batch: {"x": batch.x, "code": None},
}
WITH_CODES: dict[str, Callable[[SparseCodingBatch], Any]] = {
    "pair": lambda batch: (batch.x, batch.code),
    "codes": lambda batch: {"x": batch.x, "codes": batch.code},
    "code": lambda batch: {"code": batch.code, "x": batch.x},
    "object": lambda batch: types.SimpleNamespace(x=batch.x, code=batch.code),
}
WHOLE: dict[str, Callable[[SparseCodingBatch], Any]] = {
    "tuple": tuple,
    "dict": lambda batch: batch._asdict(),
    "batch": lambda batch: batch,
}


def everywhere(module: UnrolledSparseCoder, batches: list[Any], folder: Path, *callbacks: Any) -> dict[str, Any]:
    """Numbers of a fit, a validation, a test and a prediction."""
    loader = DataLoader(batches, batch_size=None)
    trainer = trainer_in(folder, *callbacks, max_epochs=2)
    trainer.fit(module, loader, loader)
    found = {name: float(value) for name, value in trainer.callback_metrics.items() if "seconds" not in name}
    found |= trainer.validate(module, loader, verbose=False)[0]
    found |= trainer.test(module, loader, verbose=False)[0]
    return found | {"codes": torch.cat(trainer.predict(module, loader))}


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    pairs = [(left[name], right[name]) for name in left.keys() & right.keys()]
    return left.keys() == right.keys() and all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def run(make: Callable[[SparseCodingBatch], Any], folder: Path, **arguments: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    return everywhere(coder(**arguments), [make(batch) for batch in Data().batches], folder)


@pytest.mark.parametrize("form", SIGNALS)
def test_signals_alone(form: str, tmp_path: Path) -> None:
    found = run(SIGNALS[form], tmp_path)
    assert same(found, run(lambda batch: SparseCodingBatch(batch.x), tmp_path))
    assert "test/ista_iterations" in found
    assert not {"test/nmse", "test/support_recall", "test/suboptimality", "val/suboptimality_1"} & set(found)


@pytest.mark.parametrize("form", WITH_CODES)
def test_signals_with_their_codes(form: str, tmp_path: Path) -> None:
    found = run(WITH_CODES[form], tmp_path, loss="supervised")
    assert same(found, run(lambda batch: SparseCodingBatch(batch.x, batch.code), tmp_path, loss="supervised"))
    assert {"test/nmse", "test/support_recall"} <= set(found)
    assert "test/suboptimality" not in found


@pytest.mark.parametrize("form", WHOLE)
def test_all_that_is_known(form: str, tmp_path: Path) -> None:
    found = run(WHOLE[form], tmp_path)
    assert {"test/nmse", "test/suboptimality", "val/suboptimality_1"} <= set(found)
    assert same(found, run(lambda batch: batch, tmp_path))


@pytest.mark.parametrize("form", SIGNALS)
def test_supervision_asks_for_codes(form: str) -> None:
    with pytest.raises(ValueError, match="loss='supervised' needs batches with codes"):
        coder(loss="supervised").training_step(SIGNALS[form](Data().batches[0]), 0)


@pytest.mark.parametrize("form", [*SIGNALS.values(), *WITH_CODES.values()])
def test_the_loss_surface_is_the_same(form: Callable[[SparseCodingBatch], Any]) -> None:
    module, batches = coder(), Data().batches
    surface = LossSurface(module, [form(batch) for batch in batches])
    expected = LossSurface(module, batches)
    assert surface.loss(surface.point()) == pytest.approx(expected.loss(expected.point()), rel=1e-6)


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_callbacks_check_and_leave_training_as_it_is(form: str, tmp_path: Path) -> None:
    data = TensorDataset(Data().x)
    if form != "tuple":
        data = [SIGNALS[form](SparseCodingBatch(x)) for x in Data().x]  # type: ignore[assignment]
    weights = []
    for callbacks in ([], [LevelSetConnectivity(on_error="raise"), MergeTree(on_error="raise")]):
        torch.manual_seed(0)
        module, loader = coder(init_noise=0.1), DataLoader(data, 6, shuffle=True)
        trainer = trainer_in(tmp_path, *callbacks, max_epochs=3)
        trainer.fit(module, loader, loader)
        weights.append([parameter.detach() for parameter in module.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))
    assert trainer.callback_metrics["landscape/height"].isfinite()


def test_the_certificate_reads_a_mapping(tmp_path: Path) -> None:
    data = Data()
    found = everywhere(
        coder("facnet"), [batch._asdict() for batch in data.batches], tmp_path, AccelerationCertificate()
    )
    expected = everywhere(coder("facnet"), data.batches, tmp_path, AccelerationCertificate())
    assert any(name.startswith("certificate/") for name in found)
    assert {name for name in found if name.startswith("certificate/")} == {n for n in expected if n.startswith("cert")}


def test_one_signal_is_no_batch() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 8\)"):
        coder().validation_step(torch.zeros(N), 0)
