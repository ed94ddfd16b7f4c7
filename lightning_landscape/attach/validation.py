"""What a module says of its weights by its own validation, in a trainer started for that alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden

from lightning_landscape.either_lightning import alike, both
from lightning_landscape.surface.random_states import isolated_rng


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
    model: pl.LightningModule, state: Mapping[str, Any], data: Any, device: torch.device, seed: int
) -> dict[str, float]:
    """The metrics that the module logs in a whole validation with the weights ``state``.

    Args:
        model: the module, into which the state is loaded; no trainer may be at work with it.
        state: tensors by the module's names.
        data: see :func:`can_validate`.
        device: where to compute.
        seed: of whatever the validation draws at random, so that each state meets the same numbers.
    """
    model.load_state_dict(dict(state), strict=False)
    trainer = alike(pl.Trainer, model)(
        strategy=alike(SingleDeviceStrategy, model)(device),
        accelerator="cuda" if device.type == "cuda" else device.type,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    own = data if isinstance(data, both(pl.LightningDataModule)) else None
    with isolated_rng(seed):
        measured = trainer.validate(model, verbose=False, datamodule=own)
    return {name: float(value) for loader in measured for name, value in loader.items()}
