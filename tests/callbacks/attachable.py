"""Forty kinds of modules and runs that people attach to, each with what is to be expected."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import BackboneFinetuning, GradientAccumulationScheduler, StochasticWeightAveraging
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, rnn, spectral_norm, weight_norm
from torch.utils.data import DataLoader, SubsetRandomSampler

from tests.callbacks.foreign_modules import (
    GAN,
    VAE,
    Annealed,
    Autoencoder,
    Base,
    Classifier,
    DictBatches,
    DictExamples,
    Examples,
    FineTuned,
    KeepsLosses,
    LanguageModel,
    NodeClassifier,
    Plain,
    Stream,
    Tokens,
    Transformer,
    WithHyperparameters,
    examples,
    gan_loss,
    graph_loader,
    loader,
)
from tests.callbacks.odd_modules import Doubles, Halving, Nested, Scaled, Taught
from tests.cases.running import Codebook, MovingAverage, Welford


class Wrapped(Base):
    """Any network as a classifier of the examples."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.net = make()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])


def wrapped(make: Callable[[], nn.Module]) -> Callable[[], LightningModule]:
    return lambda: Wrapped(make)


def two_layers(wrap: Callable[[nn.Module], Any] = lambda layer: layer, *middle: nn.Module) -> nn.Module:
    return nn.Sequential(wrap(nn.Linear(4, 8)), *middle, nn.Tanh(), nn.Linear(8, 2))


def pruned() -> nn.Module:
    net = two_layers()
    torch.manual_seed(0)  # one mask for all
    prune.random_unstructured(net[0], "weight", 0.5)
    return net


class TwoNames(Base):
    """One submodule under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 8)
        self.net = nn.Sequential(self.backbone, nn.Tanh(), nn.Linear(8, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1]) + 0.01 * self.backbone.weight.square().sum()


class SparseEmbedding(Base):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6, sparse=True)
        self.head = nn.Linear(6, 11)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.head(self.embedding(batch[:, :-1])).flatten(0, 1), batch[:, 1:].flatten())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class DefaultDtype(Plain):
    """A step that makes a tensor of the default dtype, as under precision="64-true"."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        mixing = torch.eye(2)
        return F.cross_entropy(self.layer(batch[0]) @ mixing, batch[1])


class Observed(Plain):
    """Observers whose buffers a forward pass resizes, as those of quantisation-aware training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(0))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        lowest = batch[0].amin(0)
        self.low = lowest if self.low.numel() == 0 else torch.minimum(self.low, lowest)
        return super().training_step(batch, batch_idx)


class KeepsInDeque(Plain):
    """Losses with their graphs in a deque and an object."""

    def __init__(self) -> None:
        super().__init__()
        self.recent: deque[Tensor] = deque(maxlen=3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.recent.append(loss)
        return loss


class Diffusion(Base):
    """Noise and times are drawn in the step."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 16), nn.SiLU(), nn.Linear(16, 4))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        noise, time = torch.randn_like(batch[0]), torch.rand(len(batch[0]), 1)
        mixed = (1 - time).sqrt() * batch[0] + time.sqrt() * noise
        return F.mse_loss(self.net(torch.cat([mixed, time], 1)), noise)


class RandomViews(Base):
    """Two random views of each example are pulled together."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        views = [F.normalize(self.encoder(batch[0] + 0.1 * torch.randn_like(batch[0])), dim=1) for _ in range(2)]
        return F.cross_entropy(views[0] @ views[1].T / 0.2, torch.arange(len(batch[0])))


class FunctionalDropout(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.layer(F.dropout(batch[0], 0.3)), batch[1])


class Packed(Base):
    """Sequences of several lengths, packed."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        lengths = 1 + torch.arange(len(batch[0])) % 4
        packed = rnn.pack_padded_sequence(batch[0][..., None], lengths, batch_first=True, enforce_sorted=False)
        return F.cross_entropy(self.head(self.lstm(packed)[1][0][-1]), batch[1])


class SeveralLoaders(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch["a"], batch_idx) + super().training_step(batch["b"], batch_idx)


class LBFGS(Plain):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1)


class Pipeline:
    """An iterable that is no DataLoader, as DALI's."""

    def __iter__(self) -> Any:
        return iter(DataLoader(examples(), batch_size=16))


class InList(Base):
    """Parameters that are reached through a plain list, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.all = [self.layer.weight]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.layer(batch[0]), batch[1]) + 0.01 * sum(w.square().sum() for w in self.all)


@dataclass
class Kind:
    """A module and its run.

    Attributes:
        module: makes the module.
        data: makes what ``fit`` takes.
        options: arguments of LevelSetConnectivity.
        trainer: arguments of the Trainer.
        beside: makes further callbacks.
        refused: the message, where the run is refused at its start.
        no_twin: the message, where a twin of it is refused at the start.
    """

    module: Callable[[], LightningModule]
    data: Callable[[], Any] = loader
    options: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    beside: Callable[[], list[Any]] = list
    refused: str | None = None
    no_twin: str | None = None


def tokens() -> DataLoader[Any]:
    return DataLoader(Tokens(), batch_size=8, shuffle=True)


KINDS = {
    "classifier with dropout, batch norm, metrics, a scheduler": Kind(Classifier),
    "autoencoder, a step without batch_idx": Kind(Autoencoder),
    "LSTM language model with tied weights": Kind(LanguageModel, tokens),
    "transformer": Kind(Transformer, tokens),
    "graph network (PyG)": Kind(NodeClassifier, graph_loader),
    "packed sequences": Kind(Packed),
    "batches that are dicts with strings": Kind(DictBatches, lambda: DataLoader(DictExamples(), batch_size=16)),
    "DataModule, configure_model, transfer hooks": Kind(WithHyperparameters, Examples),
    "frozen backbone": Kind(FineTuned),
    "loss that depends on the epoch": Kind(Annealed),
    "instance norm with running statistics": Kind(
        wrapped(
            lambda: two_layers(
                lambda layer: nn.Sequential(
                    layer, nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten()
                )
            )
        )
    ),
    "spectral norm": Kind(wrapped(lambda: two_layers(parametrizations.spectral_norm))),
    "spectral norm by hooks": Kind(wrapped(lambda: two_layers(spectral_norm))),
    "weight norm": Kind(wrapped(lambda: two_layers(parametrizations.weight_norm))),
    "weight norm by hooks": Kind(wrapped(lambda: two_layers(weight_norm))),
    "pruning masks": Kind(wrapped(pruned)),
    "running normaliser of the inputs": Kind(wrapped(lambda: nn.Sequential(MovingAverage(4), two_layers()))),
    "running normaliser over all that was seen": Kind(wrapped(lambda: nn.Sequential(Welford(4), two_layers()))),
    "codebook of moving averages, shared by buffers=": Kind(
        wrapped(lambda: two_layers(lambda layer: layer, Codebook(8))), options={"buffers": ["*codes"]}
    ),
    "codebook of moving averages": Kind(
        wrapped(lambda: two_layers(lambda layer: nn.Sequential(layer, nn.Tanh()), Codebook(8))),
        refused=r"buffers=\['net.1.codes'\]",
    ),
    "weights that a teacher averages, shared by buffers=": Kind(Taught, options={"buffers": ["teacher.*"]}),
    "running scale that is no buffer": Kind(Scaled, refused="register_buffer"),
    "variational autoencoder": Kind(VAE),
    "diffusion": Kind(Diffusion),
    "random views drawn in the step": Kind(RandomViews),
    "functional dropout": Kind(FunctionalDropout),
    "noise that is to be refused": Kind(VAE, options={"noise": "refuse"}, refused=r"noise='frozen'"),
    "GAN with manual optimisation and loss_fn=": Kind(GAN, options={"loss_fn": gan_loss}, no_twin="another pairing"),
    "GAN without loss_fn=": Kind(GAN, refused="optimises manually"),
    "one submodule under two names": Kind(TwoNames),
    "sparse embedding": Kind(SparseEmbedding, tokens),
    "parameters in a plain list, too": Kind(InList),
    "precision 64-true": Kind(DefaultDtype, trainer={"precision": "64-true"}),
    "precision bf16-true": Kind(Plain, trainer={"precision": "bf16-true"}),
    "parameters of 64 bits under 32-true": Kind(Doubles),
    "precision bf16-mixed": Kind(Plain, trainer={"precision": "bf16-mixed"}),
    "buffers that a forward pass resizes": Kind(Observed),
    "step that changes its batch": Kind(Halving),
    "losses kept in a list": Kind(KeepsLosses),
    "losses kept in a deque": Kind(KeepsInDeque),
    "iterable data set": Kind(Plain, lambda: DataLoader(Stream(), batch_size=16)),
    "dict of loaders": Kind(SeveralLoaders, lambda: CombinedLoader({"a": loader(), "b": loader(32)}, "max_size_cycle")),
    "dict of lists of loaders": Kind(Nested, lambda: {"a": [loader(), loader()], "b": [loader(32)]}),
    "iterable that is no DataLoader": Kind(Plain, Pipeline),
    "sampler of a part of the data": Kind(
        Plain, lambda: DataLoader(examples(), batch_size=8, sampler=SubsetRandomSampler(range(32)))
    ),
    "limit_train_batches": Kind(Plain, trainer={"limit_train_batches": 2}),
    "gradient accumulation by a schedule": Kind(Plain, beside=lambda: [GradientAccumulationScheduler({0: 1, 1: 4})]),
    "LBFGS": Kind(LBFGS, no_twin="closure"),
    "stochastic weight averaging": Kind(Plain, beside=lambda: [StochasticWeightAveraging(0.01, swa_epoch_start=1)]),
    "backbone that is unfrozen during training": Kind(
        FineTuned, beside=lambda: [BackboneFinetuning(2, verbose=False)], no_twin="BackboneFinetuning"
    ),
}
