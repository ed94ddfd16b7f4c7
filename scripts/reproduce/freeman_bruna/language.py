"""Penn Treebank (script PTBRNN.py): levels of the test perplexity of Zaremba's small LSTM."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import SGD

from lightning_landscape import LossSurface
from lightning_landscape.datamodules import PennTreebankDataModule
from lightning_landscape.models import LSTMLanguageModel
from scripts.reproduce.freeman_bruna.task import Problem, Recipe, Settings, Task

_PROBE = 200  # windows of 20 x 20 words: about the whole test set

Batch = tuple[Tensor, Tensor]


class RandomWindows:
    """The windows of a text in a new order at each pass, from the global generator.

    Args:
        windows: the windows, each a batch.
    """

    def __init__(self, windows: list[Batch]) -> None:
        self._windows = windows

    def __iter__(self) -> Iterator[Batch]:
        return (self._windows[index] for index in torch.randperm(len(self._windows)).tolist())


def _cross_entropy(module: nn.Module, batch: Batch) -> Tensor:
    tokens, targets = batch
    logits, _ = module(tokens)
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _summed_cross_entropy(module: nn.Module, batch: Batch) -> Tensor:
    """Summed over the words of a window, averaged over the streams: what the script's rate and clipping go with."""
    return batch[0].shape[1] * _cross_entropy(module, batch)


def _open(settings: Settings) -> Problem:
    data = PennTreebankDataModule(source=settings.source, batch_size=20, bptt=20)
    data.prepare_data()
    data.setup()
    probe = settings.probe or _PROBE
    train, test = ([*map(data.splits[name].__getitem__, range(len(data.splits[name])))] for name in ("train", "test"))
    network = LSTMLanguageModel()
    training = RandomWindows(train)
    spread = [train[index] for index in range(0, len(train), max(1, len(train) // probe))][:probe]

    def initial() -> Tensor:
        network.reset_parameters()
        return metric.point(dict(network.named_parameters()))

    metric = LossSurface(
        network, test[:probe], _cross_entropy, training, training_loss_fn=_summed_cross_entropy, vectorize=False
    )
    return Problem(initial, metric, LossSurface(network, spread, _cross_entropy, training, vectorize=False))


# Differs from the script: every window starts from the zero state and windows come in random order; the perplexity is
# looked at every 50 steps, where the script looks after each epoch and so stops far below its thresholds.
PTB = Task(
    "ptb",
    "test perplexity",
    recipe=lambda settings: Recipe(
        slack=1.1,
        alpha=0.98,
        split="midpoint",
        grid=20,
        optimizer=lambda points: SGD(points, lr=1.0),
        network_check=50,
        bead_check=50,
        max_steps=10_000,
        clip=5.0,
    ),
    open=_open,
    level=math.log,
    strict_level=lambda threshold: None,
)
