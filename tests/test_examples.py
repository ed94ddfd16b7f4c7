"""Every example runs as its docstring says, finds what it prints, and writes under its folder alone."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(file.stem for file in EXAMPLES.glob("*.py") if file.stem != "my_project")

Run = Callable[[str], str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script in an empty working directory, and gives what it printed."""

    def run(name: str) -> str:
        script = EXAMPLES / f"{name}.py"
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(EXAMPLES))  # as `python examples/NAME.py` does
        monkeypatch.setattr(sys, "argv", [str(script), "--out", "results"])
        runpy.run_path(str(script), run_name="__main__")
        assert [entry.name for entry in tmp_path.iterdir()] == ["results"]
        return capsys.readouterr().out

    return run


def numbers(pattern: str, printed: str) -> list[tuple[float, ...]]:
    """The groups of each match, as numbers."""
    return [tuple(map(float, match.groups())) for match in re.finditer(pattern, printed)]


def lines(file: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


@pytest.mark.parametrize("name", SCRIPTS)
def test_is_listed_and_says_how_it_is_run(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert f"\npython examples/{name}.py --out runs/examples/{name}\n" in text
    assert f'"--out", default="runs/examples/{name}"' in text.replace("type=Path, ", "")
    assert f"[{name}.py]({name}.py)" in (EXAMPLES / "README.md").read_text()
    assert any(f"def test_{name}(" in line for line in Path(__file__).read_text().splitlines())


def test_level_set_connectivity(run: Run) -> None:
    printed = run("level_set_connectivity")
    found = numbers(r"epoch (\d): .* rises to ([\d.]+)\. The level is ([\d.]+): a path .* height ([\d.]+),", printed)
    assert [epoch for epoch, *_ in found] == [3, 6]
    assert all(height <= level < line for _, line, level, height in found)
    rows = lines("results/checks.jsonl")
    assert [row["verdict"] for row in rows] == ["connected", "connected"]
    assert Path("results/profile-0002.png").is_file()


def test_merge_tree(run: Run) -> None:
    printed = run("merge_tree")
    losses = [loss for (loss,) in numbers(r"(?:step=\d+|other\.ckpt): loss ([\d.]+)", printed)]
    counts = numbers(r"level ([\d.]+): (\d) component\(s\)", printed)
    assert len(losses) == 5
    assert counts[0] == (min(losses), 1)  # the lowest point alone
    assert counts[1] == (sorted(losses)[1], 2)  # the end of the other run, not connected at its own loss
    assert counts[-1][1] == 1
    assert Path("results/tree-0001.png").is_file()


def test_fork_stability(run: Run) -> None:
    found = numbers(
        r"step (\d+): .* up to ([\d.]+) points above theirs, and the loss ([\d.]+)\.", run("fork_stability")
    )
    assert [step for step, *_ in found] == [20, 60, 100]
    assert found[-1][1] < found[0][1]
    assert found[-1][2] < found[0][2]
    assert [row["step"] for row in lines("results/forks.jsonl")] == [20, 60, 100]


def test_average_when_connected(run: Run) -> None:
    printed = run("average_when_connected")
    ((count, first, last, loss, alone),) = numbers(
        r"The average of (\d+) snapshots, of steps (\d+) to (\d+), has E ([\d.]+), the last weights ([\d.]+)\.", printed
    )
    assert count >= 2
    assert first < last
    assert loss <= alone
    assert "Loaded again, for tests or predictions: DigitsNet" in printed


def test_snapshot_recorder(run: Run) -> None:
    printed = run("snapshot_recorder")
    losses = [loss for _, loss in numbers(r"step (\d+): loss ([\d.]+), weights", printed)]
    assert len(losses) == 4
    assert all(loss < threshold for loss, threshold in zip(losses, (10, 1, 0.1, 0.01), strict=True))
    (partner,) = re.findall(r"reference='(.*)'", printed)
    assert Path(partner).is_file()


def test_acceleration_certificate(run: Run) -> None:
    printed = run("acceleration_certificate")
    before = numbers(r"untrained, layer (\d): F - F\* is ([\d.]+); at most ([\d.]+) by theory \(ISTA: (.*)\)", printed)
    assert [k for k, *_ in before] == [1, 2, 3]
    assert all(excess < bound == ista for _, excess, bound, ista in before)
    after = numbers(r"\ntrained, layer (\d): F - F\* is ([\d.]+); no bound, .* one is (-0\.\d+)", printed)
    assert [k for k, *_ in after] == [1, 2, 3]
    assert after[-1][1] < before[-1][1]
    assert "certificate/layer_3/valid" in Path("results/metrics.csv").read_text()


def test_landscape_connect(run: Run) -> None:
    printed = run("landscape_connect")
    assert (
        "In a shell: PYTHONPATH=examples landscape connect results/seed1/epoch=3.ckpt results/seed2/epoch=3" in printed
    )
    assert "Exit code 0: one basin." in printed
    ((line, path),) = numbers(r"The straight line rises to ([\d.]+), the path to ([\d.]+)\.", printed)
    ((level,),) = numbers(r"The level was ([\d.]+),", printed)
    assert path <= level < line
    assert json.loads(Path("results/connect/connection.json").read_text())["verdict"] == "connected"


def test_landscape_average(run: Run) -> None:
    printed = run("landscape_average")
    assert "Exit code 0: written. You may average" in printed
    ((mean, best),) = numbers(r"The loss of the average is ([\d.]+), of the best checkpoint ([\d.]+)\.", printed)
    assert mean <= 1.01 * best
    assert Path("results/average.ckpt").is_file()


def test_landscape_components(run: Run) -> None:
    printed = run("landscape_components")
    assert "In a shell: PYTHONPATH=examples landscape components results/seed1 results/seed2 --config" in printed
    assert "Exit code 0: 1 component(s) found" in printed
    assert "It took 3 searches." in printed  # k - 1 for k = 4
    assert len(lines("results/components/pairs.jsonl")) == 3


def test_landscape_sweep(run: Run) -> None:
    printed = run("landscape_sweep")
    assert "Exit code 0: From width=32 on all pairs are connected at the level 0.4." in printed
    (narrow, wide) = numbers(r"width (\d+): (\d) of 1 connected, final loss ([\d.]+)", printed)
    assert narrow[:2] == (2, 0)
    assert wide[:2] == (32, 1)
    assert wide[2] < 0.4 < narrow[2]
    assert Path("results/sweep/sweep.png").is_file()


def test_landscape_fit(run: Run) -> None:
    printed = run("landscape_fit")
    assert "In a shell: PYTHONPATH=examples landscape fit --config results/recipe.yaml" in printed
    assert "verdict" in printed  # the table of checks
    assert "width: 24" in Path("results/resolved_fit.yaml").read_text()
    assert Path("results/checkpoints/best.ckpt").is_file()
    assert len(lines("results/landscape/checks.jsonl")) == 1
