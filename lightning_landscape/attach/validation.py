"""What a module says of its weights by its own validation, in a trainer started for that alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from lightning_landscape.attach.probe import UnreadableTwice, private_copy
from lightning_landscape.either_lightning import alike, both
from lightning_landscape.surface.detached import detached_copy
from lightning_landscape.surface.random_states import isolated_rng

_TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def can_validate(model: pl.LightningModule, data: Any) -> bool:
    """Whether there are a ``validation_step`` and validation data.

    Args:
        model: the module.
        data: its LightningDataModule; anything else is training data, beside which the module may bring others.
    """
    kind = alike(pl.LightningModule, model)
    if not is_overridden("validation_step", model, kind):
        return False
    if isinstance(data, both(pl.LightningDataModule)):
        return any(is_overridden("val_dataloader", data, parent) for parent in both(pl.LightningDataModule))
    return is_overridden("val_dataloader", model, kind)


def validated(
    model: pl.LightningModule,
    state: Mapping[str, Any],
    data: Any,
    device: torch.device,
    seed: int,
    loaders: Any = None,
    **options: Any,
) -> dict[str, float]:
    """The metrics that the module logs in a whole validation with the weights ``state``.

    Args:
        model: the module, into which the state is loaded; no trainer may be at work with it.
        state: tensors by the module's names.
        data: see :func:`can_validate`.
        device: where to compute.
        seed: of whatever the validation draws at random, so that each state meets the same numbers.
        loaders: validation data in place of those of ``data`` and of the module.
        **options: of the trainer that validates.
    """
    model.load_state_dict(dict(state), strict=False)
    trainer = alike(pl.Trainer, model)(
        strategy=alike(SingleDeviceStrategy, model)(device),
        accelerator="cuda" if device.type == "cuda" else device.type,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    own = data if isinstance(data, both(pl.LightningDataModule)) else None
    with isolated_rng(seed):
        measured = trainer.validate(model, dataloaders=loaders, verbose=False, datamodule=own)
    return {name: float(value) for loader in measured for name, value in loader.items()}


def validated_beside(
    trainer: pl.Trainer, module: pl.LightningModule, state: Mapping[str, Any], seed: int
) -> dict[str, float]:
    """The same for weights of a run that is not over: its module, data and random states stay as they are.

    A copy of the module validates on private copies of the run's validation data, in this process alone. Under
    ``DistributedSampler`` these are the data of all ranks.

    Args:
        trainer: the trainer of the run.
        module: what trains.
        state: tensors by the module's names.
        seed: see :func:`validated`.

    Returns:
        The metrics; none where the run does not validate.

    Raises:
        UnreadableTwice: for validation data that are no DataLoader, or cannot be copied.
    """
    if not trainer.val_dataloaders or not trainer.limit_val_batches:
        return {}
    with isolated_rng(seed):
        loaders = tree_map(lambda loader: _private(loader, trainer), trainer.val_dataloaders)
    clone = cast(pl.LightningModule, detached_copy(module))
    for child in clone.modules():
        for silenced in ("log", "log_dict", "print"):
            vars(child).pop(silenced, None)
    vars(clone)["configure_callbacks"] = list
    data = trainer.datamodule  # type: ignore[attr-defined]  # declared nowhere by Lightning
    for hook in _TRANSFER_HOOKS:
        if data is not None and any(is_overridden(hook, data, kind) for kind in both(pl.LightningDataModule)):
            vars(clone)[hook] = getattr(data, hook)
    limits: dict[str, Any] = {"limit_val_batches": trainer.limit_val_batches, "precision": trainer.precision}
    return validated(clone, state, None, module.device, seed, loaders, **limits)


def _private(loader: Any, trainer: pl.Trainer) -> DataLoader[Any]:
    if not isinstance(loader, DataLoader):
        raise UnreadableTwice(f"validation data come from {type(loader).__name__}, not from a DataLoader")
    source: tuple[Any, Any, Any] = (loader.dataset, loader.batch_sampler, loader.collate_fn)
    dataset, batches, collate = private_copy(source, trainer)
    if batches is None or isinstance(dataset, IterableDataset):
        return DataLoader(dataset, loader.batch_size, collate_fn=collate, drop_last=loader.drop_last)
    if isinstance(getattr(batches, "sampler", None), DistributedSampler):
        return DataLoader(dataset, batches.batch_size, collate_fn=collate, drop_last=batches.drop_last)
    return DataLoader(dataset, batch_sampler=batches, collate_fn=collate)
