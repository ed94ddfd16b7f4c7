"""Proved separations where users meet them: verdict, conclusion, table, command, merge tree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_landscape import Connection, Verdict
from lightning_landscape.certificates import separation_bound
from lightning_landscape.certificates.apart import judged, proved_floors
from lightning_landscape.cli import main
from lightning_landscape.components import MergeTree, search_heights
from lightning_landscape.finders import LinearPath
from lightning_landscape.report.conclusion import conclusion
from lightning_landscape.report.tables import check_table, connection_table, merge_table
from lightning_landscape.report.tree_figure import tree_figure
from tests.certificates.test_separation import exchanged, planted, surface_of


def test_a_failed_search_between_separated_points_becomes_a_proof() -> None:
    module, theta, batch = planted(0)
    surface, other = surface_of(module, batch), exchanged(theta, [1, 0, 2])
    searched = LinearPath().connect(surface, theta, other, margin=0.05)
    found = judged(surface, searched, theta, other)
    assert searched.verdict == Verdict.NOT_FOUND
    assert found.verdict == Verdict.SEPARATED
    assert found.reason is None
    assert found.floor == separation_bound(module, batch) > found.level
    assert Connection.from_dict(json.loads(json.dumps(found.to_dict()))) == replace(found, path=None)
    text = f"The two are separated: it is proved that every path between them rises to {found.floor:.4g} or more."
    assert conclusion(found).endswith(text)
    table = connection_table(found.to_dict())
    assert [str(cell) for cell in list(table.columns[1].cells)[:2]] == ["separated (proved)", f"{found.floor:.6g}"]
    assert "never proves" not in str(check_table([{"epoch": 0, **found.to_dict()}]).caption)


def test_a_level_above_the_floor_leaves_the_verdict() -> None:
    module, theta, batch = planted(0)
    surface, other = surface_of(module, batch), exchanged(theta, [1, 0, 2])
    searched = LinearPath().connect(surface, theta, other, level=1.01 * separation_bound(module, batch))
    assert judged(surface, searched, theta, other) is searched
    same = LinearPath().connect(surface, theta, theta.clone(), margin=0.05)
    assert judged(surface, same, theta, theta) is same


def test_a_path_that_missed_its_peak_is_not_called_connected() -> None:
    module, theta, batch = planted(0)
    surface, other = surface_of(module, batch), exchanged(theta, [1, 0, 2])
    searched = LinearPath().connect(surface, theta, other, margin=0.05)
    missed = replace(searched, verdict=Verdict.CONNECTED, reason=None, height=searched.level)
    assert judged(surface, missed, theta, other).verdict == Verdict.SEPARATED
    assert judged(surface, missed, theta, other).height == separation_bound(module, batch)


def test_a_reordered_end_needs_a_proof_for_all_reorderings() -> None:
    module, theta, batch = planted(0)
    surface, other = surface_of(module, batch), exchanged(theta, [1, 0, 2])
    searched = replace(LinearPath().connect(surface, theta, other, margin=0.05), aligned=True)
    assert judged(surface, searched, theta, other) is searched


def test_a_row_of_before_reads_without_a_proof() -> None:
    row = Connection.failed(ValueError("none")).to_dict()
    del row["floor"]
    assert np.isnan(Connection.from_dict(row).floor)


def test_a_tree_of_separated_points_has_intervals_and_a_range() -> None:
    module, theta, batch = planted(1)
    grown = theta * torch.tensor([2.0, 2, 2, 2, 2, 2, 0.5, 0.5, 0.5, 1], dtype=torch.float64)
    points = {"a": theta, "a grown": grown, "b": exchanged(theta, [1, 0, 2]), "c": exchanged(theta, [2, 1, 0])}
    surface, height = surface_of(module, batch), separation_bound(module, batch)
    found = search_heights(surface, points, LinearPath())
    tree = found.tree()
    assert (tree.floors[0, 2], tree.floors[2, 3]) == (height, height)
    assert tree.floors[0, 1] == tree.losses[:2].max()
    level = 0.9 * height
    assert tree.fewest_components(level) == 3
    assert tree.num_components(level) >= 3
    assert tree.fewest_components(height) == 1
    assert all(low <= high for low, high in tree.intervals())
    assert tree.intervals()[-1][0] == height
    assert [str(cell) for cell in merge_table(tree).columns[0].cells][-1] == f"{height:.4g}"
    assert "dashed" in tree_figure(tree).axes[1].get_xlabel()
    back = MergeTree.from_dict(json.loads(json.dumps(tree.to_dict())))
    assert np.array_equal(back.floors, tree.floors)
    old = {key: value for key, value in tree.to_dict().items() if key != "floors"}
    assert MergeTree.from_dict(old).fewest_components(level) == 1


def test_a_height_below_a_floor_is_raised_to_it() -> None:
    tree = MergeTree.from_heights([0.0, 0.0], [[0, 0.3], [0.3, 0]], floors=[[0, 0.5], [0.5, 0]])
    assert tree.merges[0].height == 0.5
    with pytest.raises(ValueError, match="symmetric"):
        MergeTree.from_heights([0.0, 0.0], [[0, 1], [1, 0]], floors=[[0, 0.5], [0.4, 0]])
    with pytest.raises(ValueError, match="shape"):
        MergeTree.from_heights([0.0, 0.0], [[0, 1], [1, 0]], floors=[0.5])


def test_surfaces_without_a_proof_have_no_floor() -> None:
    surface = surface_of(torch.nn.Linear(2, 1), (torch.randn(4, 2), torch.randn(4, 1)))
    points = [torch.zeros(3), torch.ones(3), torch.full((3,), torch.nan)]
    assert np.isneginf(proved_floors(surface, points)).all()


PROJECT = """
import torch
from lightning_landscape.models import ReLUNetwork
from torch.utils.data import DataLoader, TensorDataset

def make():
    s = torch.arange(6.0, dtype=torch.float64)[:, None]
    data = TensorDataset(torch.cat([s, torch.ones_like(s)], 1), (s - 1).relu() - 2 * (s - 3).relu())
    return ReLUNetwork([2, 2, 1]).double(), DataLoader(data, batch_size=6)
"""


def test_the_commands_say_what_is_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tents.py").write_text(PROJECT)
    units, out = torch.tensor([[1.0, -1.0], [1.0, -3.0]]).double(), torch.tensor([[1.0, -2.0]]).double()
    for name, order in (("a", [0, 1]), ("b", [1, 0])):
        state = {"layers.0.weight": units[order], "layers.2.weight": out[:, order]}
        torch.save({"state_dict": state}, tmp_path / f"{name}.ckpt")
    monkeypatch.chdir(tmp_path)
    for command, code in ((["connect", "--level", "0.01"], 4), (["components", "--level", "0.01"], 3)):
        with pytest.raises(SystemExit) as ended:
            main([*command, "a.ckpt", "b.ckpt", "--from", "tents.py:make", "--budget", "50"])
        assert ended.value.code == code
    said = " ".join(capsys.readouterr().out.split())
    assert "separated (proved)" in said
    assert "every path between them rises to 0.02778 or more" in said
    assert "Proved: N_u is at least 2" in said
    (file,) = (tmp_path / "landscape" / "connect").glob("*/connection.json")
    assert json.loads(file.read_text())["verdict"] == "separated"
    components = json.loads((tmp_path / "landscape" / "components" / "components.json").read_text())
    assert components["fewest_components"] == components["num_components"] == 2
