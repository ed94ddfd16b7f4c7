"""What theory grants each layer of a sparse coding network, followed while the network trains."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_landscape.callbacks.base import LandscapeCallback
from lightning_landscape.either_lightning import MisconfigurationException
from lightning_landscape.sparse_coding.batch import sparse_coding_batch
from lightning_landscape.sparse_coding.certificate import check_factorization, random_design, step_bound
from lightning_landscape.sparse_coding.problem import LassoProblem

_BOUNDS = ("bound", "ista_bound", "suboptimality", "improves")


class AccelerationCertificate(LandscapeCallback):
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
    (m,). Validation batches have ``x`` and ``solution``, as those of ``SparseCodingDataModule``, or as
    :func:`~lightning_landscape.sparse_coding.sparse_coding_batch` reads them.

    Args:
        name: sets apart several of these callbacks in one trainer: the numbers are under ``certificate/<name>/``.

    Raises:
        MisconfigurationException: in ``setup``, for a module without these; in validation, for a batch without.

    Example:
        >>> trainer = pl.Trainer(callbacks=[AccelerationCertificate()], logger=False, enable_checkpointing=False)
    """

    place: ClassVar[str] = "certificate"
    files: ClassVar[Literal["own", "shared", "none"]] = "none"

    _seen: list[tuple[Tensor, Tensor, Tensor]]  # signals, minimisers and iterates of this validation

    def __init__(self, name: str | None = None) -> None:
        # An error ends every rank: with a warning on one, the others would wait for the numbers that it logs.
        super().__init__(None, name, on_error="raise")

    @property
    def state_key(self) -> str:
        """Names this callback among those of a trainer."""
        return self._generate_state_key(name=self.name)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuses modules that are no layer-wise sparse coders, before a validation without a fit too."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            self.refuse(trainer, pl_module)

    def forget(self) -> None:
        """No signals."""
        self._seen = []

    def release(self) -> None:
        """Frees the signals."""
        self._seen = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing begins with training: validations are looked at, each for itself."""

    def refuse(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
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
        x, _, solution, _ = sparse_coding_batch(batch)
        if solution is None:
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
        seen, self._seen = self._seen, []
        x, solution = (torch.cat([part[number] for part in seen]) for number in (0, 1))
        iterates = torch.cat([part[2] for part in seen], dim=1)
        source: Any = getattr(pl_module, "problem", pl_module)
        problem = LassoProblem(source.dictionary, float(source.lam))
        values = _design_values(problem, list(iterates), solution)
        for number, layer in enumerate(pl_module.layers):  # type: ignore[arg-type]
            A, S = getattr(layer, "A", None), getattr(layer, "S", None)
            if isinstance(A, Tensor) and isinstance(S, Tensor):
                found = _layer_values(problem, x, iterates[number], solution, A.detach(), S.detach())
                values |= {f"layer_{number + 1}/{key}": value for key, value in found.items()}
        pl_module.log_dict({f"{self._prefix}/{key}": value for key, value in values.items()}, sync_dist=True)


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
