"""What theory grants each layer of a sparse coding network, followed while the network trains."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from lightning_landscape.sparse_coding.certificate import check_factorization, random_design, step_bound
from lightning_landscape.sparse_coding.problem import LassoProblem

_NAME = "certificate"
_BOUNDS = ("bound", "ista_bound", "suboptimality", "improves")


class AccelerationCertificate(Callback):
    """Logs, after every validation, both conditions of Moreau & Bruna (2017) on the validation signals.

    The random-design condition, for any network: ``certificate/design_holds_<k>``, the share of signals for which it
    holds at iterate z_k, and ``certificate/design_first_failure``, the mean of the first k where it fails.

    The bound, for each layer with a factorisation ``(A, S)``, k from 1, all under ``certificate/layer_<k>/``:
    ``valid``, 1 where its hypotheses hold, else 0; ``smallest_eigenvalue`` of R; ``unitarity_error`` of A; and, NaN
    where they do not hold, the means of ``bound``, of ``ista_bound`` and of ``suboptimality`` after the layer's step,
    with ``improves``, the share of signals whose bound is below that of ISTA.

    See :mod:`lightning_landscape.sparse_coding.certificate` for what neither claims. Validation batches are read as
    they pass, and training is left bit-identical.

    The module exposes ``problem`` with ``dictionary`` (n, m) and ``lam`` (or has the two itself), ``iterates(x)``,
    which returns z_0, ..., z_K of signals x, and ``layers``, of which a factorised one has ``A`` (m, m) and ``S``
    (m,). Validation batches have ``x`` and ``solution``, as those of ``SparseCodingDataModule``.

    Raises:
        MisconfigurationException: in ``setup``, for a module without these; in validation, for a batch without.

    Example:
        >>> trainer = pl.Trainer(callbacks=[AccelerationCertificate()], logger=False, enable_checkpointing=False)
    """

    def __init__(self) -> None:
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse modules that are no layer-wise sparse coders."""
        missing = []
        if not hasattr(type(pl_module), "problem"):  # a property may ask for configure_model, which comes later
            source = getattr(pl_module, "problem", pl_module)
            missing = [name for name in ("dictionary", "lam") if not hasattr(source, name)]
        missing += [name for name in ("iterates", "layers") if not hasattr(pl_module, name)]
        if missing:
            raise MisconfigurationException(
                f"{type(self).__name__} needs a sparse coding network, but {type(pl_module).__name__} has no "
                f"{', '.join(missing)}: see lightning_landscape.models.UnrolledSparseCoder"
            )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start with no signals."""
        self._seen = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the signals and their iterates."""
        if trainer.sanity_checking:
            return
        x, solution = getattr(batch, "x", None), getattr(batch, "solution", None)
        if x is None or solution is None:
            raise MisconfigurationException(
                f"{type(self).__name__} compares with minimisers, which these validation batches lack: yield "
                "SparseCodingBatch(x, solution=reference_optimum(problem, x)[0]), as SparseCodingDataModule does"
            )
        with torch.no_grad():
            iterates = torch.stack(pl_module.iterates(x))  # type: ignore[operator]
        self._seen.append((x, solution, iterates))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate and log."""
        if not self._seen:
            return
        x, solution = (torch.cat([seen[part] for seen in self._seen]) for part in (0, 1))
        iterates = torch.cat([seen[2] for seen in self._seen], dim=1)
        self._seen = []
        source: Any = getattr(pl_module, "problem", pl_module)
        problem = LassoProblem(source.dictionary, float(source.lam))
        values = _design_values(problem, list(iterates), solution)
        for number, layer in enumerate(pl_module.layers):  # type: ignore[arg-type]
            A, S = getattr(layer, "A", None), getattr(layer, "S", None)
            if isinstance(A, Tensor) and isinstance(S, Tensor):
                found = _layer_values(problem, x, iterates[number], solution, A.detach(), S.detach())
                values |= {f"layer_{number + 1}/{key}": value for key, value in found.items()}
        pl_module.log_dict({f"{_NAME}/{key}": value for key, value in values.items()}, sync_dist=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Free the signals; after an error Lightning calls no teardown."""
        self._seen = []


def _design_values(problem: LassoProblem, iterates: list[Tensor], solution: Tensor) -> dict[str, float]:
    condition = random_design(problem, iterates, solution)
    shares = condition.holds.double().mean(dim=1).tolist()
    return {f"design_holds_{k}": share for k, share in enumerate(shares)} | {
        "design_first_failure": condition.first_failure.double().mean().item()
    }


def _layer_values(
    problem: LassoProblem, x: Tensor, z: Tensor, solution: Tensor, A: Tensor, S: Tensor
) -> dict[str, float]:
    values = dict.fromkeys(("valid", "smallest_eigenvalue", "unitarity_error", *_BOUNDS), math.nan)
    if not bool(A.isfinite().all() and S.isfinite().all()):  # training diverged, which is not this callback's to end
        return values | {"valid": 0.0}
    factorization = check_factorization(problem, A, S)
    values["valid"] = float(factorization.valid)
    values["smallest_eigenvalue"] = factorization.smallest_eigenvalue
    values["unitarity_error"] = factorization.unitarity_error
    if factorization.valid:
        step = step_bound(problem, x, z, solution, A, S)
        for name in _BOUNDS:
            values[name] = getattr(step, name).double().mean().item()
    return values
