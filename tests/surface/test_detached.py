"""Detached copies: modules run off their trainer, and the originals stay as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from lightning_landscape import LossSurface
from lightning_landscape.surface.detached import DetachedTrainer, detached_copy, metrics_of

Batch = tuple[Tensor, Tensor]


def batches(count: int = 3) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)) for _ in range(count)]


class Classifier(pl.LightningModule):
    """Logs, counts, keeps its losses: all that a copy must not show in the original."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.ReLU(), nn.Linear(5, 3))
        self.accuracy = MulticlassAccuracy(3)
        self.average = MeanMetric()
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.kept: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x, y = batch
        scores = self.net(x)
        loss = functional.cross_entropy(scores, y)
        self.steps += 1
        self.accuracy(scores, y)
        self.average.update(loss)
        self.kept.append(loss)
        self.log("loss", loss, prog_bar=True)
        self.log_dict({"accuracy": self.accuracy, "rate": 0.1})
        self.print("step", batch_idx)
        return {"loss": loss}

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(batches(), batch_size=None)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fitted(module: pl.LightningModule, **arguments: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    trainer.fit(module)
    return trainer


def everything(module: nn.Module) -> dict[str, Any]:
    """Parameters, buffers, gradients, metric states, training flags and plain attributes."""
    seen: dict[str, Any] = {f"state {name}": value.clone() for name, value in module.state_dict().items()}
    for name, buffer in module.named_buffers():
        seen[f"buffer {name}"] = buffer.clone()
    for name, parameter in module.named_parameters():
        seen[f"grad {name}"] = parameter.grad if parameter.grad is None else parameter.grad.clone()
        seen[f"requires_grad {name}"] = parameter.requires_grad
    for name, child in module.named_modules():
        seen[f"training {name}"] = child.training
        seen[f"class {name}"] = type(child)
        seen[f"attributes {name}"] = sorted(vars(child))
    for index, metric in enumerate(metrics_of(module)):
        seen[f"metric {index}"] = copy.deepcopy(metric.metric_state), metric._update_count
    return seen


def same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and torch.equal(before, after)
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[key], after[key]) for key in before)
    if isinstance(before, tuple):
        return len(before) == len(after) and all(map(same, before, after))
    return bool(before == after)


def use(surface: LossSurface) -> None:
    thetas = surface.point() + torch.linspace(0, 1, 3)[:, None]
    surface.losses(thetas)
    surface.gradients(thetas, next(surface.training_stream()))
    surface.loss(thetas[1])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("vectorize", [None, False])
def test_a_surface_leaves_the_original_as_it_was(vectorize: bool | None, training: bool) -> None:
    module = Classifier()
    fitted(module)
    module.train(training)
    functional.cross_entropy(module.net(batches()[0][0]), batches()[0][1]).backward()
    kept = list(module.kept)
    before = everything(module)
    surface = LossSurface(module, batches(), vectorize=vectorize)
    use(surface)
    use(surface.with_module(module))
    assert same(before, everything(module))
    assert len(module.kept) == len(kept) == 6
    assert all(now is then for now, then in zip(module.kept, kept, strict=True))


def test_training_goes_on_as_if_no_surface_had_been_made() -> None:
    class Watching(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            logged = dict(trainer.callback_metrics)
            use(LossSurface(module, batches()))
            assert trainer.callback_metrics.keys() == logged.keys()
            assert module.trainer is trainer

    states = []
    for callbacks in ([], [Watching()]):
        torch.manual_seed(3)
        module = Classifier()
        trainer = fitted(module, callbacks=callbacks)
        states.append({**everything(module), **trainer.callback_metrics, "rng": torch.get_rng_state()})
    assert same(*states)


def test_a_detached_copy_shares_no_memory() -> None:
    module = Classifier()
    fitted(module)
    clone = detached_copy(module)
    assert isinstance(clone, Classifier)
    assert same(dict(clone.state_dict()), dict(module.state_dict()))
    owned = {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    assert not owned & {tensor.data_ptr() for tensor in (*clone.parameters(), *clone.buffers())}
    assert clone.kept[0] is not module.kept[0]
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in clone.parameters())


def test_tensors_with_a_graph_are_copied_without_it() -> None:
    module = nn.Linear(2, 1)
    output = module(torch.ones(2))
    module.last = output
    module.history = [{"losses": (output, 1.0)}]
    clone = detached_copy(module)
    assert not clone.last.requires_grad
    assert torch.equal(clone.last, output)
    assert clone.history[0]["losses"][0] is clone.last
    assert module.last is output
    output.backward()  # its graph is whole
    assert module.weight.grad is not None


def test_a_copy_made_in_inference_mode_can_be_trained() -> None:
    module = nn.Linear(2, 1)
    with torch.inference_mode():
        clone = detached_copy(module)
    clone(torch.ones(2)).sum().backward()
    assert clone.weight.grad is not None
    assert module.weight.grad is None


@pytest.mark.parametrize("how", ["wrapper", "inside", "in place", "nested"])
def test_compiled_modules_are_copied_uncompiled(how: str) -> None:
    inner: nn.Module = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    module: nn.Module = nn.Sequential(inner, nn.Linear(3, 2))
    if how == "wrapper":
        module = torch.compile(module, backend="eager")
    elif how == "inside":
        module[0] = torch.compile(inner, backend="eager")
    elif how == "nested":
        module[0] = torch.compile(inner, backend="eager")
        module = torch.compile(module, backend="eager")
    else:
        module.compile(backend="eager")
    x = torch.randn(5, 4)
    expected = module(x)
    clone = detached_copy(module)
    assert list(dict(clone.named_parameters())) == ["0.0.weight", "0.0.bias", "1.weight", "1.bias"]
    torch.testing.assert_close(clone(x), expected)
    assert type(clone) is nn.Sequential
    assert type(clone[0]) is nn.Sequential


def test_a_compiled_lightning_module_runs_its_own_step_on_the_copy() -> None:
    class Small(Classifier):
        def training_step(self, batch: Batch) -> Tensor:
            return functional.cross_entropy(self.net(batch[0]), batch[1])

    module = Small()
    plain = LossSurface(module, batches())
    thetas = plain.point() + torch.linspace(0, 1, 3)[:, None]
    expected = plain.losses(thetas)
    fitted(torch.compile(module, backend="eager"))  # leaves compiled methods on the instance
    assert not torch.equal(module.net[0].weight.flatten(), thetas[0, :20])
    before = everything(module)
    surface = LossSurface(module, batches())
    torch.testing.assert_close(surface.losses(thetas), expected)
    use(surface)
    assert same(before, everything(module))


def test_the_step_sees_the_counters_of_the_moment_and_nothing_else() -> None:
    class Annealed(Classifier):
        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            assert self.trainer.is_global_zero
            return (1 + self.current_epoch + 10 * self.global_step) * functional.cross_entropy(
                self.net(batch[0]), batch[1]
            )

    module = Annealed()
    before = LossSurface(module, batches())
    trainer = fitted(module)
    assert (trainer.current_epoch, trainer.global_step) == (2, 6)
    after = before.with_module(module)
    ratio = after.loss(before.point()) / before.loss(before.point())
    assert ratio == pytest.approx(1 + 2 + 60, rel=1e-5)
    assert module.trainer is trainer


@pytest.mark.parametrize(
    ("need", "message"),
    [
        (lambda module: module.trainer.num_training_batches, "trainer.num_training_batches"),
        (lambda module: module.optimizers(), "trainer"),
        (lambda module: module.lr_schedulers(), "trainer"),
        (lambda module: module.trainer.datamodule.scale, "trainer.datamodule"),
    ],
)
def test_a_step_that_needs_its_trainer_is_told_to_pass_loss_fn(need: Callable[[Any], Any], message: str) -> None:
    class Needy(Classifier):
        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            need(self)
            return self.net(batch[0]).mean()

    module = Needy()
    with pytest.raises(ValueError, match=rf"training_step of Needy .*{message}.*pass loss_fn=lambda"):
        LossSurface(module, batches())
    surface = LossSurface(
        module, batches(), loss_fn=lambda module, batch: functional.cross_entropy(module.net(batch[0]), batch[1])
    )
    assert surface.loss(surface.point()) > 0


def test_a_detached_trainer_has_the_counters_and_raises_on_the_rest() -> None:
    trainer = DetachedTrainer(3, 70)
    assert (trainer.current_epoch, trainer.global_step) == (3, 70)
    assert trainer.loggers == [trainer.logger]
    trainer.logger.experiment.add_image("dropped", None)
    assert trainer.is_global_zero
    with pytest.raises(AttributeError, match=r"asks for trainer\.save_checkpoint.*pass loss_fn=lambda"):
        trainer.save_checkpoint("file")


def test_a_step_that_optimises_manually_or_is_missing_is_told_to_pass_loss_fn() -> None:
    class Manual(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

    with pytest.raises(ValueError, match=r"Manual optimises manually.*pass loss_fn=lambda"):
        LossSurface(Manual(), batches())

    class Skipping(Classifier):
        def training_step(self, batch: Batch, batch_idx: int) -> None:
            return None

    with pytest.raises(ValueError, match=r"training_step must return a scalar tensor.*got NoneType"):
        LossSurface(Skipping(), batches())


def test_metrics_are_found_and_reset_on_the_copy_alone() -> None:
    module = Classifier()
    fitted(module)
    module.average.update(5.0)
    assert [type(metric) for metric in metrics_of(module)] == [MulticlassAccuracy, MeanMetric]
    surface = LossSurface(module, batches())
    use(surface)
    assert all(metric._update_count == 0 for metric in metrics_of(surface._objective.module))
    assert module.average.compute() > 0


class Smoothing(nn.Linear):
    """Feeds a metric and an average of its own, which under vmap would hold tensors that die with it."""

    def __init__(self, *, branch: bool) -> None:
        super().__init__(4, 3)
        self.accuracy = MulticlassAccuracy(3)
        self.average: Any = 0.0
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x)
        self.average = 0.9 * self.average + 0.1 * scores.detach().mean()
        self.accuracy.update(scores, torch.zeros(len(x), dtype=torch.long))
        if self.branch:  # which vmap refuses, after the average was stored
            assert scores.isfinite().all()
        return scores


@pytest.mark.parametrize(("branch", "vectorize"), [(False, True), (False, None), (False, False), (True, None)])
def test_what_a_step_stores_under_vmap_does_not_outlive_it(branch: bool, vectorize: bool | None) -> None:
    def loss_fn(module: nn.Module, batch: Batch) -> Tensor:
        return functional.cross_entropy(module(batch[0]), batch[1])

    surface = LossSurface(Smoothing(branch=branch), batches(), loss_fn, vectorize=vectorize)
    thetas = surface.point() + torch.linspace(0, 1, 3)[:, None]
    losses = surface.losses(thetas)
    torch.testing.assert_close(losses.tolist(), [surface.loss(theta) for theta in thetas])
    torch.testing.assert_close(surface.gradients(thetas, batches()[0])[0].isfinite().all(), torch.tensor(True))
    torch.testing.assert_close(surface.losses(thetas), losses)
    if branch:
        assert surface.choice() == {"losses": False, "gradients": False}


def test_a_batch_norm_that_synchronises_becomes_local_on_the_copy_alone() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.SyncBatchNorm(5), nn.Linear(5, 3))
    surface = LossSurface(module, batches(), lambda module, batch: functional.cross_entropy(module(batch[0]), batch[1]))
    use(surface)
    assert type(module[1]) is nn.SyncBatchNorm
    assert not any(isinstance(child, nn.SyncBatchNorm) for child in surface._objective.modules())
