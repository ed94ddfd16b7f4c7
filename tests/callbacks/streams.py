"""Data that nobody may read twice, and modules that train on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from tests.callbacks.watched_cases import Classifier, images


class Shards(IterableDataset[Any]):
    """Examples one after another, from a position that only goes on, with noise from a generator of its own."""

    def __init__(self, endless: bool = False) -> None:
        self.inner, self.endless, self.place = images(), endless, 0
        self.generator = torch.Generator().manual_seed(0)

    def __iter__(self) -> Iterator[Any]:
        count = 0
        while self.endless or count < len(self.inner):
            image, label = self.inner[self.place % len(self.inner)]
            self.place, count = self.place + 1, count + 1
            yield image + 0.1 * torch.randn(image.shape, generator=self.generator), label


class Pipeline:
    """No DataLoader and no length: any iterable that yields batches, as DALI's iterators are."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(DataLoader(Shards(), 8))


class Once:
    """Can be iterated a single time."""

    def __init__(self) -> None:
        self.batches = iter([batch for _ in range(3) for batch in DataLoader(images(), 8)])

    def __iter__(self) -> Iterator[Any]:
        return self.batches


class Several(Classifier):
    """Trains on all batches in a list or dict of them, of which some may have come to an end."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        parts = [part for part in (batch.values() if isinstance(batch, dict) else batch) if part is not None]
        self.saw([tensor for part in parts for tensor in part])
        losses = [nn.functional.cross_entropy(self.net(inputs), labels) for inputs, labels in parts]
        self.log("loss", losses[0], on_step=True, on_epoch=True)
        return torch.stack(losses).mean()


def loader(batch_size: int = 8) -> DataLoader[Any]:
    return DataLoader(images(), batch_size, shuffle=True)


STREAMS: dict[str, tuple[type[Classifier], Callable[[], Any]]] = {
    "iterable": (Classifier, lambda: DataLoader(Shards(), 8)),
    "workers": (Classifier, lambda: DataLoader(Shards(), 8, num_workers=1)),
    "pipeline": (Classifier, Pipeline),
    "once": (Classifier, Once),
    "dict": (Several, lambda: {"a": loader(), "b": DataLoader(Shards(), 4)}),
    "list": (Several, lambda: [loader(), loader(4)]),
    "max_size_cycle": (Several, lambda: CombinedLoader({"a": loader(), "b": loader(4)}, "max_size_cycle")),
    "max_size": (Several, lambda: CombinedLoader([loader(), loader(4)], "max_size")),
    "min_size": (Several, lambda: CombinedLoader([loader(), loader(4)], "min_size")),
}
