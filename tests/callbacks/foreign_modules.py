"""LightningModules and loaders as users write them, without a thought of a loss surface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torch_geometric.data import Data  # type: ignore[import-untyped]
from torch_geometric.loader import DataLoader as GraphLoader  # type: ignore[import-untyped]
from torch_geometric.nn import GCNConv  # type: ignore[import-untyped]
from torchmetrics.classification import MulticlassAccuracy


class Base(LightningModule):
    def configure_optimizers(self) -> Any:
        return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=0.02)


def examples(size: int = 64) -> TensorDataset:
    inputs = torch.randn(size, 4, generator=torch.Generator().manual_seed(size))
    return TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())


def loader(size: int = 64) -> DataLoader[Any]:
    return DataLoader(examples(size), batch_size=16, shuffle=True)


class Classifier(Base):
    """Dropout, batch norm, a scheduler and logged metrics with a state."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
        self.accuracy = MulticlassAccuracy(2)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, labels = batch
        logits = self.net(inputs)
        loss = F.cross_entropy(logits, labels)
        self.accuracy(logits, labels)
        self.log("accuracy", self.accuracy, on_epoch=True)
        self.log_dict({"loss": loss}, prog_bar=True)
        return {"loss": loss, "logits": logits.detach()}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=12)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Autoencoder(Base):
    """A training_step without batch_idx."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 2), nn.Linear(2, 4)

    def training_step(self, batch: Any) -> Tensor:
        return F.mse_loss(self.decoder(self.encoder(batch[0]).tanh()), batch[0])


class LanguageModel(Base):
    """Batches that are bare tensors, and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 6, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits = self.head(self.lstm(self.embedding(batch[:, :-1]))[0])
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


class Tokens(Dataset[Tensor]):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> Tensor:
        return (torch.arange(6) * 3 + index) % 11


class NodeClassifier(Base):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(3, 8), GCNConv(8, 2)

    def training_step(self, batch: Data, batch_idx: int) -> Tensor:
        hidden = F.dropout(self.first(batch.x, batch.edge_index).relu(), 0.5, self.training)
        logits = self.second(hidden, batch.edge_index)
        self.log("nodes", batch.num_nodes, batch_size=1)
        return F.cross_entropy(logits[batch.train_mask], batch.y[batch.train_mask])


def graph_loader() -> GraphLoader:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 20, (2, 60), generator=generator)
    labels = torch.randint(0, 2, (20,), generator=generator)
    inputs = torch.randn(20, 3, generator=generator) + labels[:, None]
    return GraphLoader([Data(x=inputs, edge_index=edges, y=labels, train_mask=torch.arange(20) < 12)], batch_size=1)


class GAN(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = nn.Linear(2, 4), nn.Linear(4, 1)

    def generator_loss(self, noise: Tensor) -> Tensor:
        return F.softplus(-self.discriminator(self.generator(noise))).mean()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        noise = torch.randn(len(batch[0]), 2)
        generator, discriminator = self.optimizers()  # type: ignore[attr-defined]
        fake = F.softplus(self.discriminator(self.generator(noise).detach())).mean()
        self._step(discriminator, F.softplus(-self.discriminator(batch[0])).mean() + fake)
        self._step(generator, self.generator_loss(noise))

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(net.parameters(), lr=0.05) for net in (self.generator, self.discriminator)]


def gan_loss(gan: GAN, batch: Any) -> Tensor:
    return gan.generator_loss(torch.randn(16, 2, generator=torch.Generator().manual_seed(0)))


class Transformer(Base):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=8, dropout=0.1, batch_first=True)
        self.embedding = nn.Embedding(11, 8)
        self.encoder = nn.TransformerEncoder(layer, num_layers=1)
        self.head = nn.Linear(8, 11)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(batch.shape[1] - 1)
        hidden = self.encoder(self.embedding(batch[:, :-1]), mask=mask, is_causal=True)
        return F.cross_entropy(self.head(hidden).flatten(0, 1), batch[:, 1:].flatten())


class DictBatches(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        assert isinstance(batch["note"][0], str)
        return F.cross_entropy(self.layer(batch["inputs"]), batch["label"])


class DictExamples(Dataset[dict[str, Any]]):
    def __init__(self) -> None:
        self.inner = examples()

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"inputs": self.inner[index][0], "label": self.inner[index][1], "note": f"example {index}"}


class VAE(Base):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(2, 4)

    def loss(self, batch: Any, generator: torch.Generator | None = None) -> Tensor:
        mean, log_scale = self.encoder(batch[0]).chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator)
        divergence = (mean.square() + (2 * log_scale).exp() - 1 - 2 * log_scale).mean() / 2
        return torch.add(F.mse_loss(self.decoder(mean + log_scale.exp() * noise), batch[0]), divergence, alpha=0.1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)


def vae_loss(vae: VAE, batch: Any) -> Tensor:
    return vae.loss(batch, torch.Generator().manual_seed(0))


class Annealed(Base):
    """Its loss depends on the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        penalty = sum(p.square().sum() for p in self.parameters())
        return F.cross_entropy(self.layer(batch[0]), batch[1]) + 0.01 * self.current_epoch * penalty


class KeepsLosses(Base):
    """Stores losses with their graphs on itself, as examples of Lightning 2 do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.losses: list[Tensor] = []
        self.history: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.layer(batch[0]), batch[1])
        self.losses.append(loss)
        return loss

    def on_train_epoch_end(self) -> None:
        assert len(self.losses) == 4, "a check has run on this list"
        self.history.append(float(torch.stack(self.losses).detach().mean()))
        self.losses.clear()


class WithHyperparameters(Base):
    def __init__(self, hidden: int = 5, activation: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.save_hyperparameters()

    def configure_model(self) -> None:
        if not hasattr(self, "net"):
            width = self.hparams["hidden"]
            self.net = nn.Sequential(nn.Linear(4, width), self.hparams["activation"](), nn.Linear(width, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])


class Examples(LightningDataModule):
    def __init__(self, batch_size: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        self.dataset = examples()

    def train_dataloader(self) -> Any:
        return DataLoader(self.dataset, self.hparams["batch_size"], shuffle=True, drop_last=True)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] * 2, batch[1]]


class FineTuned(Base):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Linear(6, 2)
        self.backbone.requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.head(self.backbone(batch[0])), batch[1])


class Plain(Base):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.layer(batch[0]), batch[1])


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(examples())


def probe() -> list[Any]:
    return list(DataLoader(examples(), batch_size=32))
