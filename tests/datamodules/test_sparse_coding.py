from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_landscape import LossSurface
from lightning_landscape.attach.probe import TrainingData
from lightning_landscape.datamodules import SparseCodingDataModule
from lightning_landscape.datamodules.parts.fresh_batches import FreshBatches, FreshSampler
from lightning_landscape.sparse_coding import SparseCodingBatch
from lightning_landscape.storage.atomic import CorruptFileError

GENERATED = ["gaussian", "unit-correlation", "adversarial", "supervised"]
SIZES = {
    "digits": (64, 100, 0.1),
    "gaussian": (64, 100, 0.01),
    "unit-correlation": (64, 256, 0.1),
    "adversarial": (50, 256, 0.01),
    "supervised": (250, 500, 0.1),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the dictionary of the digits is learned once."""
    return tmp_path_factory.mktemp("cache")


def ready(dataset: str, cache: Path, **arguments: object) -> SparseCodingDataModule:
    arguments = {"batch_size": 6, "steps_per_epoch": 4, "val_size": 10, "test_size": 7, "root": cache} | arguments
    data = SparseCodingDataModule(dataset, **arguments)
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("dataset", SIZES)
def test_every_data_set_has_its_sizes_and_certified_optima(dataset: str, cache: Path) -> None:
    data, (n, m, lam) = ready(dataset, cache), SIZES[dataset]
    assert data.dictionary.shape == (n, m)
    assert data.dictionary.dtype == torch.float32
    assert data.lam == lam
    assert torch.allclose(data.dictionary.norm(dim=0), torch.ones(m), atol=1e-6)
    precise = data.problem.to(torch.float64)
    for loader, sizes in ((data.val_dataloader(), [6, 4]), (data.test_dataloader(), [6, 1])):
        batches = list(loader)
        assert [len(batch.x) for batch in batches] == sizes
        for batch in batches:
            assert isinstance(batch, SparseCodingBatch)
            assert batch.x.shape[1:] == (n,)
            assert batch.x.dtype == torch.float32
            assert (batch.code is not None) is (dataset in ("gaussian", "adversarial", "supervised"))
            assert torch.allclose(precise.objective(batch.x.double(), batch.solution), batch.optimum, rtol=1e-12)
            assert precise.relative_gap(batch.x.double(), batch.solution).max() < 1e-8
    for batch in data.train_dataloader():
        assert batch.x.shape == (6, n)
        assert batch.solution is None
        assert batch.optimum is None
        if batch.code is not None:
            assert torch.allclose(batch.x, batch.code @ data.dictionary.T)


def test_gaussian_codes_have_the_law_asked_for(cache: Path) -> None:
    for sparsity in (0.05, 0.25):
        data = ready("gaussian", cache, sparsity=sparsity, batch_size=2000, steps_per_epoch=1)
        (batch,) = data.train_dataloader()
        present = batch.code != 0
        assert present.double().mean().item() == pytest.approx(sparsity, abs=0.005)
        assert batch.code[present].std().item() == pytest.approx(10, rel=0.03)
        assert batch.code[present].mean().item() == pytest.approx(0, abs=0.4)


def test_columns_are_divided_by_the_norm_or_its_square() -> None:
    unit = SparseCodingDataModule("gaussian").dictionary
    squared = SparseCodingDataModule("gaussian", normalization="squared_norm").dictionary
    norms = squared.norm(dim=0)
    assert torch.allclose(squared / norms, unit, atol=1e-6)
    # The norm of 64 standard Gaussians is about 8.
    assert (1 / norms).mean().item() == pytest.approx(8, rel=0.05)
    assert norms.std() > 0.005


@pytest.mark.parametrize("lam", [0.1, 0.8])
def test_unit_correlation_puts_lambda_max_at_one(cache: Path, lam: float) -> None:
    data = ready("unit-correlation", cache, lam=lam)
    for batch in (*data.train_dataloader(), *data.val_dataloader()):
        assert torch.allclose(data.problem.lambda_max(batch.x), torch.ones(len(batch.x)), atol=1e-5)


def test_fourier_rows_are_orthogonal_waves_before_normalisation() -> None:
    dictionary = SparseCodingDataModule("adversarial").dictionary.double()
    waves = dictionary / dictionary[:, :1]  # column 0 is constant
    spectrum = torch.fft.rfft(waves * (dictionary[0, 0] * 50**0.5), dim=1).abs()
    assert torch.allclose(dictionary[:, 0], torch.full((50,), 50**-0.5).double())
    assert len(set(spectrum.argmax(dim=1).tolist())) == 50
    assert torch.allclose(dictionary[:, 1:], dictionary[:, 1:].flip(1), atol=1e-6)  # atoms k and m - k


def test_every_step_of_every_epoch_is_fresh_and_repeatable(cache: Path) -> None:
    first, again = ready("gaussian", cache), ready("gaussian", cache)
    seen = []
    for epoch in range(3):
        loader, other = first.train_dataloader(), again.train_dataloader()
        for each in (loader, other):
            each.sampler.set_epoch(epoch)
        for batch, same in zip(loader, other, strict=True):
            assert torch.equal(batch.x, same.x)
            seen.append(batch.x)
    assert len(torch.unique(torch.cat(seen), dim=0)) == 3 * 4 * 6
    held_out = torch.cat([batch.x for batch in (*first.val_dataloader(), *first.test_dataloader())])
    assert len(torch.unique(torch.cat([*seen, held_out]), dim=0)) == 3 * 4 * 6 + 17


def test_a_trainer_tells_the_epoch_in_a_resumed_run_too(tmp_path: Path) -> None:
    whole, _ = record(tmp_path, epochs=3)
    half, trainer = record(tmp_path, epochs=1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest, _ = record(tmp_path, epochs=3, ckpt_path=str(tmp_path / "half.ckpt"))
    assert torch.equal(whole, torch.cat([half, rest]))


@pytest.mark.parametrize(
    "kept",
    [{"monitor": "val/loss"}, {"every_n_train_steps": 2}, {"every_n_train_steps": 3}, {"every_n_train_steps": 4}],
    ids=["validation", "amid the first epoch", "at its last step", "amid the second"],
)
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_resumed_run_goes_on_with_the_next_batch(tmp_path: Path, kept: dict[str, object], workers: int) -> None:
    whole, _ = record(tmp_path, epochs=3)
    keep = ModelCheckpoint(tmp_path, filename="kept", save_top_k=-1, enable_version_counter=False, **kept)
    record(tmp_path, epochs=2, callbacks=[keep])
    paths = [*tmp_path.glob("kept*.ckpt")]
    assert paths
    for path in paths:
        steps = torch.load(path, weights_only=True)["global_step"]
        rest, _ = record(tmp_path, epochs=3, ckpt_path=str(path), num_workers=workers)
        assert torch.equal(rest, whole[2 * steps :])


class Coder(pl.LightningModule):
    """A linear code, and what it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 100)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)

    def training_step(self, batch: SparseCodingBatch, batch_idx: int) -> Tensor:
        self.seen.append(batch.x)
        return self(batch.x).square().mean()

    def validation_step(self, batch: SparseCodingBatch, batch_idx: int) -> None:
        self.log("val/loss", self(batch.x).square().mean(), batch_size=len(batch.x))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def quiet_trainer(folder: Path, **arguments: object) -> pl.Trainer:
    return pl.Trainer(
        logger=False, enable_checkpointing="callbacks" in arguments, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=folder, **arguments,
    )  # fmt: skip


def record(
    folder: Path, epochs: int, ckpt_path: str | None = None, num_workers: int = 0, **arguments: object
) -> tuple[Tensor, pl.Trainer]:
    module, trainer = Coder(), quiet_trainer(folder, max_epochs=epochs, **arguments)
    sizes = {"batch_size": 2, "steps_per_epoch": 3, "val_size": 2, "test_size": 2}
    data = SparseCodingDataModule("gaussian", num_workers=num_workers, **sizes)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return torch.cat(module.seen), trainer


def test_devices_share_the_steps_of_an_epoch() -> None:
    dataset = FreshBatches(lambda count, generator: (torch.zeros(count, 1), None), 1, 4, seed=0)
    samplers = [FreshSampler(dataset, ranks=2, rank=rank) for rank in range(2)]
    seen = []
    for epoch in range(3):
        for sampler in samplers:
            sampler.set_epoch(epoch)
            assert len(list(sampler)) == len(sampler) == 2
            seen += list(sampler)
    assert sorted(seen) == list(range(12))


def test_predicts_from_signals_alone(tmp_path: Path) -> None:
    data = SparseCodingDataModule("gaussian", batch_size=6, val_size=2, test_size=7)
    outputs = quiet_trainer(tmp_path).predict(Coder(), data)
    assert [tuple(output.shape) for output in outputs] == [(6, 100), (1, 100)]


def test_a_check_reads_training_batches_of_its_own(tmp_path: Path) -> None:
    """What LevelSetConnectivity does: probe batches from the running trainer, and E on them."""
    module, data = Coder(), SparseCodingDataModule("gaussian", batch_size=2, steps_per_epoch=5, val_size=2)
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, data)
    batches = TrainingData(trainer).take(3)
    assert len(torch.cat([batch.x for batch in batches]).unique(dim=0)) == 6
    surface = LossSurface(module, batches, training_batches=TrainingData(trainer))
    expected = torch.stack([module(batch.x).square().mean() for batch in batches]).mean().item()
    assert surface.loss(surface.point()) == pytest.approx(expected, rel=1e-5)
    _, gradients = surface.gradients(surface.point()[None], next(surface.training_stream()))
    assert gradients.isfinite().all()


def test_global_random_states_stay(cache: Path) -> None:
    np.random.seed(7)  # noqa: NPY002
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    for dataset in ("digits", "gaussian", "adversarial"):
        data = SparseCodingDataModule(dataset, val_size=2, test_size=2, root=cache / "fresh")
        data.setup()
        data.train_dataloader().dataset[3]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    fresh = SparseCodingDataModule(root=cache / "fresh").dictionary
    np.random.seed(8)  # noqa: NPY002
    assert torch.equal(fresh, ready("digits", cache).dictionary)  # nor do they decide anything


def test_the_seed_decides_everything(cache: Path) -> None:
    data, same, other = (ready("unit-correlation", cache, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(data.dictionary, same.dictionary)
    assert not torch.equal(data.dictionary, other.dictionary)
    assert torch.equal(next(iter(data.val_dataloader())).x, next(iter(same.val_dataloader())).x)


def test_a_learned_dictionary_is_kept_whole(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ready("digits", cache)
    (file,) = (cache / "sparse_coding").glob("digits-100-atoms-seed-0*")

    def fail(*arguments: object) -> Tensor:
        raise AssertionError("learned a second time")

    monkeypatch.setattr("lightning_landscape.datamodules.sparse_coding.learned_dictionary", fail)
    assert torch.equal(ready("digits", cache, lam=0.3).dictionary, first.dictionary)
    damaged = cache / "damaged"
    target = damaged / "sparse_coding" / file.name
    target.parent.mkdir(parents=True)
    target.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CorruptFileError, match=r"is damaged .*: delete it, and it is learned anew"):
        ready("digits", damaged)
    save_file({"other": torch.zeros(1)}, target)
    with pytest.raises(CorruptFileError, match="delete it"):
        ready("digits", damaged)


def test_digits_are_unit_vectors_of_disjoint_splits(cache: Path) -> None:
    data = ready("digits", cache, val_size=359, test_size=359)
    splits = [torch.cat([batch.x for batch in loader()]) for loader in (data.val_dataloader, data.test_dataloader)]
    for x in splits:
        assert torch.allclose(x.norm(dim=1), torch.ones(359), atol=1e-6)
    train = torch.cat([batch.x for batch in data.train_dataloader()])
    assert len(torch.unique(torch.cat(splits), dim=0)) == 718
    assert torch.cdist(train, torch.cat(splits)).min() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "n", "m", "lam"), [("mnist", 289, 100, 0.05), ("mnist-patches", 100, 200, 0.1)])
def test_mnist(dataset: str, n: int, m: int, lam: float, data_root: Path, tmp_path: Path) -> None:
    data = ready(dataset, tmp_path, source=data_root)
    assert data.dictionary.shape == (n, m)
    assert data.lam == lam
    (batch, *_) = data.val_dataloader()
    assert data.problem.to(torch.float64).relative_gap(batch.x.double(), batch.solution).max() < 1e-8
    # The learned atoms code unseen signals far better than random ones do.
    random_problem = type(data.problem)(torch.nn.functional.normalize(torch.randn(n, m), dim=0), lam)
    zero, learned = 0.5 * batch.x.square().sum(1).double(), batch.optimum
    guess = random_problem.objective(batch.x, torch.zeros(len(batch.x), m))
    assert torch.allclose(guess.double(), zero)
    assert (learned < 0.6 * zero).all()
    pixels = torch.cat([batch.x for batch in data.train_dataloader()])
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_missing_mnist_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="download=True"):
        SparseCodingDataModule("mnist", root=tmp_path).prepare_data()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "imagenet"}, r"dataset must be one of \['digits', .*, got 'imagenet'"),
        ({"lam": 0}, "lam must be positive and finite, got 0"),
        ({"lam": float("nan")}, "lam .* got nan"),
        ({"sparsity": 0.1}, "sparsity=0.1 is for planted codes, leave it out for 'digits'"),
        ({"dataset": "gaussian", "sparsity": 0.0}, r"sparsity must lie in \(0, 1\], got 0.0"),
        ({"dataset": "gaussian", "sparsity": 1.5}, "sparsity .* got 1.5"),
        (
            {"dataset": "gaussian", "normalization": "none"},
            "normalization must be 'norm' or 'squared_norm', got 'none'",
        ),
        ({"normalization": "squared_norm"}, "normalization='squared_norm' is for 'gaussian'"),
        ({"source": "x"}, "source='x', download=False are for MNIST"),
        ({"download": True}, "are for MNIST, leave them out for 'digits'"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"steps_per_epoch": 1.5}, "steps_per_epoch .* got 1.5"),
        ({"val_size": 0}, "val_size .* got 0"),
        ({"test_size": True}, "test_size .* got True"),
        ({"num_workers": -1}, "num_workers must be an integer of at least 0, got -1"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": 2**32}, r"seed must be less than 2\*\*32"),
    ],
)
def test_refuses_bad_arguments_at_construction(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseCodingDataModule(**arguments)


def test_more_digits_than_there_are(cache: Path) -> None:
    with pytest.raises(ValueError, match="val_size must be at most 359 for 'digits', got 360"):
        ready("digits", cache, val_size=360)


def test_a_loader_before_setup_says_what_to_call() -> None:
    with pytest.raises(RuntimeError, match=r"the val split is not loaded: call prepare_data\(\) and setup\(\)"):
        SparseCodingDataModule("gaussian").val_dataloader()


@pytest.mark.slow
def test_workers_draw_the_same_batches(cache: Path) -> None:
    alone, helped = ready("gaussian", cache), ready("gaussian", cache, num_workers=2)
    for batch, same in zip(alone.train_dataloader(), helped.train_dataloader(), strict=True):
        assert torch.equal(batch.x, same.x)
        assert torch.equal(batch.code, same.code)
