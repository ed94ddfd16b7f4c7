"""The LSTM language model: its carried state, its optimisation, and how it looks to a loss surface."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from lightning_landscape.callbacks import LevelSetConnectivity, level_set
from lightning_landscape.datamodules import PennTreebankDataModule
from lightning_landscape.datamodules.penn_treebank import FILES
from lightning_landscape.finders import DynamicStringSampling
from lightning_landscape.models import LSTMLanguageModel
from lightning_landscape.surface import LossSurface

WORDS = 7
SMALL = {"vocabulary_size": WORDS, "embedding_size": 5, "hidden_size": 5}


def batches(count: int, width: int = 4, streams: int = 2) -> list[tuple[Tensor, Tensor]]:
    """Windows that continue one another."""
    text = torch.randint(WORDS, (streams, count * width + 1), generator=torch.Generator().manual_seed(1))
    return [(text[:, i : i + width], text[:, i + 1 : i + width + 1]) for i in range(0, count * width, width)]


def model(seed: int = 0, spread: float = 10.0, **arguments: Any) -> LSTMLanguageModel:
    """With weights large enough for the state to matter."""
    torch.manual_seed(seed)
    built = LSTMLanguageModel(**SMALL | arguments)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(spread)
    return built


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, targets[..., None]).mean()


def losses(module: LSTMLanguageModel, data: list[tuple[Tensor, Tensor]]) -> list[float]:
    return [module.training_step(batch, index)["loss"].item() for index, batch in enumerate(data)]


@pytest.fixture
def corpus(tmp_path: Path) -> PennTreebankDataModule:
    """Words that a two-word memory predicts: 24 windows of 2 streams by 4."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, _ in FILES.values():
        (folder / name).write_text("a b a c\nb <unk> a c b\n" * 18)
    return PennTreebankDataModule(folder, batch_size=2, bptt=4, verify=False)


def fit(
    module: LSTMLanguageModel, data: pl.LightningDataModule, *callbacks: pl.Callback, ckpt: Any = None, **options: Any
) -> pl.Trainer:
    settings = {"max_epochs": 2, "logger": False, "enable_checkpointing": any(map(is_checkpoint, callbacks))}
    trainer = pl.Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **settings | options,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt)
    return trainer


def is_checkpoint(callback: pl.Callback) -> bool:
    return isinstance(callback, ModelCheckpoint)


def vector(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters()).detach()


# The network


def test_zarembas_small_model_has_its_size() -> None:
    """V e + V (h + 1) + 2 layers of 4h (e + h + 2), the second bias being PyTorch's own."""
    small = LSTMLanguageModel()
    assert sum(p.numel() for p in small.parameters()) == 10_000 * 200 + 10_000 * 201 + 2 * 800 * 402
    tied = LSTMLanguageModel(tied=True)
    assert tied.softmax_weight is tied.embedding.weight
    assert sum(p.numel() for p in tied.parameters()) == 10_000 * 200 + 10_000 + 2 * 800 * 402


def test_parameters_start_uniform() -> None:
    for parameter in LSTMLanguageModel(vocabulary_size=200).parameters():
        assert parameter.abs().max() <= 0.1
        assert float(parameter.detach().std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.15)


def test_a_model_of_zeros_has_the_perplexity_of_its_vocabulary() -> None:
    assert losses(model(spread=0.0), batches(1))[0] == pytest.approx(math.log(WORDS))


def test_dropout_acts_in_train_mode_alone() -> None:
    dropping, plain = model(dropout=0.5), model()
    tokens = batches(1)[0][0]
    assert torch.equal(dropping.eval()(tokens)[0], plain.eval()(tokens)[0])
    dropping.train()
    assert not torch.equal(dropping(tokens)[0], dropping(tokens)[0])
    dropping.dropout.eval()
    assert not torch.equal(dropping(tokens)[0], dropping(tokens)[0])  # between the layers
    assert model(dropout=0.5, num_layers=1).lstm.dropout == 0.0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("vocabulary_size", 1),
        ("embedding_size", 0),
        ("hidden_size", 2.5),
        ("num_layers", True),
        ("halve_after", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("clip_norm", -1.0),
        ("clip_norm", math.inf),
        ("dropout", 1.0),
    ],
)
def test_arguments_out_of_range_are_named(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{argument} must .* got {value!r}"):
        LSTMLanguageModel(**SMALL | {argument: value})


def test_tied_weights_need_equal_sizes() -> None:
    with pytest.raises(ValueError, match="tied=True needs embedding_size = hidden_size, got 5 and 6"):
        LSTMLanguageModel(**SMALL | {"hidden_size": 6, "tied": True})


@pytest.mark.parametrize("place", [0, 1])
def test_a_word_beyond_the_vocabulary_is_named(place: int) -> None:
    batch = batches(1)[0]
    batch[place][1, 2] = 11
    with pytest.raises(ValueError, match=r"holds word 11 and vocabulary_size=7"):
        model().training_step(batch, 0)


# The carried state


def test_training_carries_the_state_over_a_whole_epoch() -> None:
    data, carrying = batches(3), model()
    logits = carrying(torch.cat([tokens for tokens, _ in data], 1))[0].split(4, dim=1)
    expected = [float(cross_entropy(part, batch[1])) for part, batch in zip(logits, data, strict=True)]
    assert losses(carrying, data) == pytest.approx(expected, rel=1e-5)
    alone = [float(cross_entropy(carrying(tokens)[0], targets)) for tokens, targets in data]
    assert abs(alone[1] - expected[1]) > 0.01  # the state matters here
    assert losses(carrying, data) == pytest.approx(expected, rel=1e-5)  # the second epoch starts from zero again


def test_gradients_end_where_the_window_begins() -> None:
    data, carrying = batches(2), model()
    carrying.training_step(data[0], 0)
    state = tuple(part.clone() for part in carrying._carried)
    loss = carrying.training_step(data[1], 1)["loss"]
    twin = model()
    other = cross_entropy(twin(data[1][0], state)[0], data[1][1])
    for mine, theirs in zip(
        torch.autograd.grad(loss, list(carrying.parameters())),
        torch.autograd.grad(other, list(twin.parameters())),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, atol=1e-7)
    assert not any(part.requires_grad for part in carrying._carried)


def test_other_streams_in_an_epoch_are_refused() -> None:
    carrying = model()
    carrying.training_step(batches(1)[0], 0)
    with pytest.raises(ValueError, match="a batch of 3 streams follows one of 2"):
        carrying.training_step(batches(1, streams=3)[0], 1)
    carrying.training_step(batches(1, streams=3)[0], 0)


def test_validation_covers_the_whole_text_and_leaves_training_alone(corpus: PennTreebankDataModule) -> None:
    plain, watched = model(), model()
    fit(plain, corpus, limit_val_batches=0)
    trainer = fit(watched, corpus, val_check_interval=5)
    assert torch.equal(vector(watched), vector(plain))
    tokens, targets = (torch.cat(parts, 1) for parts in zip(*corpus.val_dataloader(), strict=True))
    assert tokens.shape == (2, corpus.splits["val"].streams.shape[1] - 1)
    final = trainer.validate(watched, datamodule=corpus, verbose=False)[0]
    expected = float(cross_entropy(watched.eval()(tokens)[0], targets))
    assert final["val/loss"] == pytest.approx(expected, rel=1e-5)
    assert final["val/perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert trainer.test(watched, datamodule=corpus, verbose=False)[0]["test/perplexity"] == pytest.approx(
        math.exp(expected), rel=1e-5
    )


def test_logged_training_perplexity_is_that_of_the_steps(corpus: PennTreebankDataModule) -> None:
    class Recorder(pl.Callback):
        losses: list[float]

        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.losses = []

        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
            self.losses.append(float(outputs["loss"]))

    recorder = Recorder()
    logged = fit(model(), corpus, recorder).callback_metrics
    assert logged["train/perplexity"] == pytest.approx(math.exp(np.mean(recorder.losses)), rel=1e-5)


# The loss surface


def surface_of(module: LSTMLanguageModel, data: list[tuple[Tensor, Tensor]], **options: Any) -> LossSurface:
    return LossSurface(module, data, **options)


def test_every_probe_sequence_starts_from_zero() -> None:
    data, module = batches(4), model()
    expected = np.mean([float(cross_entropy(module(tokens)[0], targets)) for tokens, targets in data])
    surface = surface_of(module, data)
    assert surface.loss(surface.point()) == pytest.approx(expected, rel=1e-6)
    backwards = surface_of(module, data[::-1])
    assert backwards.loss(surface.point()) == pytest.approx(expected, rel=1e-6)


def test_a_step_in_eval_mode_starts_from_zero_and_keeps_nothing() -> None:
    data, module = batches(3), model()
    losses(module, data)
    state = module._carried
    tokens, targets = data[2]
    assert module.eval().training_step(data[2], 2)["loss"].item() == cross_entropy(module(tokens)[0], targets).item()
    assert module._carried is state


def test_the_surface_does_not_depend_on_what_ran_before() -> None:
    data, module = batches(4), model()
    theta = surface_of(module, data).point()
    expected = surface_of(module, data).loss(theta)
    losses(module, data)
    module.eval()
    module.validation_step(data[0], 0)
    module.train()
    state = module._carried
    after = surface_of(module, data)
    assert after.loss(theta) == expected
    after.gradients(theta[None], data[2])
    assert after.loss(theta) == expected
    losses(module, batches(2, streams=3))  # a state of another shape
    assert after.with_module(module).loss(theta) == expected
    assert state is not None
    assert module._carried[0].shape[1] == 3  # the live state is the live module's


def test_the_surface_neither_reads_nor_moves_a_training_run() -> None:
    data, watched, plain = batches(4), model(), model()
    found = []
    for index, batch in enumerate(data):
        surface = surface_of(watched, data)
        surface.losses(surface.point().expand(2, -1))
        found.append(float(watched.training_step(batch, index)["loss"]))
    assert found == losses(plain, data)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"tied": True}, {"num_layers": 1}], ids=str)
def test_stacks_of_points_and_their_gradients(options: dict[str, Any]) -> None:
    data, module = batches(3), model(**options).double()
    surface = surface_of(module, data)
    assert surface.dimension == sum(p.numel() for p in module.parameters())
    thetas = surface.point() + 0.1 * torch.randn(3, surface.dimension, dtype=torch.float64)
    values = surface.losses(thetas)
    assert values.tolist() == pytest.approx([surface.loss(theta) for theta in thetas])
    _, gradients = surface.gradients(thetas, data[0])
    assert surface.choice() == {"losses": False, "gradients": False}  # nn.LSTM has no batching rule
    one = surface_of(module, data[:1])
    direction = torch.randn(surface.dimension, dtype=torch.float64)
    for theta, gradient in zip(thetas, gradients, strict=True):
        slope = (one.loss(theta + 1e-6 * direction) - one.loss(theta - 1e-6 * direction)) / 2e-6
        assert float(gradient @ direction) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_mapping_over_points_is_refused() -> None:
    surface = surface_of(model(), batches(1), vectorize=True)
    for measure in (surface.losses, lambda thetas: surface.gradients(thetas, batches(1)[0])):
        with pytest.raises(NotImplementedError, match="LSTM has no batching rule for vmap: leave out vectorize=True"):
            measure(surface.point().expand(2, -1))


# The optimisation


@pytest.mark.parametrize("clip", [0.05, 1e6], ids=["clipped", "free"])
@pytest.mark.parametrize("by", ["module", "trainer"])
def test_a_step_is_zarembas(corpus: PennTreebankDataModule, clip: float, by: str) -> None:
    """theta - lr clip(grad sum_t mean_b -log p), the state carried and cut."""
    trained = model(clip_norm=clip if by == "module" else 123.0, learning_rate=0.5)
    fit(trained, corpus, max_epochs=1, limit_val_batches=0, gradient_clip_val=clip if by == "trainer" else None)
    expected, state = model(), None
    for tokens, targets in corpus.train_dataloader():
        logits, state = expected(tokens, state)
        state = tuple(part.detach() for part in state)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / len(tokens)
        expected.zero_grad()
        loss.backward()
        clip_grad_norm_(expected.parameters(), clip)
        with torch.no_grad():
            for parameter in expected.parameters():
                parameter -= 0.5 * parameter.grad
    assert (vector(trained) - vector(expected)).norm() < 1e-5 * (vector(expected) - vector(model())).norm()


def test_the_learning_rate_halves_after_the_fourth_epoch(corpus: PennTreebankDataModule) -> None:
    class Rates(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    rates = Rates()
    fit(model(), corpus, rates, max_epochs=6, limit_train_batches=1, limit_val_batches=0)
    assert rates.seen == [1.0, 1.0, 1.0, 1.0, 0.5, 0.25]


def test_learns_a_text_that_repeats_itself(corpus: PennTreebankDataModule) -> None:
    module = model(hidden_size=16, halve_after=15)
    trainer = fit(module, corpus, max_epochs=15)
    assert trainer.callback_metrics["val/perplexity"] < 1.3


def test_half_precision_carries_its_state(corpus: PennTreebankDataModule) -> None:
    try:
        with torch.autocast("cpu", torch.bfloat16):
            torch.nn.LSTM(4, 4)(torch.zeros(2, 1, 4))
    except RuntimeError as error:  # on processors without AVX512, under torch 2.14
        pytest.skip(f"torch has no LSTM in bfloat16 for this processor: {error}")
    trainer = fit(model(), corpus, precision="bf16-mixed")
    assert math.isfinite(trainer.callback_metrics["val/perplexity"])


# In a run


def checks(folder: Path, pairs: str, **options: Any) -> LevelSetConnectivity:
    finder = DynamicStringSampling(max_depth=2, max_bead_steps=3, shorten=1, samples=3)
    return LevelSetConnectivity(
        pairs, finder=finder, dirpath=folder / pairs, num_batches=3, overhead=None, margin=0.0, on_error="raise",
        **options,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("profile_figure", "history_figure", "save_figure"):
        monkeypatch.setattr(level_set, name, lambda *args: None)


@pytest.mark.parametrize("pairs", ["lagged", "twin"])
def test_a_connectivity_check_leaves_training_bit_identical(
    corpus: PennTreebankDataModule, tmp_path: Path, pairs: str
) -> None:
    def run(folder: Path, *callbacks: pl.Callback) -> list[Any]:
        pl.seed_everything(1, verbose=False)
        module = model(dropout=0.3)
        every = ModelCheckpoint(folder, "{step}", every_n_train_steps=5, save_top_k=-1)
        trainer = fit(module, corpus, every, *callbacks, max_epochs=3)
        saved = [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.ckpt"))]
        return [
            list(module.state_dict().values()),
            {k: v for k, v in trainer.callback_metrics.items() if not k.startswith("landscape/")},
            list(module._carried),
            [(content["carried_state"], content["state_dict"], content["loops"]) for content in saved],
            [torch.get_rng_state(), random.getstate(), np.random.get_state()],  # noqa: NPY002
        ]

    plain = run(tmp_path / "plain")
    callback = checks(tmp_path / "ours", pairs)
    watched = run(tmp_path / "watched", callback)
    torch.testing.assert_close(watched[:4], plain[:4], rtol=0, atol=0)
    assert str(watched[4]) == str(plain[4])
    assert len(plain[3]) > 3
    assert [row["reason"] for row in callback.rows].count("error") == 0
    assert len(callback.rows) == (3 if pairs == "twin" else 2)
    assert all(math.isfinite(row["height"]) for row in callback.rows)


def test_a_twin_is_trained_as_the_model_is(corpus: PennTreebankDataModule, tmp_path: Path) -> None:
    """The two biases of an LSTM are one to the function: shifted against each other they train alike."""

    def shift(module: pl.LightningModule) -> None:
        with torch.no_grad():
            module.lstm.bias_ih_l0.add_(0.25)
            module.lstm.bias_hh_l0.sub_(0.25)

    callback = checks(tmp_path, "twin", reinitialize=shift)
    start, module = model(), model()
    fit(module, corpus, callback, precision="64-true")
    twin = callback._pairing.module
    shift(module)
    assert (vector(module) - vector(start)).norm() > 1
    assert torch.allclose(vector(twin), vector(module), atol=1e-9)


def test_a_twin_starts_uniform_too(corpus: PennTreebankDataModule, tmp_path: Path) -> None:
    callback = checks(tmp_path, "twin")
    fit(model(learning_rate=1e-9), corpus, callback, max_epochs=1)
    parameters = vector(callback._pairing.module)
    assert parameters.abs().max() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("step", [7, 12, 17, 24, 31])
def test_resumes_in_the_middle_of_an_epoch(corpus: PennTreebankDataModule, tmp_path: Path, step: int) -> None:
    straight, resumed = model(), model()
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", every_n_train_steps=step, save_top_k=-1)
    fit(straight, corpus, keep, max_epochs=3)
    corpus.splits.clear()
    trainer = fit(resumed, corpus, max_epochs=3, ckpt=tmp_path / "kept" / f"step={step}.ckpt")
    assert trainer.global_step == 3 * len(corpus.train_dataloader())
    assert torch.equal(vector(resumed), vector(straight))
    torch.testing.assert_close(resumed._carried, straight._carried, rtol=0, atol=0)


def test_a_checkpoint_loads_by_itself(corpus: PennTreebankDataModule, tmp_path: Path) -> None:
    module = model(tied=True)
    fit(module, corpus, max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    loaded = LSTMLanguageModel.load_from_checkpoint(tmp_path / "last.ckpt")
    assert loaded.softmax_weight is loaded.embedding.weight
    assert torch.equal(vector(loaded), vector(module))
