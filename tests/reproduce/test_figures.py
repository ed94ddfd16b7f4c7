"""The command: resumed, sharded, merged, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Adam

from lightning_landscape.finders import BezierCurve
from scripts.reproduce.freeman_bruna import __main__ as figures
from scripts.reproduce.freeman_bruna import ablation, pairs
from scripts.reproduce.freeman_bruna.published_sampling import PublishedSampling
from scripts.reproduce.freeman_bruna.summary import read_rows, summarize
from scripts.reproduce.freeman_bruna.task import Settings
from scripts.reproduce.freeman_bruna.tasks import TASKS
from scripts.reproduce.shared.statistics import Mean

EASY = ["--thresholds", "0.25", "0.2"]  # that a network reaches within a second
SCRIPT = [sys.executable, "-m", "scripts.reproduce.freeman_bruna"]


def run(*arguments: str | Path) -> None:
    figures.main([str(argument) for argument in arguments])


def results(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "quadratics.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run("quadratics", *EASY, "--pairs", "2", "--out", folder)
    return folder


def test_table_and_figure_are_made(whole: Path) -> None:
    assert (whole / "quadratics.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    text = (whole / "quadratics.md").read_text()
    assert "| faithful | 0.2 | - |" in text  # no published point at this threshold
    assert "2 of 2" in text
    assert "Command: `python -m scripts.reproduce.freeman_bruna quadratics --thresholds 0.25 0.2 --pairs 2" in text
    assert "Size: full." in text
    assert torch.__version__ in text
    entries = results(whole)
    assert [(entry["mode"], entry["threshold"], entry["pairs"]) for entry in entries] == [
        ("faithful", 0.2, 2),
        ("faithful", 0.25, 2),
    ]
    assert all(entry["length"]["mean"] >= 1 and entry["beads"]["mean"] >= 1 for entry in entries)


def test_the_networks_of_a_pair_lie_below_the_threshold(whole: Path) -> None:
    for row in read_rows([whole]):
        assert all(loss < row["threshold"] for loss in row["metric"])
        assert row["losses"] == pytest.approx(row["metric"])
        assert row["level"] == pytest.approx(1.1 * row["threshold"])
        assert row["normalized_length"] == pytest.approx(row["weights_length"])  # there are no biases


def test_finished_pairs_are_not_redone(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.stat().st_mtime_ns for file in whole.glob("faithful/*.json")}
    assert len(before) == 4
    monkeypatch.setattr(pairs, "descend", lambda *_: pytest.fail("trained again"))
    run("quadratics", *EASY, "--pairs", "2", "--out", whole)
    assert {file: file.stat().st_mtime_ns for file in whole.glob("faithful/*.json")} == before


def test_an_interrupted_run_goes_on(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = PublishedSampling.connect
    calls = iter([search, search])

    def interrupted(*arguments: Any, **options: Any) -> Any:
        try:
            return next(calls)(*arguments, **options)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(PublishedSampling, "connect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("quadratics", *EASY, "--pairs", "2", "--out", tmp_path)
    assert len([*tmp_path.glob("faithful/*")]) == 2
    monkeypatch.setattr(PublishedSampling, "connect", search)
    run("quadratics", *EASY, "--pairs", "2", "--out", tmp_path)
    assert results(tmp_path) == results(whole)


def test_shards_merged_are_the_single_run(whole: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        run("quadratics", *EASY, "--pairs", "2", "--shard", f"{number}/3", "--out", tmp_path / str(number))
        assert not (tmp_path / str(number) / "quadratics.md").exists()
    run("merge", *(tmp_path / str(number) for number in (1, 2, 3)), "--out", tmp_path / "all")
    assert results(tmp_path / "all") == results(whole)


@pytest.mark.slow
def test_processes_find_what_one_finds(whole: Path, tmp_path: Path) -> None:
    command = [*SCRIPT, "quadratics", *EASY, "--pairs", "1", "--workers", "2"]
    subprocess.run([*command, "--out", str(tmp_path)], check=True, capture_output=True, timeout=120)
    alone = [row for row in read_rows([whole]) if (row["mode"], row["index"]) == ("faithful", 0)]
    found = read_rows([tmp_path])
    for row in (*found, *alone):
        del row["seconds"], row["versions"]
    assert len(found) == 2
    assert found == alone


def test_strict_mode_starts_from_the_same_networks(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "descend", lambda *_: pytest.fail("trained again"))
    run("quadratics", *EASY, "--pairs", "2", "--mode", "strict", "--out", whole)
    strict = [row for row in read_rows([whole]) if row["mode"] == "strict"]
    faithful = [row for row in read_rows([whole]) if row["mode"] == "faithful"]
    assert [row["metric"] for row in strict] == [row["metric"] for row in faithful]
    for row in strict:
        assert row["level"] == row["threshold"]
        assert row["accepted"] == row["connected"] == (row["height"] <= row["threshold"])
    assert {entry["mode"] for entry in results(whole)} == {"faithful", "strict"}


def test_a_damaged_pair_is_named(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("quadratics", "--thresholds", "0.25", "--pairs", "1", "--out", tmp_path)
    file = tmp_path / "faithful" / "quadratics-0.25-0.json"
    for content in (file.read_text()[:50], "[]", "{}"):
        file.write_text(content)
        for command in (["quadratics", "--thresholds", "0.25", "--pairs", "1"], ["merge", tmp_path]):
            with pytest.raises(SystemExit, match=r"quadratics-0.25-0.json is damaged .*: delete it"):
                run(*command, "--out", tmp_path)
    file.unlink()
    networks = tmp_path / "networks" / "quadratics-0.25-0.safetensors"
    networks.write_bytes(networks.read_bytes()[:-5])
    with pytest.raises(SystemExit, match=r"quadratics-0.25-0.safetensors is damaged .*: delete it"):
        run("quadratics", "--thresholds", "0.25", "--pairs", "1", "--out", tmp_path)
    networks.unlink()
    run("quadratics", "--thresholds", "0.25", "--pairs", "1", "--out", tmp_path)


@pytest.mark.parametrize(("option", "name"), [(["--seed", "1"], "seed"), (["--probe", "100"], "probe")])
def test_other_settings_need_another_folder(whole: Path, option: list[str], name: str) -> None:
    with pytest.raises(SystemExit, match=rf"made with other settings \({name}: .*\): give another --out"):
        run("quadratics", *EASY, "--pairs", "1", *option, "--out", whole)


@pytest.mark.parametrize("mode", ["faithful", "strict"])
def test_pairs_of_another_search_are_not_taken_for_finished(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["quadratics", "--thresholds", "0.25", "--pairs", "1", "--mode", mode, "--out", tmp_path]
    run(*command)
    task = TASKS["quadratics"]
    slower = replace(task.recipe(Settings()), optimizer=lambda points: Adam(points, lr=1e-4, fused=True))
    monkeypatch.setitem(TASKS, "quadratics", replace(task, curve=BezierCurve(), recipe=lambda settings: slower))
    with pytest.raises(SystemExit, match=r"made with other settings \(search: .*\): give another --out, or delete it"):
        run(*command)
    (tmp_path / mode / "quadratics-0.25-0.json").unlink()
    networks = tmp_path / "networks" / "quadratics-0.25-0.safetensors"
    with pytest.raises(SystemExit, match=f"{networks.name} was made with other settings"):
        run(*command)
    networks.unlink()
    run(*command)


def test_where_the_data_lie_is_no_other_setting(whole: Path) -> None:
    run("quadratics", *EASY, "--pairs", "1", "--source", "elsewhere", "--cache", "there", "--out", whole)


def test_pairs_that_differ_are_not_merged(whole: Path, tmp_path: Path) -> None:
    run("quadratics", "--thresholds", "0.25", "--pairs", "1", "--seed", "1", "--out", tmp_path)
    with pytest.raises(SystemExit, match="differs from the same pair in another folder"):
        run("merge", whole, tmp_path, "--out", tmp_path / "all")


def test_networks_that_do_not_train_are_counted(tmp_path: Path) -> None:
    run("quadratics", "--thresholds", "0.001", "--pairs", "1", "--max-steps", "1", "--out", tmp_path)
    (entry,) = results(tmp_path)
    assert (entry["pairs"], entry["accepted"], entry["reasons"]) == (1, 0, {"training": 1})
    assert entry["length"]["mean"] is None
    text = (tmp_path / "quadratics.md").read_text()
    assert "training: 1" in text
    assert "**not full**: max_steps=1" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["imagenet"], "invalid choice: 'imagenet'.*quadratics.*ptb"),
        ([], "required"),
        (["quadratics", "--shard", "3/2"], "must be I/N with 1 <= I <= N, such as 2/4, got '3/2'"),
        (["quadratics", "--shard", "0/2"], "must be I/N"),
        (["quadratics", "--pairs", "0"], "must be at least 1, got 0"),
        (["quadratics", "--mode", "lenient"], "invalid choice: 'lenient'"),
    ],
)
def test_arguments_are_checked(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))


@pytest.mark.slow
def test_variants_connect_the_networks_of_a_run(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng():
        ablation.main(["quadratics", "0.25", "--out", str(whole)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "quadratics at 0.25, 2 pairs"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:]]
    found = {row[0]: row[1] for row in rows}
    assert found["published"] == found["the curve of strict mode"] == "2 of 2"
    assert "published, no slack" in found


def test_nothing_to_merge_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no finished pairs in .*: run some first"):
        run("merge", tmp_path, "--out", tmp_path)


def test_averages_are_over_accepted_pairs_beside_all() -> None:
    def row(index: int, length: float, reason: str | None) -> dict[str, Any]:
        return {
            "task": "cubics",
            "mode": "faithful",
            "threshold": 0.15,
            "index": index,
            "accepted": reason is None,
            "connected": reason is None,
            "reason": reason,
            "height": 0.16 if reason is None else 0.4,
            "weights_length": length,
            "normalized_length": length + 1,
            "num_beads": index + 1,
        }

    (found,) = summarize("cubics", [row(0, 1.0, None), row(1, 2.0, None), row(2, 9.0, "bead")])
    assert found.length == Mean(1.5, 0.5, 2)
    assert found.full_length == Mean(2.5, 0.5, 2)
    assert found.every_length.mean == 4.0
    assert found.beads.mean == 1.5
    assert (found.pairs, found.accepted, found.connected, found.below) == (3, 2, 2, 0)
    assert found.reasons == {"bead": 1}
    assert found.published_length is not None
    assert found.published_length.mean == 1.6568


def test_every_pair_has_its_own_seed() -> None:
    seeds = {
        pairs.Pair(task, threshold, index).seed(Settings(seed=seed))
        for task in ("quadratics", "cubics")
        for threshold in (0.05, 0.01)
        for index in range(20)
        for seed in (0, 1)
    }
    assert len(seeds) == 160
