"""What the callbacks of one trainer share."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import pytorch_lightning as pl

from lightning_landscape.storage.snapshots import SharedWeights

_OF_TRAINERS: WeakKeyDictionary[pl.Trainer, SharedWeights] = WeakKeyDictionary()


def shared_weights(trainer: pl.Trainer) -> SharedWeights:
    """The files of weights that all callbacks of the trainer have written, so that each is written once."""
    return _OF_TRAINERS.setdefault(trainer, SharedWeights())
