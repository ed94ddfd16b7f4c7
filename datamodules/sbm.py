"""Graphs of the symmetric stochastic block model, fresh ones at every step of training."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Batch

from lightning_landscape.community.graph import CommunityGraph
from lightning_landscape.community.sbm import stochastic_block_model
from lightning_landscape.community.thresholds import rates_from_snr, symmetric_connectivity
from lightning_landscape.datamodules.parts.fresh_batches import FreshSampler, stream

Mixture = Literal["assortative", "disassortative", "both"]


class SBMDataModule(LightningDataModule):
    """Batches of graphs with k equal communities, of one average degree and of SNRs uniform in a range.

    A batch is a PyG ``Batch`` of :class:`~lightning_landscape.community.graph.CommunityGraph`: ``edge_index``,
    ``rev_edge``, ``y``, ``batch``, and for each graph ``snr`` (graphs,) and ``rates`` (graphs, 2), which are n times
    the probabilities of an edge within and between communities, for methods that are told the parameters.

    Training batches are drawn anew for every step of every epoch, from ``(seed, number of the step)`` alone: they
    repeat in a resumed run and with any number of workers, and neither read nor move the global random state.
    Validation and test graphs are fixed and drawn by the same law.

    Args:
        num_nodes: n, of each graph.
        num_communities: k.
        average_degree: d.
        snr: the range ``(least, greatest)``, for example around 1, the Kesten-Stigum threshold. Equal ends fix it.
        mixture: more edges within communities (``"assortative"``), fewer (``"disassortative"``) or, for each graph,
            either with probability 1/2 (``"both"``).
        logarithmic: multiply all probabilities by log(n): the average degree is then ``average_degree * log(n)``, and
            communities can be found exactly where :func:`~lightning_landscape.community.thresholds.exact_recovery`.
        batch_size: graphs in a batch.
        steps_per_epoch: training batches in an epoch, over all devices.
        val_size: graphs to validate on.
        test_size: graphs to test on.
        seed: random seed of all graphs.
        num_workers: processes that draw training batches, 0 for the main one.

    Raises:
        ValueError: if an argument is out of its range, or if no graph has such an SNR and average degree.

    Example:
        >>> data = SBMDataModule(num_nodes=50, snr=(1.5, 2.0), batch_size=2, val_size=4)
        >>> data.setup("fit")
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch.num_graphs, batch.y.bincount(), bool((batch.snr >= 1.5).all())
        (2, tensor([50, 50]), True)
    """

    def __init__(
        self,
        num_nodes: int = 1000,
        num_communities: int = 2,
        average_degree: float = 3.0,
        snr: tuple[float, float] = (1.0, 2.5),
        mixture: Mixture = "assortative",
        logarithmic: bool = False,
        batch_size: int = 1,
        steps_per_epoch: int = 100,
        val_size: int = 50,
        test_size: int = 100,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        counts = {"num_nodes": num_nodes, "batch_size": batch_size, "steps_per_epoch": steps_per_epoch}
        for name, count in {**counts, "val_size": val_size, "test_size": test_size}.items():
            _require_integer(name, count, least=1)
        _require_integer("num_workers", num_workers, least=0)
        _require_integer("seed", seed, least=0)
        if seed >= 2**32:
            raise ValueError(f"seed must be less than 2**32, got {seed!r}")
        if mixture not in ("assortative", "disassortative", "both"):
            raise ValueError(f"mixture must be 'assortative', 'disassortative' or 'both', got {mixture!r}")
        if not isinstance(snr, tuple | list) or len(snr) != 2 or not 0 <= snr[0] <= snr[1] < math.inf:
            raise ValueError(f"snr must be a range (least, greatest) of at least 0, got {snr!r}")
        snr = (float(snr[0]), float(snr[1]))
        self.save_hyperparameters()
        self.law = GraphLaw(num_nodes, num_communities, average_degree, snr, mixture, logarithmic)
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.sizes = {"val": val_size, "test": test_size}
        self.seed = seed
        self.num_workers = num_workers
        self._batches: dict[str, list[Batch]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Draw the fixed graphs that ``stage`` needs, ``None`` for all."""
        wanted = {"fit": ["val"], "validate": ["val"], "test": ["test"], "predict": ["test"]}
        for split in wanted.get(stage or "", ["val", "test"]):
            if split not in self._batches:
                graphs = [self.law.draw(stream(self.seed, split, number)) for number in range(self.sizes[split])]
                self._batches[split] = [
                    Batch.from_data_list(graphs[start : start + self.batch_size])
                    for start in range(0, len(graphs), self.batch_size)
                ]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of graphs drawn anew at every step."""
        dataset = FreshGraphs(self.law, self.batch_size, self.steps_per_epoch, self.seed)
        return self._loader(dataset, FreshSampler.of_trainer(dataset, self.trainer))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the fixed validation graphs."""
        return self._loader(self._split("val"))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the fixed test graphs."""
        return self._loader(self._split("test"))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of the fixed test graphs."""
        return self.test_dataloader()

    def _split(self, name: str) -> Any:
        if name not in self._batches:
            raise RuntimeError(f"the {name} split is not drawn: call setup() first")
        return self._batches[name]

    def _loader(self, dataset: Any, sampler: FreshSampler | None = None) -> DataLoader[Batch]:
        workers = self.num_workers if sampler is not None else 0  # what is fixed lies in memory
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class GraphLaw:
    """The law of one graph; arguments as for :class:`SBMDataModule`."""

    def __init__(
        self,
        num_nodes: int,
        num_communities: int,
        average_degree: float,
        snr: tuple[float, float],
        mixture: Mixture,
        logarithmic: bool,
    ) -> None:
        self.num_nodes = num_nodes
        self.num_communities = num_communities
        self.average_degree = average_degree
        self.snr = snr
        self.signs = {"assortative": (True,), "disassortative": (False,), "both": (True, False)}[mixture]
        self.logarithmic = logarithmic
        for assortative in self.signs:  # the largest probabilities come with the largest SNR
            self._connectivity(snr[1], assortative)

    def draw(self, generator: torch.Generator) -> CommunityGraph:
        """A graph, with its ``snr`` (1,) and ``rates`` (1, 2)."""
        least, greatest = self.snr
        snr = least + (greatest - least) * torch.rand((), generator=generator, dtype=torch.float64).item()
        assortative = self.signs[int(torch.randint(len(self.signs), (), generator=generator))]
        connectivity = self._connectivity(snr, assortative)
        graph = stochastic_block_model(self.num_nodes, connectivity, generator=generator)
        graph.snr = torch.tensor([snr], dtype=torch.float32)
        graph.rates = (self.num_nodes * connectivity[:1, :2]).float()
        return graph

    def _connectivity(self, snr: float, assortative: bool) -> torch.Tensor:
        a, b = rates_from_snr(snr, self.average_degree, self.num_communities, assortative)
        return symmetric_connectivity(self.num_nodes, a, b, self.num_communities, self.logarithmic)


class FreshGraphs(Dataset[Batch]):
    """Item i is batch number i, drawn from ``(seed, i)``; the items below ``len`` make the first epoch.

    Args:
        law: distribution that the graphs are drawn from.
        batch_size: graphs in a batch.
        steps_per_epoch: batches in an epoch.
        seed: random seed of all batches.
    """

    def __init__(self, law: GraphLaw, batch_size: int, steps_per_epoch: int, seed: int) -> None:
        self.law = law
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed

    def __getitem__(self, index: int) -> Batch:
        generator = stream(self.seed, "train", index)
        return Batch.from_data_list([self.law.draw(generator) for _ in range(self.batch_size)])

    def __len__(self) -> int:
        return self.steps_per_epoch


def _require_integer(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
