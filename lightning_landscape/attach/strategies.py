"""Which of Lightning's strategies leave every process the whole weights."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lightning_landscape.either_lightning import MisconfigurationException, both


def require_replicated_weights(trainer: pl.Trainer, callback_name: str) -> None:
    """Refuse a strategy that shards parameters over processes; call it in ``setup``.

    Args:
        trainer: the trainer that the callback is attached to.
        callback_name: name for the message.

    Raises:
        MisconfigurationException: under FSDP, DeepSpeed and ModelParallel, with what to do instead.
    """
    strategy = trainer.strategy
    if any(isinstance(strategy, both(kind)) for kind in (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)):
        raise MisconfigurationException(
            f"{callback_name} needs the whole weights in every process, and {type(strategy).__name__} shards them. "
            "Train without the callback, merge the checkpoints with "
            "`python -m pytorch_lightning.utilities.consolidate_checkpoint FOLDER`, and compare them offline with "
            "lightning_landscape.finders; or train with strategy='ddp' or on one device."
        )
