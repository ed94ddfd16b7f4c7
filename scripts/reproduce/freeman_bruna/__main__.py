"""Runs an experiment of Freeman & Bruna (2017) and sets our numbers beside the published ones.

python -m scripts.reproduce.freeman_bruna quadratics --mode faithful --pairs 10 --out results
python -m scripts.reproduce.freeman_bruna mnist --shard 2/4 --out part2
python -m scripts.reproduce.freeman_bruna merge part1 part2 part3 part4 --out results

By default seed 0, 10 pairs at every published threshold, and all examples of the probe.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from scripts.reproduce.freeman_bruna.pairs import MODES, Mode, Pair, run_pair
from scripts.reproduce.freeman_bruna.published_points import published
from scripts.reproduce.freeman_bruna.report import write_report
from scripts.reproduce.freeman_bruna.summary import Row, read_rows
from scripts.reproduce.freeman_bruna.task import Settings
from scripts.reproduce.freeman_bruna.tasks import TASKS
from scripts.reproduce.shared.kept import KeptError


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    command = shlex.join(
        ["python", "-m", "scripts.reproduce.freeman_bruna", *(sys.argv[1:] if arguments is None else arguments)]
    )
    try:
        if options.task == "merge":
            rows = read_rows(options.folders)
            if not rows:
                raise KeptError(f"no finished pairs in {', '.join(map(str, options.folders))}: run some first")
            for task in sorted({row["task"] for row in rows}):
                _report(task, rows, options.out, command)
            return
        settings = Settings(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)})
        thresholds = options.thresholds or [*published(options.task)]
        jobs = [Pair(options.task, threshold, index) for threshold in thresholds for index in range(options.pairs)]
        number, shards = options.shard
        for row in _run(jobs[number - 1 :: shards], options.mode, settings, options.out, options.workers):
            length = row.get("weights_length")
            print(
                f"{row['mode']} {row['threshold']:g} pair {row['index']}: {row['reason'] or 'accepted'}, "
                f"length {'-' if length is None else format(length, '.4f')}, {row.get('num_beads', '-')} beads",
                flush=True,
            )
        if shards == 1:
            _report(options.task, read_rows([options.out]), options.out, command)
    except KeptError as error:
        sys.exit(f"freeman_bruna: {error}")


def _run(jobs: list[Pair], mode: Mode, settings: Settings, out: Path, workers: int) -> Iterator[Row]:
    if workers == 1:
        yield from (run_pair(job, mode, settings, out) for job in jobs)
        return
    # Spawned, because a forked child would share the parent's thread pools.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done in as_completed([pool.submit(run_pair, job, mode, settings, out) for job in jobs]):
            yield done.result()


def _report(task: str, rows: list[Row], out: Path, command: str) -> None:
    for summary in write_report(task, rows, out, command):
        print(
            f"{task} {summary.mode} {summary.threshold:g}: length {summary.length.mean:.4f}, "
            f"{summary.accepted} of {summary.pairs} accepted"
        )
    print(f"-> {out / task}.md, .json, .png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="task", required=True, metavar=f"{{{','.join(TASKS)},merge}}")
    for name, task in TASKS.items():
        one = commands.add_parser(name, help=f"levels of the {task.axis}".replace("%", "%%"))
        one.add_argument("--mode", choices=MODES, default="faithful")
        one.add_argument("--pairs", type=_positive, default=10, help="at each threshold (10)")
        one.add_argument("--thresholds", type=float, nargs="+", help="default: all that were published")
        one.add_argument("--workers", type=_positive, default=1, help="processes (1)")
        one.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="the I-th of N parts, for merge")
        one.add_argument("--out", type=Path, default=Path("reproduced"), help="pairs, table and figure (reproduced)")
        one.add_argument("--source", default=Settings.source, help="folder of the raw data")
        one.add_argument("--cache", default=Settings.cache, help="folder to unpack it into")
        one.add_argument("--probe", type=_positive, help="examples that define E; default: all")
        one.add_argument("--network", choices=("published", "lenet"), default=Settings.network, help="of mnist")
        one.add_argument("--max-steps", type=_positive, help="before a network or bead is given up")
        one.add_argument("--strict-work", type=float, help="training steps that a strict search may cost")
        one.add_argument("--seed", type=int, default=Settings.seed)
    merge = commands.add_parser("merge", help="one table and figure from the pairs of several folders")
    merge.add_argument("folders", type=Path, nargs="+")
    merge.add_argument("--out", type=Path, default=Path("reproduced"))
    return parser


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    number, _, shards = text.partition("/")
    if not (number.isdigit() and shards.isdigit() and 1 <= int(number) <= int(shards)):
        raise argparse.ArgumentTypeError(f"must be I/N with 1 <= I <= N, such as 2/4, got {text!r}")
    return int(number), int(shards)


if __name__ == "__main__":
    main()
