"""LevelSetConnectivity attached, unchanged, to LightningModules that were not written for it."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import BackboneFinetuning
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset
from torch_geometric.data import Data  # type: ignore[import-untyped]
from torch_geometric.loader import DataLoader as GraphLoader  # type: ignore[import-untyped]
from torch_geometric.nn import GCNConv  # type: ignore[import-untyped]
from torchmetrics.classification import MulticlassAccuracy

from lightning_landscape.callbacks import LevelSetConnectivity

pytestmark = [
    pytest.mark.filterwarnings(
        "error:.*could not be published", "error:check .* failed", "ignore:There is a performance drop"
    ),
    pytest.mark.usefixtures("blank_figures"),
]


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


@dataclass
class Kind:
    module: Callable[[], LightningModule]
    data: Callable[[], Any] = loader
    options: dict[str, Any] = field(default_factory=dict)


def probe() -> list[Any]:
    return list(DataLoader(examples(), batch_size=32))


KINDS = {
    "classifier": Kind(Classifier),
    "autoencoder": Kind(Autoencoder),
    "lstm": Kind(LanguageModel, lambda: DataLoader(Tokens(), batch_size=8, shuffle=True)),
    "gcn": Kind(NodeClassifier, graph_loader),
    "gan": Kind(GAN, options={"loss_fn": gan_loss}),
    "transformer": Kind(Transformer, lambda: DataLoader(Tokens(), batch_size=8)),
    "dict batches": Kind(DictBatches, lambda: DataLoader(DictExamples(), batch_size=16)),
    "vae": Kind(VAE, options={"loss_fn": vae_loss}),
    "current epoch": Kind(Annealed),
    "kept losses": Kind(KeepsLosses),
    "hyperparameters": Kind(WithHyperparameters, Examples),
    "frozen backbone": Kind(FineTuned),
    "iterable": Kind(Plain, lambda: DataLoader(Stream(), batch_size=16), {"batches": probe()}),
    "one example": Kind(Plain, lambda: loader(1)),
    "two examples": Kind(Plain, lambda: loader(2)),
    "larger batch": Kind(Plain, lambda: loader(10)),
}
PAIRS = [(kind, "lagged") for kind in KINDS]
PAIRS += [(kind, "first") for kind in ("gcn", "gan", "frozen backbone")]
PAIRS += [(kind, "reference") for kind in ("classifier", "lstm", "vae", "transformer")]
PAIRS += [
    (kind, "twin") for kind in ("classifier", "autoencoder", "lstm", "gcn", "transformer", "kept losses", "iterable")
]


def fit(folder: Path, module: LightningModule, data: Any, epochs: int = 3, **options: Any) -> LevelSetConnectivity:
    callbacks = options.pop("beside", [])
    callback = LevelSetConnectivity(**{"num_batches": 2, "dirpath": folder / "landscape", **options})
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[callback, *callbacks],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, data)
    return callback


def assert_sound(callback: LevelSetConnectivity, epochs: list[int]) -> None:
    assert callback.folder is not None
    rows = [json.loads(line) for line in (callback.folder / "checks.jsonl").read_text().splitlines()]
    assert rows == callback.rows
    assert [row["epoch"] for row in rows] == epochs
    for row in rows:
        assert row["message"] is None
        assert row["reason"] in (None, "budget", "bead", "depth")
        assert row["verdict"] == ("connected" if row["height"] <= row["level"] else "not_found")
        assert (row["reason"] is None) == (row["verdict"] == "connected")
        assert max(row["loss_a"], row["loss_b"]) <= row["height"] <= row["linear_height"]
        assert row["normalized_length"] >= 1
        assert all(map(math.isfinite, row["profile"]["loss"]))


@pytest.mark.parametrize(("name", "pairs"), PAIRS, ids=lambda value: value.replace(" ", "-"))
def test_runs_attached(name: str, pairs: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    options = dict(kind.options)
    if pairs == "reference":
        options["reference"] = tmp_path / "other.ckpt"
        torch.save({"state_dict": kind.module().state_dict()}, options["reference"])
    callback = fit(tmp_path, kind.module(), kind.data(), pairs=pairs, **options)
    assert_sound(callback, [1, 2] if pairs in ("lagged", "first") else [0, 1, 2])


def test_loss_depends_on_the_epoch_of_the_check(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Annealed()
    batches = probe()
    callback = fit(tmp_path, module, loader(), batches=batches, pairs="first")
    losses = torch.stack([F.cross_entropy(module.layer(inputs), labels) for inputs, labels in batches])
    penalty = sum(p.square().sum() for p in module.parameters())
    assert callback.rows[-1]["loss_b"] == pytest.approx((losses.mean() + 0.01 * 2 * penalty).item(), rel=1e-6)


def test_only_trainable_parameters_are_coordinates(tmp_path: Path) -> None:
    module = FineTuned()
    other = FineTuned()
    other.backbone.load_state_dict(module.backbone.state_dict())
    torch.save({"state_dict": other.state_dict()}, tmp_path / "other.ckpt")
    callback = fit(tmp_path, module, loader(), epochs=2, pairs="reference", reference=tmp_path / "other.ckpt")
    difference = torch.cat([(a - b).flatten() for a, b in zip(module.parameters(), other.parameters(), strict=True)])
    row = callback.rows[-1]
    assert row["length"] == pytest.approx(row["normalized_length"] * difference.norm().item(), rel=1e-5)


def test_backbone_unfrozen_during_training(tmp_path: Path) -> None:
    module = FineTuned()
    module.backbone.requires_grad_(True)
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=2, verbose=False)
    assert_sound(fit(tmp_path, module, loader(), epochs=4, beside=[finetuning]), [1, 2, 3])


def test_examples_outside_the_sampler_are_no_training_data(tmp_path: Path) -> None:
    inputs, labels = examples().tensors
    inputs[16:] = math.nan  # held out
    data = DataLoader(TensorDataset(inputs, labels), batch_size=8, sampler=SubsetRandomSampler(range(16)))
    assert_sound(fit(tmp_path, Plain(), data), [1, 2])


def test_combined_loaders_work_with_batches(tmp_path: Path) -> None:
    class Combined(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch["a"], batch_idx) + super().training_step(batch["b"], batch_idx)

    batches = [{"a": batch, "b": batch} for batch in probe()]
    loaders = CombinedLoader({"a": loader(), "b": loader(32)}, "max_size_cycle")
    assert_sound(fit(tmp_path, Combined(), loaders, batches=batches), [1, 2])


class UsesTrainer(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + 1 / self.trainer.estimated_stepping_batches)


class OwnsParameter(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class HoldsLock(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class BatchesOfAnySize:
    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0, 1, 2], [3, 4]])

    def __len__(self) -> int:
        return 2


REFUSED: dict[str, tuple[Any, Callable[[], Any], dict[str, Any], str]] = {
    "gan": (GAN, loader, {}, r"GAN optimises manually.*pass LevelSetConnectivity\(loss_fn="),
    "gan with a twin": (GAN, loader, {"pairs": "twin", "loss_fn": gan_loss}, "use another pairing"),
    "vae": (VAE, loader, {}, r"draws random numbers.*draw noise from a generator seeded in loss_fn"),
    "trainer in training_step": (UsesTrainer, loader, {}, r"trainer\.estimated_stepping_batches.*pass loss_fn="),
    "iterable": (Plain, lambda: DataLoader(Stream(), 16), {}, r"Stream is an IterableDataset.*pass batches=\["),
    "dict of loaders": (Plain, lambda: {"a": loader()}, {}, r"come from dict, not from one DataLoader.*pass batches="),
    "list of loaders": (Plain, lambda: [loader()], {}, r"come from list, not from one DataLoader.*pass batches="),
    "combined loader": (Plain, lambda: CombinedLoader([loader()]), {}, r"not from one DataLoader.*pass batches="),
    "batch sampler": (
        Plain,
        lambda: DataLoader(examples(), batch_sampler=BatchesOfAnySize()),
        {},
        r"BatchesOfAnySize has no batch_size: pass batches=",
    ),
    "parameter without reset": (OwnsParameter, loader, {"pairs": "twin"}, r"OwnsParameter.*pass reinitialize="),
    "reset to the same": (
        Plain,
        loader,
        {"pairs": "twin", "reinitialize": lambda module: None},
        "has the very weights of the module",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_the_first_step(case: str, tmp_path: Path) -> None:
    make, data, options, advice = REFUSED[case]
    module = make()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(MisconfigurationException, match=f"(?s){advice}"):
        fit(tmp_path, module, data(), **options)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not list(tmp_path.rglob("checks.jsonl"))


def test_module_that_cannot_be_copied_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="HoldsLock cannot be copied"):
        fit(tmp_path, HoldsLock(), loader())


def test_empty_list_of_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="batches is empty"):
        fit(tmp_path, Plain(), loader(), batches=[])


def test_trainer_in_training_step_works_with_loss_fn(tmp_path: Path) -> None:
    def loss_fn(module: UsesTrainer, batch: Any) -> Tensor:
        return F.cross_entropy(module.layer(batch[0]), batch[1])

    assert_sound(fit(tmp_path, UsesTrainer(), loader(), loss_fn=loss_fn), [1, 2])


def test_parameter_without_reset_works_with_reinitialize(tmp_path: Path) -> None:
    def reinitialize(module: LightningModule) -> None:
        for parameter in module.parameters():
            nn.init.normal_(parameter)

    callback = fit(tmp_path, OwnsParameter(), loader(), pairs="twin", reinitialize=reinitialize)
    assert_sound(callback, [0, 1, 2])


def test_frozen_weights_of_the_partner_must_be_those_of_the_module(tmp_path: Path) -> None:
    torch.save({"state_dict": FineTuned().state_dict()}, tmp_path / "other.ckpt")
    with pytest.raises((UserWarning, MisconfigurationException), match="frozen"):
        fit(tmp_path, FineTuned(), loader(), pairs="reference", reference=tmp_path / "other.ckpt")
