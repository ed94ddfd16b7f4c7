"""Pairs of ground-truth communities in SNAP's large graphs, as small graphs to detect them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch_geometric.loader import DataLoader

from lightning_landscape.community.crossing_pairs import crossing_pairs
from lightning_landscape.community.disjoint_split import disjoint_split
from lightning_landscape.community.graph import CommunityGraph
from lightning_landscape.community.instances import Overlapping, TwoCommunityInstances, two_community_instances
from lightning_landscape.datamodules.caches.edge_lists import PAGES, find_snap_files
from lightning_landscape.storage.atomic import CorruptFileError
from lightning_landscape.storage.tensor_files import read_safetensors, write_safetensors

_SPLITS = ("train", "val", "test")
_STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}


class SNAPCommunityDataModule(LightningDataModule):
    r"""Community detection on com-Amazon, com-DBLP or com-Youtube, cut into graphs of two communities each.

    An instance belongs to an edge {u, v} whose ends are in different ground-truth communities: C1 is the largest that
    holds one end and not the other, C2 the largest the other way around, and the graph is what the large graph
    induces on the union of C1 and C2 (Chen, Li and Bruna 2019, on SNAP). Only the 5,000 best communities that SNAP
    lists count. Communities with the same members count once (com-Amazon lists most of them several times), and so
    does a pair that several edges lead to: ``counts`` says how many there were before and after.

    No node is in two splits, and so no community either. An instance that would join two splits is left out.
    Instances go to ``test`` and ``val`` by their shares, and the rest to ``train``, in an order drawn from ``seed``.

    A batch is a PyG ``Batch`` of :class:`~lightning_landscape.community.graph.CommunityGraph` with labels ``y`` and
    the attribute ``node_id`` (n,), the number of each node in the file. The global random state is left as it is, but
    for the order of training batches, which comes from it as usual.

    Args:
        dataset: ``"amazon"``, ``"dblp"`` or ``"youtube"``.
        root: cache folder, for the instances.
        source: folder that holds, itself or in ``snap``, ``com-NAME.ungraph.txt`` and ``com-NAME.top5000.cmty.txt``,
            gzipped or not. It is only read. ``None`` takes the instances in ``root`` as they are.
        batch_size: graphs in a batch.
        overlapping: label of the nodes in both communities. ``"larger"``: that of the larger community, 0; the others
            have 1. ``"class"``: a third, 2, next to 0 and 1 for C1 and C2 alone, as in the first program of the
            authors; a graph may have none.
        max_nodes: the largest graph, at least 2 nodes.
        min_ratio: the smaller community has more than this times the members of the larger, in [0, 1).
        val_share: share of the instances to validate on, in (0, 1).
        test_share: share of the instances to test on, in (0, 1).
        seed: random seed of the split, in [0, 2^32).
        num_workers: processes that load, 0 for the main one.

    Attributes:
        num_classes: 2, or 3 with ``overlapping="class"``.
        counts: set by ``setup``: ``communities`` listed and ``distinct_communities`` among them; ``crossing_edges``,
            ``raw_instances``, those of them within the limits, and ``instances``, the distinct pairs that these lead
            to; ``train``, ``val``, ``test`` and ``left_out``, which sum to ``instances``.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> triangles = [(i, i + 1, i + 2) for i in range(0, 18, 3)]  # an edge joins the 1st to the 2nd, and so on
        >>> edges = [(a, b) for t in triangles for a in t for b in t if a < b] + [(2, 3), (8, 9), (14, 15)]
        >>> for name, rows in (("ungraph", edges), ("top5000.cmty", triangles)):
        ...     _ = (folder / f"com-dblp.{name}.txt").write_text("".join(" ".join(map(str, r)) + "\n" for r in rows))
        >>> data = SNAPCommunityDataModule("dblp", folder, folder, val_share=0.3, test_share=0.3)
        >>> data.prepare_data()
        >>> data.setup()
        >>> data.counts["instances"], data.counts["train"], data.counts["left_out"]
        (3, 1, 0)
        >>> next(iter(data.train_dataloader())).y
        tensor([0, 0, 0, 1, 1, 1])
    """

    def __init__(
        self,
        dataset: Literal["amazon", "dblp", "youtube"] = "amazon",
        root: str | Path = "data",
        source: str | Path | None = None,
        batch_size: int = 8,
        overlapping: Overlapping = "larger",
        max_nodes: int = 500,
        min_ratio: float = 0.05,
        val_share: float = 0.1,
        test_share: float = 0.2,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if dataset not in PAGES:
            raise ValueError(f"dataset must be one of {[*PAGES]}, got {dataset!r}")
        if overlapping not in ("larger", "class"):
            raise ValueError(f"overlapping must be 'larger' or 'class', got {overlapping!r}")
        for name, value, least in (("batch_size", batch_size, 1), ("max_nodes", max_nodes, 2), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**32:
                raise ValueError(f"{name} must be an integer of at least {least} and below 2**32, got {value!r}")
        if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
            raise ValueError(f"num_workers must be an integer of at least 0, got {num_workers!r}")
        if not 0 <= min_ratio < 1:
            raise ValueError(f"min_ratio must lie in [0, 1), got {min_ratio!r}")
        if not (val_share > 0 and test_share > 0 and val_share + test_share < 1):
            raise ValueError(
                "val_share and test_share must be positive and leave something to train on, "
                f"got {val_share!r} and {test_share!r}"
            )
        # Plain strings, because checkpoints that hold a Path do not load with weights_only.
        root, source = str(root), None if source is None else str(source)
        self.dataset = dataset
        self.root = Path(root).expanduser()
        self.source = None if source is None else Path(source).expanduser()
        self.batch_size = batch_size
        self.overlapping: Overlapping = overlapping
        self.num_classes = 2 if overlapping == "larger" else 3
        self.max_nodes = max_nodes
        self.min_ratio = min_ratio
        self.shares = {"train": 1 - val_share - test_share, "val": val_share, "test": test_share}
        self.seed = seed
        self.num_workers = num_workers
        self.counts: dict[str, int] = {}
        self.splits: dict[str, list[CommunityGraph]] = {}
        self.save_hyperparameters()

    @property
    def cache(self) -> Path:
        """The file in ``root`` that holds the instances."""
        return self.root / "snap" / f"{self.dataset}-{self.max_nodes}-nodes-ratio-{self.min_ratio}.safetensors"

    def prepare_data(self) -> None:
        """Cut the instances out of the files in ``source``, unless ``root`` holds those of the same files already.

        Raises:
            FileNotFoundError: if a file is missing.
            CorruptFileError: if one is damaged, or is not of one graph with the other.
            ValueError: if there is no instance within ``max_nodes`` and ``min_ratio``.
        """
        if self.source is None:
            if not self.cache.is_file():
                raise FileNotFoundError(f"{self.cache} is missing: give source, the folder of SNAP's files")
            return
        files = find_snap_files(self.source, self.dataset)
        digest = files.digest()
        if self.cache.is_file() and read_safetensors(self.cache, tensors=False)[0].get("digest") == digest:
            return
        graph, listed = files.read()
        found = crossing_pairs(graph, self.max_nodes, self.min_ratio)
        if len(found.pairs) == 0:
            raise ValueError(
                f"com-{self.dataset} has no pair of communities with max_nodes={self.max_nodes} and "
                f"min_ratio={self.min_ratio}; {found.crossing_edges} edges cross communities: raise max_nodes, or "
                "lower min_ratio"
            )
        counts = {
            "communities": listed,
            "distinct_communities": graph.memberships.shape[1],
            "crossing_edges": found.crossing_edges,
            "raw_instances": found.raw,
            "instances": len(found.pairs),
        }
        instances = two_community_instances(graph, found.pairs)
        write_safetensors(self.cache, vars(instances), {"digest": digest, "counts": json.dumps(counts)})

    def setup(self, stage: str | None = None) -> None:
        """Split the instances and make the graphs that ``stage`` needs, ``None`` for all.

        Raises:
            SnapshotError: if the cached file is damaged.
            ValueError: if a split would be empty.
        """
        wanted = [split for split in _STAGES.get(stage or "", _SPLITS) if split not in self.splits]
        if not wanted:
            return
        header, tensors = read_safetensors(self.cache)
        if "counts" not in header:
            raise CorruptFileError(f"{self.cache} holds no instances: delete it, and they are cut out anew")
        instances = TwoCommunityInstances(**tensors)
        nodes = torch.unique(instances.node_ids, return_inverse=True)[1].split(instances.node_counts.tolist())
        parts = disjoint_split([part.numpy() for part in nodes], [*self.shares.values()], self.seed)
        sizes = {split: len(part) for split, part in zip(_SPLITS, parts, strict=True)}
        if not all(sizes.values()):
            raise ValueError(
                f"com-{self.dataset} has {len(instances)} instances, of which {sizes} for the splits: raise max_nodes "
                "or the share of the empty one, or try another seed"
            )
        self.counts = {**json.loads(header["counts"]), **sizes, "left_out": len(instances) - sum(sizes.values())}
        graphs = instances.graphs(self.overlapping)
        self.splits |= {split: [graphs[i] for i in part] for split, part in zip(_SPLITS, parts, strict=True)}

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of the training graphs."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Batches of the validation graphs."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        """Batches of the test graphs."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Batches of the test graphs."""
        return self._loader("test")

    def _loader(self, split: str, **options: Any) -> DataLoader:
        if split not in self.splits:
            raise RuntimeError(f"the {split} split is not loaded: call prepare_data() and setup() first")
        return DataLoader(
            self.splits[split],
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )
