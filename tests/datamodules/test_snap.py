"""SNAP's graphs as instances of two communities: tiny files, hostile files and the real ones."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Batch

from lightning_landscape.datamodules import SNAPCommunityDataModule, snap
from lightning_landscape.storage.atomic import CorruptFileError
from lightning_landscape.storage.tensor_files import SnapshotError

Rows = list[tuple[int, ...]]
GADGETS = 20
TRIANGLES: Rows = [(i, i + 1, i + 2) for i in range(0, 6 * GADGETS, 3)]
# Every second triangle is joined to the next by two edges: 20 instances, 40 crossing edges.
EDGES: Rows = [(a, b) for t in TRIANGLES for a in t for b in t if a < b]
EDGES += [(i + a, i + 3) for i in range(0, 6 * GADGETS, 6) for a in (1, 2)]


def lines(rows: Rows) -> bytes:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()


def write(folder: Path, edges: bytes = lines(EDGES), communities: bytes = lines(TRIANGLES), name: str = "dblp") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"com-{name}.ungraph.txt.gz").write_bytes(gzip.compress(edges))
    (folder / f"com-{name}.top5000.cmty.txt").write_bytes(communities)
    return folder


def loaded(root: Path, source: Path | None, **arguments: Any) -> SNAPCommunityDataModule:
    data = SNAPCommunityDataModule(**{"dataset": "dblp", "root": root, "source": source} | arguments)
    data.prepare_data()
    data.setup()
    return data


def test_instances_are_counted_split_and_labelled(tmp_path: Path) -> None:
    source = write(tmp_path / "snap", communities=lines([*TRIANGLES, TRIANGLES[0], TRIANGLES[5][::-1]]))
    data = loaded(tmp_path / "cache", tmp_path)
    assert source.is_dir()
    assert data.counts == {
        "communities": 42, "distinct_communities": 40, "crossing_edges": 40, "raw_instances": 40, "instances": 20,
        "train": 14, "val": 2, "test": 4, "left_out": 0,
    }  # fmt: skip
    assert data.num_classes == 2
    graphs = [graph for split in data.splits.values() for graph in split]
    assert sorted(graph.node_id.tolist() for graph in graphs) == [list(range(i, i + 6)) for i in range(0, 120, 6)]
    for graph in graphs:
        assert graph.y.tolist() == [0, 0, 0, 1, 1, 1]
        assert graph.num_edges == 2 * 8


def test_batches_of_graphs(tmp_path: Path) -> None:
    data = loaded(tmp_path / "cache", write(tmp_path), batch_size=4)
    batches = list(data.train_dataloader())
    assert [batch.num_graphs for batch in batches] == [4, 4, 4, 2]
    for batch in batches:
        assert isinstance(batch, Batch)
        assert torch.equal(batch.edge_index[:, batch.rev_edge], batch.edge_index.flip(0))
        assert batch.y.shape == batch.batch.shape == batch.node_id.shape
    first, again = ([b.node_id.tolist() for b in data.train_dataloader()] for _ in range(2))
    assert first != again  # shuffled
    for loader in (data.val_dataloader, data.test_dataloader, data.predict_dataloader):
        first, again = ([b.node_id.tolist() for b in loader()] for _ in range(2))
        assert first == again


def test_no_node_is_in_two_splits(tmp_path: Path) -> None:
    # A chain: each triangle is joined to the next, so that neighbouring instances share a community.
    chain = lines([*EDGES, *[(i + 5, i + 6) for i in range(0, 114, 6)]])
    data = loaded(tmp_path / "cache", write(tmp_path, edges=chain))
    owned = {split: {i for g in graphs for i in g.node_id.tolist()} for split, graphs in data.splits.items()}
    assert owned["train"].isdisjoint(owned["val"] | owned["test"])
    assert owned["val"].isdisjoint(owned["test"])
    assert data.counts["instances"] == 39
    assert data.counts["left_out"] > 0
    assert sum(data.counts[key] for key in ("train", "val", "test", "left_out")) == 39
    with pytest.raises(ValueError, match=r"39 instances, of which .* for the splits: raise max_nodes"):
        loaded(tmp_path / "cache", tmp_path, val_share=1e-9)


def test_the_seed_alone_decides_and_no_random_state_moves(tmp_path: Path) -> None:
    write(tmp_path)
    before = torch.get_rng_state()
    splits = []
    for seed in (0, 0, 1):
        data = loaded(tmp_path / "cache", tmp_path, seed=seed)
        splits.append({split: [g.node_id[0].item() for g in graphs] for split, graphs in data.splits.items()})
    assert splits[0] == splits[1] != splits[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_nodes_in_both_communities_are_labelled_as_asked(tmp_path: Path) -> None:
    groups: Rows = [(8 * i, 8 * i + 1, 8 * i + 2, 8 * i + 3) for i in range(10)]
    groups += [(8 * i + 3, 8 * i + 4, 8 * i + 5) for i in range(10)]
    edges: Rows = [(8 * i + a, 8 * i + a + 1) for i in range(10) for a in range(5)]
    edges += [(8 * i + 2, 8 * i + 4) for i in range(10)]
    write(tmp_path, lines(edges), lines(groups))
    assert {tuple(g.y.tolist()) for g in loaded(tmp_path / "cache", tmp_path).splits["train"]} == {(0, 0, 0, 0, 1, 1)}
    data = loaded(tmp_path / "cache", tmp_path, overlapping="class")
    assert data.num_classes == 3
    assert {tuple(g.y.tolist()) for g in data.splits["train"]} == {(0, 0, 0, 2, 1, 1)}


def test_instances_are_cut_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(snap, "write_safetensors", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            loaded(tmp_path / "cache", tmp_path)
    assert not list((tmp_path / "cache").rglob("*"))
    data = loaded(tmp_path / "cache", tmp_path)
    made = data.cache.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(snap, "crossing_pairs", _interrupted)
        again = loaded(tmp_path / "cache", tmp_path)
        without_files = loaded(tmp_path / "cache", None)
    assert again.cache.stat().st_mtime_ns == made
    assert again.counts == without_files.counts == data.counts
    # Other files under the same names are other instances.
    write(tmp_path, edges=lines(EDGES[:-2]))
    assert loaded(tmp_path / "cache", tmp_path).counts["instances"] == GADGETS - 1
    assert loaded(tmp_path / "cache", tmp_path, max_nodes=6).cache != data.cache


def _interrupted(*arguments: Any) -> None:
    raise KeyboardInterrupt


def test_a_damaged_cache_is_refused(tmp_path: Path) -> None:
    data = loaded(tmp_path / "cache", write(tmp_path))
    data.cache.write_bytes(data.cache.read_bytes()[:100])
    for source in (tmp_path, None):
        with pytest.raises(SnapshotError, match="Copy it again"):
            loaded(tmp_path / "cache", source)


@pytest.mark.parametrize(
    ("edges", "communities", "message"),
    [
        (b"0 1\n2 3 4\n5\n", b"0 1\n", r"ungraph\.txt\.gz, line 2: 3 numbers, and an edge is two nodes"),
        (b"0 1\n2 a\n", b"0 1\n", r"ungraph\.txt\.gz, line 2: 'a'"),
        (b"# Nodes: 4 Edges: 3\n0 1\n2 3\n", b"0 1\n", r"has 2 edges and its header declares 3"),
        (b"0 1\n2 3\n", b"0 1\n\n2 7\n", r"cmty\.txt, line 3: member 7 of a community has no edge"),
        (b"0 1\n2 3\n", b"0 1\n3.5\n", r"cmty\.txt, line 2: '\.'"),
    ],
)
def test_malformed_files_are_named_with_their_line(
    edges: bytes, communities: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CorruptFileError, match=message):
        loaded(tmp_path / "cache", write(tmp_path, edges, communities))
    assert not (tmp_path / "cache").exists()


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "com-dblp.ungraph.txt.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(CorruptFileError, match="truncated or damaged"):
        loaded(tmp_path / "cache", tmp_path)


def test_missing_files_and_empty_results_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give source"):
        loaded(tmp_path / "cache", None)
    with pytest.raises(FileNotFoundError, match=r"com-dblp\.ungraph\.txt is missing.*com-DBLP\.html"):
        loaded(tmp_path / "cache", tmp_path)
    write(tmp_path)
    (tmp_path / "com-dblp.top5000.cmty.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"com-dblp\.top5000\.cmty\.txt is missing"):
        loaded(tmp_path / "cache", tmp_path)
    with pytest.raises(ValueError, match="40 edges cross communities: raise max_nodes"):
        loaded(tmp_path / "cache", write(tmp_path), max_nodes=5)
    with pytest.raises(ValueError, match="0 edges cross communities"):
        loaded(tmp_path / "cache", write(tmp_path, communities=b""))
    with pytest.raises(RuntimeError, match="call prepare_data"):
        SNAPCommunityDataModule(root=tmp_path).train_dataloader()


def test_bad_arguments_are_refused() -> None:
    for arguments in (
        {"dataset": "orkut"}, {"overlapping": "both"}, {"batch_size": 0}, {"max_nodes": 1}, {"seed": -1},
        {"num_workers": -1}, {"min_ratio": 1.0}, {"val_share": 0.0}, {"test_share": 0.95}, {"max_nodes": True},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(arguments))):
            SNAPCommunityDataModule(**arguments)  # type: ignore[arg-type]


def test_youtube_sample(data_root: Path, tmp_path: Path) -> None:
    """The loader alone: the sample has its own numbers, so that no count is comparable with the full graph's."""
    sample = data_root / "snap" / "youtube-sample"
    if not sample.is_dir():
        pytest.skip(f"needs {sample}")
    names = {"communitygan_com-youtube_train": "ungraph", "communitygan_com-youtube.sampled.cmty": "top5000.cmty"}
    for theirs, ours in names.items():
        shutil.copyfile(sample / f"{theirs}.txt", tmp_path / f"com-youtube.{ours}.txt")
    data = loaded(tmp_path, tmp_path, dataset="youtube", max_nodes=100, val_share=0.3, test_share=0.3)
    assert (data.counts["communities"], data.counts["distinct_communities"], data.counts["instances"]) == (100, 95, 11)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "distinct", "crossing", "raw", "instances"),
    [("amazon", 1517, 115, 114, 67), ("dblp", 4961, 41071, 5694, 3610)],
)
def test_counts_of_the_real_graphs(
    dataset: str, distinct: int, crossing: int, raw: int, instances: int, data_root: Path, tmp_path: Path
) -> None:
    data = loaded(tmp_path, data_root, dataset=dataset)
    assert data.counts["communities"] == 5000
    assert data.counts["distinct_communities"] == distinct
    assert data.counts["crossing_edges"] == crossing
    assert (data.counts["raw_instances"], data.counts["instances"]) == (raw, instances)
    for graphs in data.splits.values():
        for graph in graphs:
            assert graph.num_nodes <= 500
            assert graph.y.bincount().shape == (2,)
            crossing_edges = graph.y[graph.edge_index].ne(graph.y[graph.edge_index].flip(0)).any(0)
            assert crossing_edges.any()


def test_files_of_an_editor_give_the_same_instances(tmp_path: Path) -> None:
    plain = loaded(tmp_path / "a", write(tmp_path / "plain"))
    edited = [b"\xef\xbb\xbf" + lines(rows).replace(b"\n", b"\r\n") for rows in (EDGES, TRIANGLES)]
    other = loaded(tmp_path / "b", write(tmp_path / "edited", *edited))
    assert other.counts == plain.counts
    for split, graphs in plain.splits.items():
        assert all(torch.equal(*pair) for pair in zip(
            (graph.edge_index for graph in graphs), (graph.edge_index for graph in other.splits[split]), strict=True
        ))  # fmt: skip
