"""The twin trains as a plain run from its initial weights would."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAUROC

from lightning_landscape.attach.fresh_weights import reset_parameters
from lightning_landscape.callbacks import LevelSetConnectivity, level_set
from lightning_landscape.callbacks.pairings.twin import Twin
from lightning_landscape.finders import LinearPath

SCHEDULERS = torch.optim.lr_scheduler


class Net(pl.LightningModule):
    """A dense net with batch norm, trained by SGD with momentum and whatever schedule it is given."""

    def __init__(self, schedule: Any = None, **settings: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
        self.schedule, self.settings = schedule, settings

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-3)
        if self.schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule(optimizer), **self.settings}}


def data() -> DataLoader[Any]:
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long()), 8, shuffle=True)


def fit(folder: Path, module: pl.LightningModule, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    ckpt_path = options.pop("ckpt_path", None)
    settings = {"max_epochs": 3, "accelerator": "cpu", "logger": False} | quiet | options
    trainer = pl.Trainer(default_root_dir=folder, callbacks=list(callbacks), **settings)
    pl.seed_everything(3, verbose=False)
    trainer.fit(module, data(), ckpt_path=ckpt_path)
    return trainer


class Watched(LevelSetConnectivity):
    """Keeps the state in which its twin starts; no check, so that the test is about training alone."""

    def __init__(self, **options: Any) -> None:
        super().__init__("twin", finder=LinearPath(), num_batches=2, every_n_epochs=99, **options)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert isinstance(self._pairing, Twin)
        self.initial = copy.deepcopy(self._pairing.module.state_dict())

    @property
    def twin(self) -> Any:
        return self._pairing.module


RUNS = {
    "constant rate": (Net, {}),
    "one cycle": (lambda: Net(lambda o: SCHEDULERS.OneCycleLR(o, 0.5, total_steps=15), interval="step"), {}),
    "steps": (lambda: Net(lambda o: SCHEDULERS.StepLR(o, 4, gamma=0.5), interval="step"), {}),
    "cosine per epoch": (lambda: Net(lambda o: SCHEDULERS.CosineAnnealingLR(o, 3)), {}),
    "accumulation": (Net, {"accumulate_grad_batches": 2}),
    "clipping": (Net, {"gradient_clip_val": 0.05}),
    "clipping by value": (Net, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    "bf16": (Net, {"precision": "bf16-mixed"}),
    "all at once": (
        lambda: Net(lambda o: SCHEDULERS.OneCycleLR(o, 0.5, total_steps=9), interval="step"),
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1, "limit_train_batches": 5},
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_twin_equals_a_plain_run_from_its_initial_weights(tmp_path: Path, name: str) -> None:
    make, options = RUNS[name]
    callback = Watched()
    module = make()
    fit(tmp_path, module, callback, **options)
    plain = make()
    plain.load_state_dict(callback.initial)
    fit(tmp_path, plain, **options)
    found, expected = callback.twin.state_dict(), plain.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():  # buffers too
        assert torch.equal(found[key], value), key
        assert not torch.equal(module.state_dict()[key], value) or key.endswith("num_batches_tracked")
        assert not torch.equal(callback.initial[key], value)


def test_twin_follows_the_plateau_of_the_module(tmp_path: Path) -> None:
    """Such a schedule looks at a metric of the module; the twin takes the rate that comes of it."""

    def plateau(optimizer: Any) -> Any:
        return SCHEDULERS.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=10.0)

    callback = Watched()
    trainer = fit(tmp_path, Net(plateau, monitor="loss"), callback, max_epochs=4)
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    assert rate < 0.02
    assert callback._pairing._twin.optimizer.param_groups[0]["lr"] == pytest.approx(rate * 10)  # of the last step taken


def test_twin_starts_apart_even_under_the_seed_of_the_module(tmp_path: Path) -> None:
    torch.default_generator.manual_seed(0)
    module, callback = Net(), Watched(seed=0)
    initial = copy.deepcopy(module.state_dict())
    fit(tmp_path, module, callback)
    weights = [key for key in initial if key.startswith(("net.0", "net.3"))]
    assert all(not torch.equal(initial[key], callback.initial[key]) for key in weights)
    again, other = Watched(seed=0), Watched(seed=1)
    fit(tmp_path, Net(), again)
    fit(tmp_path, Net(), other)
    assert all(torch.equal(again.initial[key], callback.initial[key]) for key in weights)
    assert all(not torch.equal(other.initial[key], callback.initial[key]) for key in weights)


class Prompted(Net):
    """Owns a parameter that no layer can reset."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.zeros(4))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return super().training_step([batch[0] + self.prompt, batch[1]], batch_idx)


def draw(module: Any) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-1, 1)


def test_parameters_that_cannot_be_reset_are_named(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"the module itself \(Prompted\).*reinitialize=lambda module"):
        fit(tmp_path, Prompted(), Watched())
    callback = Watched(reinitialize=draw)
    fit(tmp_path, Prompted(), callback)
    assert callback.initial["prompt"].abs().max() > 0.1


def test_frozen_parameters_stay_and_transformers_are_reset() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    frozen = nn.Sequential(Prompted().requires_grad_(False), layer)
    before = copy.deepcopy(frozen.state_dict())
    reset_parameters(frozen)
    changed = {key for key, value in frozen.state_dict().items() if not torch.equal(before[key], value)}
    assert not any(key.startswith("0.") for key in changed)
    assert "1.self_attn.in_proj_weight" in changed


def test_identical_twin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="the very weights of the module: pass reinitialize="):
        fit(tmp_path, Net(), Watched(reinitialize=lambda module: None))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_twin_of_computed_weights_starts_and_trains_with_its_own(tmp_path: Path) -> None:
    class Wide(Net):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 64)), nn.Tanh(), nn.Linear(64, 2))

    module, callback = Wide(), Watched()
    before = module.net[0].weight.detach().flatten()
    fit(tmp_path, module, callback)
    start = Wide()
    start.load_state_dict(callback.initial)
    start.net[0](torch.ones(1, 4))
    assert abs(torch.cosine_similarity(start.net[0].weight.flatten(), before, dim=0)) < 0.2
    plain = Wide()
    plain.load_state_dict(callback.initial)
    fit(tmp_path, plain)
    assert all(map(torch.equal, callback.twin.state_dict().values(), plain.state_dict().values()))

    def biases(twin: Any) -> None:
        for layer in twin.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()  # of a weight that the next forward pass overwrites

    with pytest.raises(MisconfigurationException, match=r"among them net\.0\.weight_g, net\.0\.weight_v"):
        fit(tmp_path, Wide(), Watched(reinitialize=biases))


def test_missing_optimizer_cannot_be_followed(tmp_path: Path) -> None:
    class Idle(Net):
        def configure_optimizers(self) -> Any:
            return None

    with pytest.raises(MisconfigurationException, match="needs configure_optimizers to return one optimizer, got None"):
        fit(tmp_path, Idle(), Watched())


class Talking(Net):
    """Uses its trainer and its logger, keeps metrics, and asks to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.auroc = MulticlassAUROC(2)
        self.images: list[int] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.logger.experiment.log_metrics({"x": float(self.is_twin)})
        self.images.append(self.trainer.global_step)
        self.auroc.update(self.net(batch[0]).detach(), batch[1])
        assert self.trainer.current_epoch == self.current_epoch
        if self.is_twin:
            self.trainer.should_stop = True
        return super().training_step(batch, batch_idx)

    is_twin = False


def test_twin_acts_on_nothing_but_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("profile_figure", "history_figure", "save_figure"):
        monkeypatch.setattr(level_set, name, lambda *args: None)

    def mark(module: Any) -> None:
        reset_parameters(module)
        module.is_twin = True

    module = Talking()
    callback = Watched(
        reinitialize=mark, loss_fn=lambda m, b: nn.functional.cross_entropy(m.net(b[0]), b[1]), dirpath=tmp_path / "l"
    )
    trainer = fit(tmp_path, module, callback, logger=pl.loggers.CSVLogger(tmp_path))
    assert trainer.current_epoch == 3
    logged = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    assert logged[0].split(",").count("x") == 1
    assert {line.split(",")[logged[0].split(",").index("x")] for line in logged[1:]} <= {"0.0", ""}
    assert len(module.images) == len(callback.twin.images) == 15
    assert sum(len(scores) for scores in module.auroc.preds) == 40 * 3
    assert callback.twin.auroc.preds == []  # it would grow without end
    assert all(parameter.grad is None for parameter in callback.twin.parameters())


def test_state_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    make, options = RUNS["one cycle"]
    whole = Watched(dirpath=tmp_path / "whole")
    module = make()
    initial = copy.deepcopy(module.state_dict())
    fit(tmp_path, module, whole, **options)

    class Saving(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            states.append(copy.deepcopy(callback._pairing.state_dict()))

    states: list[dict[str, Any]] = []
    callback = Watched(dirpath=tmp_path / "part")
    part = make()
    part.load_state_dict(initial)
    fit(tmp_path, part, callback, Saving())
    assert [state["batches"] for state in states] == [5, 10, 15]
    other = Twin(seed=9)
    other.setup(callback._pairing._trainer, make(), states[-1])
    assert same(other.state_dict(), states[-1])
    assert same(whole._pairing.state_dict(), states[-1])
    # The state is a copy: training on does not change it.
    assert not same(states[0]["module"], states[1]["module"])


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


def test_run_without_a_twin_cannot_be_resumed_with_one(tmp_path: Path) -> None:
    fit(tmp_path, Net(), max_epochs=1).save_checkpoint(tmp_path / "run.ckpt")
    with pytest.raises(MisconfigurationException, match="the checkpoint holds no twin"):
        fit(tmp_path, Net(), Watched(), ckpt_path=tmp_path / "run.ckpt")


class Fragile(Net):
    """Its twin's fifth step fails, its own never does."""

    steps = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.steps += 1
        if self.steps == 5 and not isinstance(self._trainer, pl.Trainer):
            raise RuntimeError("out of memory")
        return super().training_step(batch, batch_idx)


def test_a_twin_that_fails_ends_itself_and_not_the_training(tmp_path: Path) -> None:
    pl.seed_everything(0, verbose=False)
    alone = Fragile()
    fit(tmp_path, alone)
    pl.seed_everything(0, verbose=False)
    module = Fragile()
    callback = LevelSetConnectivity(
        "twin", finder=LinearPath(), num_batches=2, dirpath=tmp_path, loss_fn=lambda m, b: m.net(b[0]).square().mean()
    )
    with pytest.warns(UserWarning, match="the twin has stopped: out of memory"):
        fit(tmp_path, module, callback)
    assert [row["reason"] for row in callback.rows][-1] == "error"
    for mine, theirs in zip(module.parameters(), alone.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    state = callback._pairing.state_dict()
    assert state["failure"] == "out of memory"


def test_a_twin_that_fails_ends_the_training_if_asked(tmp_path: Path) -> None:
    callback = LevelSetConnectivity(
        "twin",
        finder=LinearPath(),
        num_batches=2,
        dirpath=tmp_path,
        on_error="raise",
        loss_fn=lambda m, b: m.net(b[0]).square().mean(),
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(tmp_path, Fragile(), callback)
