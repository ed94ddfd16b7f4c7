"""Batches of block model graphs: their law, their seeds, their arguments."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser
from torch import Tensor, nn
from torch_geometric.data import Batch

from lightning_landscape.community import CommunityGraph, reverse_edges, signal_to_noise
from lightning_landscape.datamodules import SBMDataModule


def ready(**arguments: Any) -> SBMDataModule:
    sizes = {"num_nodes": 40, "steps_per_epoch": 3, "batch_size": 2, "val_size": 5, "test_size": 3}
    data = SBMDataModule(**{**sizes, **arguments})
    data.setup()
    return data


def same(first: Batch, second: Batch) -> bool:
    left, right = first.to_dict(), second.to_dict()
    return left.keys() == right.keys() and all(
        torch.equal(value, right[key]) for key, value in left.items() if isinstance(value, Tensor)
    )


def test_a_batch_is_a_graph() -> None:
    for loader in (ready().train_dataloader(), ready().val_dataloader(), ready().predict_dataloader()):
        batch = next(iter(loader))
        assert isinstance(batch, CommunityGraph)
        assert batch.num_graphs == 2
        assert batch.num_nodes == 80
        assert torch.equal(batch.rev_edge, reverse_edges(batch.edge_index, 80))
        assert batch.y.bincount().tolist() == [40, 40]
        assert batch.snr.shape == (2,)
        assert batch.rates.shape == (2, 2)
        assert batch.snr.dtype == batch.rates.dtype == torch.float32


def test_sizes_of_the_splits() -> None:
    data = ready()
    assert [batch.num_graphs for batch in data.val_dataloader()] == [2, 2, 1]
    assert [batch.num_graphs for batch in data.test_dataloader()] == [2, 1]
    assert len(data.train_dataloader()) == 3


@pytest.mark.parametrize(
    ("k", "mixture", "signs"), [(2, "assortative", {1}), (2, "both", {1, -1}), (3, "disassortative", {-1})]
)
def test_snr_varies_at_constant_degree(k: int, mixture: str, signs: set[int]) -> None:
    data = ready(num_communities=k, mixture=mixture, average_degree=8.0, snr=(0.5, 2.0), batch_size=20)
    batches = list(data.train_dataloader())
    snr = torch.cat([batch.snr for batch in batches])
    rates = torch.cat([batch.rates for batch in batches])
    assert 0.5 <= snr.min() < 0.8
    assert 1.7 < snr.max() <= 2.0
    torch.testing.assert_close((rates[:, 0] + (k - 1) * rates[:, 1]) / k, torch.full((60,), 8.0))
    for (a, b), value in zip(rates.tolist(), snr.tolist(), strict=True):
        assert signal_to_noise(a, b, k) == pytest.approx(value, rel=1e-4)
    assert set((rates[:, 0] - rates[:, 1]).sign().int().tolist()) == signs


def test_degrees_and_communities_follow_the_rates() -> None:
    data = ready(num_nodes=3000, snr=(2.0, 2.0), average_degree=4.0, val_size=1)
    (batch,) = data.val_dataloader()
    assert batch.num_edges / 3000 == pytest.approx(4, rel=0.05)
    source, target = batch.y[batch.edge_index]
    a, b = batch.rates[0].tolist()
    assert (source == target).float().mean() == pytest.approx(a / (a + b), abs=0.03)


def test_the_logarithmic_regime() -> None:
    data = ready(num_nodes=2000, snr=(1.0, 1.0), average_degree=2.0, val_size=1, logarithmic=True)
    (batch,) = data.val_dataloader()
    assert batch.num_edges / 2000 == pytest.approx(2 * math.log(2000), rel=0.05)
    assert batch.rates.mean() == pytest.approx(2 * math.log(2000), rel=1e-5)


def test_the_five_communities_of_the_table() -> None:
    data = ready(num_nodes=400, num_communities=5, average_degree=14.4, snr=(0.9, 0.9), mixture="disassortative")
    batch = next(iter(data.train_dataloader()))
    torch.testing.assert_close(batch.rates, torch.tensor([[0.0, 18.0]] * 2))
    source, target = batch.y[batch.edge_index]
    assert (source != target).all()


def test_every_batch_of_every_epoch_is_new_and_repeats_with_its_seed() -> None:
    loader, again, other = (ready(seed=seed).train_dataloader() for seed in (0, 0, 1))
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        epochs.extend(loader)
    assert all(not same(a, b) for i, a in enumerate(epochs) for b in epochs[:i])
    again.sampler.set_epoch(1)  # as in a resumed run
    assert all(same(a, b) for a, b in zip(again, epochs[3:], strict=True))
    assert not any(same(a, b) for a, b in zip(other, epochs[:3], strict=True))


def test_the_splits_are_fixed_and_apart() -> None:
    data, again = ready(), ready()
    assert all(same(a, b) for a, b in zip(data.val_dataloader(), again.val_dataloader(), strict=True))
    assert all(same(a, b) for a, b in zip(data.val_dataloader(), data.val_dataloader(), strict=True))
    first = [next(iter(loader())) for loader in (data.train_dataloader, data.val_dataloader, data.test_dataloader)]
    assert not same(first[0], first[1])
    assert not same(first[1], first[2])
    whole, single = ready(batch_size=5), ready(batch_size=1)
    assert same(next(iter(whole.val_dataloader())), Batch.from_data_list([b[0] for b in single.val_dataloader()]))


def test_devices_draw_different_graphs() -> None:
    data = ready(steps_per_epoch=4)
    dataset = data.train_dataloader().dataset
    sampler = type(data.train_dataloader().sampler)
    parts = [list(sampler(dataset, ranks=2, rank=rank)) for rank in range(2)]
    assert parts == [[0, 2], [1, 3]]


def test_the_global_state_stays() -> None:
    state = torch.get_rng_state()
    data = ready()
    assert data.train_dataloader().dataset[0].num_graphs == 2
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_workers_draw_the_same_graphs() -> None:
    alone, helped = ready(), ready(num_workers=2)
    assert all(same(a, b) for a, b in zip(alone.train_dataloader(), helped.train_dataloader(), strict=True))


class Degrees(pl.LightningModule):
    """A model that notes what it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.seen: list[int] = []

    def training_step(self, batch: Batch, index: int) -> Tensor:
        self.seen.append(int((batch.edge_index[0] * torch.arange(batch.num_edges)).sum()))
        degree = batch.edge_index[0].bincount(minlength=batch.num_nodes).float()[:, None]
        return nn.functional.cross_entropy(self.layer(degree), batch.y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fitted(folder: Path, epochs: int, resume: Path | None = None, callbacks: Sequence[pl.Callback] = ()) -> Degrees:
    torch.manual_seed(0)
    model = Degrees()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=bool(callbacks),
            callbacks=[*callbacks],
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(model, datamodule=ready(), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / f"after-{epochs}.ckpt")
    return model


def test_a_resumed_run_sees_the_same_graphs(tmp_path: Path) -> None:
    whole = fitted(tmp_path, 2)
    first = fitted(tmp_path, 1)
    resumed = fitted(tmp_path, 2, tmp_path / "after-1.ckpt")
    assert len(set(whole.seen)) == 6
    assert first.seen + resumed.seen == whole.seen
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_run_resumed_amid_an_epoch_goes_on_with_the_next_graphs(tmp_path: Path, step: int) -> None:
    kept = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=step, save_top_k=-1, auto_insert_metric_name=False)
    whole = fitted(tmp_path, 2, callbacks=[kept])
    resumed = fitted(tmp_path, 2, tmp_path / f"{step}.ckpt")
    assert resumed.seen == whole.seen[step:]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_a_recipe_can_hold_it() -> None:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(SBMDataModule, "data")
    config = parser.parse_object({"data": {"snr": [0.9, 0.9], "mixture": "both", "average_degree": 14.4}})
    assert parser.instantiate_classes(config).data.hparams.snr == (0.9, 0.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_nodes": 0}, "num_nodes must be an integer of at least 1, got 0"),
        ({"batch_size": 1.5}, "batch_size must be an integer of at least 1, got 1.5"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be"),
        ({"val_size": True}, "val_size must be"),
        ({"num_workers": -1}, "num_workers must be an integer of at least 0, got -1"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": 2**32}, r"seed must be less than 2\*\*32"),
        ({"mixture": "mixed"}, "mixture must be 'assortative', 'disassortative' or 'both', got 'mixed'"),
        ({"snr": (2.0, 1.0)}, r"snr must be a range .* got \(2.0, 1.0\)"),
        ({"snr": (1.0,)}, "snr must be a range"),
        ({"snr": 2.0}, r"snr must be a range \(least, greatest\) .* got 2.0"),
        ({"snr": (math.nan, 1.0)}, "snr must be a range"),
        ({"snr": (1.0, 3.5)}, "snr must lie from 0 to 3 for 2 assortative communities of average degree 3"),
        ({"num_communities": 5, "mixture": "both"}, "disassortative communities"),
        ({"num_communities": 1}, "num_communities must be an integer of at least 2, got 1"),
        ({"average_degree": 0.0}, "degree must be positive"),
        ({"num_nodes": 4}, "they must be at most 4"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SBMDataModule(**arguments)


def test_a_loader_before_setup_says_what_to_call() -> None:
    with pytest.raises(RuntimeError, match=r"the val split is not drawn: call setup\(\) first"):
        SBMDataModule().val_dataloader()
