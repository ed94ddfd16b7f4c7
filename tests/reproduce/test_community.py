"""What the tables and figures of communities are made of."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_landscape.cli import main as landscape
from lightning_landscape.community import CommunityGraph
from lightning_landscape.metrics.overlap import chance_overlap
from lightning_landscape.models import CommunityGNN
from scripts.reproduce.community import __main__ as community
from scripts.reproduce.community import disassortative as community_disassortative
from scripts.reproduce.community import landscape as community_landscape
from scripts.reproduce.community import methods as community_methods
from scripts.reproduce.community import overlap as community_overlap
from scripts.reproduce.community.methods import NETWORKS, GraphSet, Network, measured, scores
from scripts.reproduce.shared.pages import PageError

SMALL = GraphSet(40, 2, 6.0, 3.0, True, 3)
PNG = b"\x89PNG"


def checkpoint(path: Path, steps: int, seed: int) -> Path:
    """A file such as Lightning writes."""
    torch.manual_seed(seed)
    model = CommunityGNN(num_layers=1, num_features=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "global_step": steps}
    torch.save(content | {"pytorch-lightning_version": "2.6.0", "epoch": 0}, path)
    return path


def test_graphs_repeat_and_follow_their_law() -> None:
    graphs = GraphSet(1000, 2, 3.0, 4 / 3, True, 2)
    torch.testing.assert_close(graphs.connectivity, torch.tensor([[5e-3, 1e-3], [1e-3, 5e-3]], dtype=torch.float64))
    first, second = graphs.draw()
    assert torch.equal(first.edge_index, graphs.draw()[0].edge_index)
    assert not torch.equal(first.y, second.y)
    five = GraphSet(400, 5, community_disassortative.DEGREE, community_disassortative.RATIO, False, 1)
    expected = (1 - torch.eye(5, dtype=torch.float64)) * 18 / 400
    torch.testing.assert_close(five.connectivity, expected)


def test_scores_of_the_truth_of_a_constant_and_of_half_the_truth() -> None:
    truth = scores(lambda graph: 1 - graph.y, SMALL)
    assert truth["overlap"] == [1.0, 1.0, 1.0]
    assert truth["chance"] == pytest.approx(chance_overlap(20, 20))
    assert truth["unconverged"] == 0
    assert scores(lambda graph: torch.zeros_like(graph.y), SMALL)["overlap"] == [0.0, 0.0, 0.0]

    def unsure(graph: CommunityGraph) -> torch.Tensor:
        warnings.warn("has not converged", RuntimeWarning, stacklevel=2)
        labels = graph.y.clone()
        labels[:10] = 1 - labels[:10]
        return labels

    half = scores(unsure, SMALL)
    assert half["overlap"] == pytest.approx([0.5, 0.5, 0.5])
    assert half["unconverged"] == 3


@pytest.mark.parametrize("name", community_methods.BASELINES)
@pytest.mark.parametrize("assortative", [True, False])
def test_each_method_finds_obvious_communities(name: str, assortative: bool, tmp_path: Path) -> None:
    graphs = GraphSet(80, 2, 16.0, 14.0, assortative, 1)
    row = measured(graphs, [name], {}, tmp_path / "rows")[name]
    assert row["overlap"][0] > 0.9


def test_finished_pieces_are_not_done_again_and_new_weights_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, file = NETWORKS["overlap"]["CommunityGNN"], tmp_path / "run" / "checkpoints" / "best.ckpt"
    trained = {"CommunityGNN": (network, checkpoint(file, steps=70, seed=0))}
    rows = measured(SMALL, ["LaplacianSpectral"], trained, tmp_path / "rows")
    assert rows["CommunityGNN"]["steps"] == 70
    layers = CommunityGNN(num_layers=1, num_features=2).parameters()
    assert rows["CommunityGNN"]["parameters"] == sum(parameter.numel() for parameter in layers)

    count = 0

    def counted(*arguments: Any) -> dict[str, Any]:
        nonlocal count
        count += 1
        return {"overlap": [0.0], "steps": 71}

    monkeypatch.setattr(community_methods, "scores", counted)
    again = measured(SMALL, ["LaplacianSpectral"], trained, tmp_path / "rows")
    assert (again, count) == (rows, 0)
    checkpoint(file, steps=71, seed=1)
    newer = measured(SMALL, ["LaplacianSpectral"], trained, tmp_path / "rows")
    assert (newer["CommunityGNN"]["steps"], count) == (71, 1)


def test_learning_curve_of_a_run_and_its_resumption(tmp_path: Path) -> None:
    for version, lines in ((0, "0,9,,0.1\n0,5,1.0,\n1,19,,0.2\n"), (1, "1,19,,0.25\n2,109,,0.3\n")):
        folder = tmp_path / "log" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("epoch,step,train/loss,val/overlap\n" + lines)
    curve = community_methods.learning_curve(tmp_path / "checkpoints" / "best.ckpt")
    assert list(curve.items()) == [("9", 0.1), ("19", 0.25), ("109", 0.3)]
    assert community_methods.learning_curve(tmp_path / "other" / "checkpoints" / "best.ckpt") == {}


def test_training_goes_on_where_it_was_interrupted_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(CommunityGNN, "sbm_gnn", ("--model.init_args.linear", "true"))
    commands: list[list[str]] = []

    def run(command: list[str], cwd: Path, check: bool) -> None:
        commands.append(command)
        checkpoint(cwd / "runs" / "sbm_gnn" / "checkpoints" / "last.ckpt", 1, 0)
        if len(commands) == 1:
            raise subprocess.CalledProcessError(-9, command)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(subprocess.CalledProcessError):
        network.train(tmp_path)
    best = network.train(tmp_path)
    assert network.train(tmp_path) == best == tmp_path / "runs" / "sbm_gnn" / "checkpoints" / "best.ckpt"
    first, second = commands
    assert first[:4] == [sys.executable, "-m", "lightning_landscape", "fit"]
    assert first[-2:] == ["--model.init_args.linear", "true"]
    assert second == [*first, "--ckpt_path", str(best.with_name("last.ckpt"))]


def test_networks_of_one_name_are_trained_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "train", lambda network, folder: folder)
    folders = []
    for part in NETWORKS:
        options = argparse.Namespace(part=part, out=tmp_path, networks=[*NETWORKS[part]], checkpoint=[])
        folders += [folder for _, folder in community._trained(options).values()]
    assert len(set(folders)) == sum(map(len, NETWORKS.values()))


@pytest.mark.slow
@pytest.mark.parametrize(("part", "name"), [(part, name) for part, some in NETWORKS.items() for name in some])
def test_the_recipe_makes_the_network(
    part: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = NETWORKS[part][name]
    made: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network.kind, "on_train_end", lambda self: made.append(self), raising=False)
    config = community_methods.REPOSITORY / "configs" / f"{network.recipe}.yaml"
    short = ["--trainer.fast_dev_run", "1", "--trainer.accelerator", "cpu", "--data.init_args.num_nodes", "60"]
    # A training must not find the test run's state of the global generators changed.
    with torch.random.fork_rng():
        landscape(["fit", "--config", str(config), *network.changes, *short])
    (model,) = made
    assert type(model) is network.kind
    assert model.num_classes == {"overlap": 2, "disassortative": 5}[part]
    assert model.hparams.get("linear", False) is name.endswith("linear")
    assert model.hparams.get("backbone", name).lower() == name.lower()


def made_up(**rows: list[float]) -> dict[str, dict[str, Any]]:
    common = {"chance": 0.06, "cpu_seconds": 0.25, "unconverged": 1}
    return {name: {"overlap": values, **common} for name, values in rows.items()}


def test_table_of_overlaps_says_how_far_it_is_from_the_independent_figures(tmp_path: Path) -> None:
    names = {"BP, known parameters": [0.8, 0.9], "BetheHessian": [0.75, 0.75]}
    rows = {2.08: made_up(**names), 1.0: made_up(**names)}
    network = made_up(CommunityGNN=[0.8, 0.8])["CommunityGNN"] | {"steps": 5000, "parameters": 1234}
    for row in rows.values():
        row["CommunityGNN"] = network
    text = community_overlap.markdown(rows)
    assert "| method | SNR 1 | SNR 2.08 |" in text
    assert "| BP, known parameters | 0.850 -+ 0.050 | 0.850 -+ 0.050 |" in text
    assert "| uniform guessing | 0.060 | 0.060 |" in text
    assert "| BetheHessian | 2.08 | 0.763 | 0.750 | -0.013 |" in text
    assert "| CommunityGNN | 2.08 | 0.800 | 0.850 | -0.050 |" in text
    assert "CommunityGNN: 1,234 parameters, checkpoint after 5,000 steps of training." in text
    assert "| BetheHessian | 0.250 | 2 of 4 |" in text
    with open(tmp_path / "figure.png", "wb") as file:
        community_overlap.draw(rows, file)
    assert (tmp_path / "figure.png").read_bytes().startswith(PNG)


def test_table_of_five_communities_has_the_best_first(tmp_path: Path) -> None:
    rows = made_up(AdjacencySpectral=[0.1, 0.3], LineGraphGNN=[0.21, 0.21], GAT=[0.05, 0.05])
    rows["LineGraphGNN"] |= {"steps": 6000, "parameters": 9, "curve": {"499": 0.1, "999": 0.2}}
    lines = community_disassortative.markdown(rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| LineGraphGNN", "| AdjacencySpectral", "| GAT"]
    assert lines[2] == "| LineGraphGNN | 0.210 -+ 0.000 | 0.207 | - | 9 | 6,000 | 0.250 | 1 of 2 |"
    assert lines[3] == "| AdjacencySpectral | 0.200 -+ 0.100 | - | 0.200 | - | - | 0.250 | 1 of 2 |"
    assert lines[-1] == "Uniform guessing has an overlap of 0.060."
    with open(tmp_path / "figure.png", "wb") as file:
        community_disassortative.draw(rows, file)
    assert (tmp_path / "figure.png").read_bytes().startswith(PNG)


def test_settings_lie_on_all_sides_of_the_thresholds() -> None:
    sides = {(one.num_communities, one.snr): one.side for one in community_landscape.SETTINGS}
    assert sides == {
        (2, 0.5): "impossible",
        (2, 1.0): "impossible",
        (2, 2.0): "easy",
        (5, 0.95): "hard",
        (5, 1.3): "easy",
    }


def test_a_search_of_the_landscape_repeats() -> None:
    setting = community_landscape.SETTINGS[2]
    first, second = (community_landscape.search(setting, nodes=20, steps=3, search_steps=10, seed=0) for _ in range(2))
    for row in (first, second):
        del row["cpu_seconds"]
    assert first == second
    assert first["level"] == max(first["loss_a"], first["loss_b"])
    assert first["loss_a"] != first["loss_b"]
    assert first["normalized_length"] >= 1
    assert 0 <= first["overlap"] <= 1


def path_row(height: float, verdict: str) -> dict[str, Any]:
    return {
        "verdict": verdict, "loss_a": 0.5, "loss_b": 0.6, "height": height, "linear_height": 0.9, "num_beads": 3,
        "normalized_length": 1.5, "gradient_steps": 100, "overlap": 0.4, "chance": 0.1,
    }  # fmt: skip


def test_what_a_path_forgets() -> None:
    two = community_landscape.SETTINGS[0]

    def forgotten(**changes: float) -> float:
        return community_landscape.forgotten(two, path_row(0.0, "connected") | changes, "height")

    assert forgotten(height=0.55) == forgotten(height=0.6) == 0.0
    assert forgotten(height=math.log(2)) == pytest.approx(1.0)
    assert forgotten(height=(0.6 + math.log(2)) / 2) == pytest.approx(0.5)
    assert math.isnan(forgotten(height=0.9, loss_b=0.7))


def test_table_and_figure_of_the_landscape(tmp_path: Path) -> None:
    rows = {one: [path_row(0.6, "connected"), path_row(0.65, "not_found")] for one in community_landscape.SETTINGS}
    lines = community_landscape.markdown(rows).splitlines()
    assert len(lines) == 2 + 5 + 2
    line, path = 0.3 / (math.log(2) - 0.6), 0.025 / (math.log(2) - 0.6)
    assert lines[2] == (
        f"| 2 | 3 | 0.5 | impossible | 0.400 -+ 0.000 | 0.100 | 0.600 -+ 0.000 | 0.693 | {line:.2f} -+ 0.00 | "
        f"{path:.2f} -+ {path:.2f} | 1 of 2 | 1.50 -+ 0.00 | 3.0 -+ 0.0 | 100 -+ 0 |"
    )
    with open(tmp_path / "figure.png", "wb") as file:
        community_landscape.draw(rows, file)
    assert (tmp_path / "figure.png").read_bytes().startswith(PNG)


def test_command_writes_tables_and_figure_between_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "docs" / "community.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- overlap -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(community, "REPORT", page)
    monkeypatch.setattr(community_landscape, "quietly", lambda: None)
    arguments = ["overlap", "--ratios", "2.52", "--nodes", "60", "--graphs", "2", "--methods", "BetheHessian"]
    arguments += ["--networks", "--out", str(tmp_path / "out"), "--report"]
    community.main(arguments)
    before, table, after = page.read_text().partition(community_overlap.markdown(rows_of(tmp_path / "out")))
    assert (before, after) == ("before\n<!-- overlap -->\n", "<!-- end -->\nafter\n")
    assert (tmp_path / "out" / "overlap.md").read_text() == table
    assert page.with_name("community_overlap.png").read_bytes() == (tmp_path / "out" / "overlap.png").read_bytes()

    written = page.read_bytes()
    monkeypatch.setattr(community_methods, "scores", None)  # a second run must not score
    community.main(arguments)
    assert page.read_bytes() == written

    page.write_text("no marks\n")
    with pytest.raises(PageError, match="<!-- overlap -->"):
        community.main(arguments)
    assert page.read_text() == "no marks\n"


def rows_of(out: Path) -> dict[float, dict[str, Any]]:
    graphs = GraphSet(60, 2, 3.0, 2.52, True, 2)
    (row,) = measured(graphs, ["BetheHessian"], {}, out / "overlap").values()
    return {2.52: {"BetheHessian": row}}


@pytest.mark.parametrize("given", ["CommunityGNN", "LineGraphGNN=exists.ckpt", "CommunityGNN=missing.ckpt"])
def test_a_wrong_checkpoint_is_refused(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exists.ckpt").touch()
    with pytest.raises(SystemExit):
        community.main(["overlap", "--checkpoint", given])
