"""The script of the sparse coding results at sizes of a test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_landscape.datamodules import SparseCodingDataModule
from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.sparse_coding import (
    SparseCodingBatch,
    ista,
    reference_optimum,
)
from scripts.reproduce.shared import pages
from scripts.reproduce.shared.kept import KeptError, keep
from scripts.reproduce.sparse_coding import __main__ as script
from scripts.reproduce.sparse_coding import certificate, curves, landscape, training
from scripts.reproduce.sparse_coding.reference import Reference, kept_reference, reference_of

REFERENCE = Reference(seed=0, optimum=1.0, gap=1e-10, ista=[9.0, 5.0, 3.0, 2.0, 1.5], fista=[9.0, 5.0, 2.0, 1.25, 1.0])


def row(network: str = "lista", depth: int = 1, objective: float = 2.5) -> training.Row:
    return {
        "training": training.identity(training.Training(network, "gaussian", (depth,), (3,))),
        "cpu_seconds": 7.4,
        "objective": objective,
        "layers": [8.0, objective - 1],
        "ista": REFERENCE.iterations("ista", objective),
        "fista": REFERENCE.iterations("fista", objective),
        "parameters": 12,
    }


def trained(path: Path, *depths: int) -> None:
    script.main(
        ["--out", str(path), "train", "--networks", "slista", "--depths", *map(str, depths), "--epochs", "1",
         "--iterations", "20"]
    )  # fmt: skip


def test_a_network_is_worth_the_first_iteration_that_is_as_good() -> None:
    assert REFERENCE.iterations("ista", 2.0) == 3
    assert REFERENCE.iterations("fista", 2.0) == 2
    assert REFERENCE.iterations("ista", 2.0 - 1e-5) == 4
    assert REFERENCE.iterations("ista", 1.4) is None
    assert REFERENCE.iterations("ista", float("nan")) is None


def test_the_table_sets_ista_and_fista_beside_every_network() -> None:
    lines = curves.table([row("facnet"), row("lista", 2), row(objective=1.4)], REFERENCE).splitlines()
    assert lines[2] == "| LISTA | 1 | 1.4000 | 0.4 | 4 | 4 | over 4 | 3 | 12 | 3 | 7 |"
    assert lines[3] == "| LISTA | 2 | 2.5000 | 1.5 | 2 | 1 | 3 | 2 | 12 | 3 | 7 |"
    assert lines[4].startswith("| FacNet | 1 |")
    assert {line.count("|") for line in lines} == {12}


def test_what_is_said_follows_from_the_rows() -> None:
    rows = [
        row("lista", 1, 2.0), row("facnet", 1, 4.0), row("lista", 2, 2.0), row("facnet", 2, 1.5), row("facnet", 3, 1.0),
        row("lista", 4, 1.3), row("facnet", 4, 1.6),
    ]  # fmt: skip
    assert curves.conclusions(rows, REFERENCE) == [
        "FacNet lies between ISTA and LISTA at K = 1.",
        "FacNet lies below LISTA at K = 2.",
        "FacNet lies above ISTA at K = 4.",
    ]
    assert curves.conclusions([row("lista", 7, 1.4)], REFERENCE) == [
        "LISTA with 7 layers is worth over 4 iterations of ISTA and 3 of FISTA."
    ]


def test_the_figure_holds_both_solvers_and_every_network() -> None:
    drawn = curves.figure([row(), row("facnet", 2)], REFERENCE, "title")
    cost, value = drawn.axes
    assert [line.get_label() for line in cost.lines] == ["ISTA", "FISTA", "LISTA", "FacNet"]
    assert cost.lines[0].get_ydata()[0] == REFERENCE.ista[1] - REFERENCE.optimum
    assert list(value.lines[0].get_ydata()) == list(value.lines[0].get_xdata())  # ISTA is worth itself


def test_each_depth_continues_the_one_before_and_none_is_done_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path, 1)
    trained(tmp_path, 1, 2)
    first = capsys.readouterr().out.splitlines()
    one, two = training.kept_rows("gaussian", tmp_path)
    assert (one["training"]["depths"], two["training"]["depths"]) == ([1], [1, 2])
    assert (one["training"]["epochs"], two["training"]["epochs"]) == ([1], [1, 1])
    assert two["objective"] < one["objective"]
    assert one["layers"][-1] == pytest.approx(one["objective"] - kept_reference("gaussian", tmp_path).optimum)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gaussian-reference.json",
        *(f"gaussian-slista-{depth}.{kind}" for depth in (1, 2) for kind in ("ckpt", "json")),
    ]
    monkeypatch.setattr(training, "fit", None)
    trained(tmp_path, 1, 2)
    assert capsys.readouterr().out.splitlines() == first[1:]


def test_a_result_of_something_else_is_refused(tmp_path: Path) -> None:
    data = SparseCodingDataModule("gaussian", val_size=2, test_size=3)
    found = reference_of(data, 4, tmp_path)
    assert found.gap <= 1e-8
    assert len(found.ista) == len(found.fista) == 5
    assert reference_of(data, 4, tmp_path) == found
    with pytest.raises(KeptError, match="iterations: 4, now 5"):
        reference_of(data, 5, tmp_path)
    with pytest.raises(KeptError, match="seed: 0, now 1"):
        reference_of(SparseCodingDataModule("gaussian", seed=1), 4, tmp_path)
    wanted = training.Training("lista", "gaussian", (1,), (2,))
    keep(tmp_path / f"{wanted.name}.json", row()["training"], row())
    with pytest.raises(KeptError, match=r"epochs: \[3\], now \[2\]"):
        training.train(wanted, data, found, tmp_path)
    (tmp_path / f"{wanted.name}.json").write_text("{")
    with pytest.raises(KeptError, match="damaged"):
        training.kept_rows("gaussian", tmp_path)
    with pytest.raises(KeptError, match="run `train --dataset adversarial`"):
        training.kept_rows("adversarial", tmp_path)
    with pytest.raises(KeptError, match="run `landscape`"):
        landscape.kept_checks(tmp_path)


def test_a_row_of_another_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = training.Training("lista", "gaussian", (1,), (3,))
    keep(tmp_path / f"{wanted.name}.json", row()["training"], row())
    data = SparseCodingDataModule("gaussian")
    assert training.train(wanted, data, REFERENCE, tmp_path) == row()
    shipped = training.recipe("lista", "gaussian")
    shipped["model"]["init_args"]["learning_rate"] = 0.5
    monkeypatch.setattr(training, "recipe", lambda network, dataset: shipped)
    with pytest.raises(KeptError, match=r"recipe: .*, now .*'learning_rate': 0.5"):
        training.train(wanted, data, REFERENCE, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depths", "2", "1"], r"must increase .* got \[2, 1\]"),
        (["--depths", "0", "1"], "must increase"),
        (["--depths", "1", "2", "3", "--epochs", "4", "5"], r"one number or 3, .* got \[4, 5\]"),
    ],
)
def test_depths_and_epochs_that_do_not_go_together_are_refused(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        script.main(["--out", str(tmp_path), "train", *arguments])


@pytest.fixture
def facnet() -> tuple[UnrolledSparseCoder, SparseCodingBatch]:
    """A FacNet of three layers, of which the first is ISTA's and the others are not, and five signals."""
    torch.manual_seed(0)
    dictionary = torch.randn(6, 8)
    network = UnrolledSparseCoder("facnet", 3, dictionary, 0.1).eval()
    with torch.no_grad():
        network.layers[1].factor.normal_()
        network.layers[1].log_scale.fill_(-1.0)
        network.layers[2].log_scale.fill_(0.5)
    x = torch.randn(5, 6)
    return network, SparseCodingBatch(x, None, *reference_optimum(network.problem, x))


def test_every_layer_is_certified_at_every_point(facnet: tuple[UnrolledSparseCoder, SparseCodingBatch]) -> None:
    network, batch = facnet
    rows = certificate.layers_of(network, batch)
    assert [layer["valid"] for layer in rows] == [True, False, True]
    assert rows[0]["bound"] == pytest.approx(rows[0]["ista_bound"])
    assert rows[0]["improves"] == 0
    assert rows[2]["bound"] > rows[2]["ista_bound"]  # a larger S is a smaller step
    assert all(layer["least_slack"] > -1e-6 for layer in rows)
    assert len(certificate.table(rows).splitlines()) == 5
    shares = certificate.designs(network, batch, iterations=4)
    assert [len(share) for share in shares.values()] == [4, 5]
    assert shares["FacNet"][:2] == shares["ISTA"][:2]
    assert sum(certificate.first_failures(network, batch)) == 5
    assert len(certificate.figure(rows, shares).axes) == 3


def test_the_random_design_condition_first_fails_where_a_code_is_right() -> None:
    network = UnrolledSparseCoder("facnet", 2, torch.eye(3), 0.5)
    x = torch.tensor([[2.0, 0.0, 0.0]])
    batch = SparseCodingBatch(x, None, *reference_optimum(network.problem, x))
    assert torch.equal(ista(network.problem, x, num_iterations=1), batch.solution.float())
    assert certificate.first_failures(network, batch) == [0, 1, 0, 0]


def test_the_report_writes_between_its_marks(tmp_path: Path) -> None:
    trained(tmp_path, 1)
    text = tmp_path / "sparse_coding.md"
    text.write_text("before\n<!-- gaussian -->\nold\n<!-- end -->\nafter\n")
    arguments = ["--out", str(tmp_path), "report", "--results", str(tmp_path), "--parts"]
    script.main([*arguments, "gaussian"])
    written = text.read_text()
    assert written.startswith("before\n<!-- gaussian -->\n| network |")
    assert written.endswith("\n<!-- end -->\nafter\n")
    assert "old" not in written
    assert (tmp_path / "sparse_coding_gaussian.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="no FacNet of 7 layers"):
        script.main([*arguments, "certificate"])
    with pytest.raises(pages.PageError, match="<!-- landscape -->"):
        pages.fill(text, {"landscape": ""})
    assert text.read_text() == written


def test_the_landscape_is_the_recipe_s_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = {
        "step": 500, "loss_a": 0.5, "loss_b": 0.4, "level": 0.525, "linear_height": 0.75, "verdict": "not_found",
        "height": 0.625, "barrier": 0.25, "normalized_length": 1.5, "num_beads": 3, "gradient_steps": 40,
        "profile": {"t": [0, 1], "loss": [0.5, 0.4]}, "linear_profile": {"t": [0, 0.5, 1], "loss": [0.5, 0.75, 0.4]},
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(landscape, "_run", lambda out, seed, epochs: [check])
        assert landscape.checks(tmp_path, seed=0, epochs=1) == [check]
    assert landscape.checks(tmp_path, seed=0, epochs=1) == landscape.kept_checks(tmp_path) == [check]
    with pytest.raises(KeptError, match="epochs: 1, now None"):
        landscape.checks(tmp_path, seed=0)
    assert landscape.table([check]).splitlines()[2] == (
        "| 500 | 0.5000 | 0.4000 | 0.5250 | 0.7500 | not found | 0.6250 | 0.2500 | 1.5000 | 3 | 40 |"
    )
    assert [line.get_label() for line in landscape.figure([check]).axes[0].lines] == [
        "straight line", "found path", "level"
    ]  # fmt: skip


@pytest.mark.slow
def test_two_initialisations_of_lista_are_compared(tmp_path: Path) -> None:
    (check,) = landscape.checks(tmp_path, seed=0, epochs=5)
    assert check["pair"] == "twin"
    assert check["loss_a"] != check["loss_b"]
    assert check["height"] >= max(check["loss_a"], check["loss_b"])
