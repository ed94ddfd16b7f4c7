"""What the SNAP tables are made of."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pytest
import torch

from lightning_landscape.community import community_graph
from scripts.reproduce.community import snap as community_snap
from scripts.reproduce.shared.kept import KeptError, keep


def test_figures_of_a_labelling() -> None:
    small = community_graph(torch.tensor([[0], [1]]), 4, torch.tensor([0, 0, 1, 1]))
    large = community_graph(torch.tensor([[0], [1]]), 10, torch.tensor([1] * 8 + [0] * 2))
    one = community_snap.evaluated(community_snap.one_label, [small, large])
    # 2 of 4 and 8 of 10 nodes: overlaps 0 and 0.6, accuracy 10 of 14.
    assert math.isclose(one["overlap"], 0.3)
    assert math.isclose(one["accuracy"], 10 / 14)
    swapped = community_snap.evaluated(lambda graph: 1 - graph.y, [small, large])
    assert (swapped["overlap"], swapped["accuracy"]) == (1.0, 1.0)


def test_the_table_shows_ours_beside_the_published_figures() -> None:
    results = [{"overlap": value, "accuracy": 0.9, "chance": 0.1, "cpu_seconds": 2.0} for value in (0.5, 0.7)]
    rows = {"CommunityGNN": results, "AffiliationGraphFit": results[:1], "LineGraphGNN": results[:1]}
    amazon, dblp = (community_snap.table(name, rows).splitlines() for name in ("amazon", "dblp"))
    assert amazon[2] == "| CommunityGNN | 0.600 -+ 0.141 | 0.900 -+ 0.000 | 2 | .74 | - |"
    assert dblp[3] == "| AffiliationGraphFit | 0.500 | 0.900 | 2 | .64 (SNAP's program) | - |"
    assert dblp[4].endswith("| - | .87 |")


@pytest.mark.parametrize("dataset", ["amazon", "dblp"])
def test_results_that_are_there_are_not_made_again(dataset: str, tmp_path: Path) -> None:
    kept = {"overlap": 0.25, "accuracy": 0.5, "chance": 0.1, "cpu_seconds": 1.0, "counts": {}}
    path = tmp_path / f"{dataset}-one-label-0.json"
    options = argparse.Namespace(out=tmp_path, source=tmp_path / "nowhere")
    path.write_text(json.dumps(kept))  # a file of the right name alone
    with pytest.raises(KeptError, match=r"one-label-0.json is damaged"):
        community_snap.measure(dataset, "one label", 0, options)
    settings = {"dataset": dataset, "method": "one label", "seed": 0, "recipe": community_snap.recipe(dataset)}
    keep(path, settings | {"recipe": {}}, kept)
    with pytest.raises(KeptError, match=r"made with other settings \(recipe: "):
        community_snap.measure(dataset, "one label", 0, options)
    keep(path, settings, kept)
    assert community_snap.measure(dataset, "one label", 0, options) == kept
    with pytest.raises(FileNotFoundError, match=f"com-{dataset}"):
        community_snap.measure(dataset, "one label", 1, options)
