"""Sparse coding networks beside ISTA and FISTA, the certificate of FacNet, and the landscape of LISTA.

python -m scripts.reproduce.sparse_coding train --networks lista l_fista facnet
python -m scripts.reproduce.sparse_coding train --dataset adversarial --networks lista
python -m scripts.reproduce.sparse_coding landscape
python -m scripts.reproduce.sparse_coding report

Seed 0 and the sizes of the recipes unless told otherwise.
What is done is kept in --out and not done again, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from scripts.reproduce.shared.kept import KeptError
from scripts.reproduce.shared.pages import PageError
from scripts.reproduce.sparse_coding import landscape
from scripts.reproduce.sparse_coding.reference import reference_of
from scripts.reproduce.sparse_coding.report import PARTS, write_report
from scripts.reproduce.sparse_coding.training import DATASETS, NETWORKS, REPOSITORY, Training, data_of, recipe, train


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)  # of Lightning, on few workers
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    try:
        options.run(options)
    except (KeptError, PageError) as error:
        sys.exit(f"sparse_coding: {error}")


def _train(options: argparse.Namespace) -> None:
    depths: list[int] = options.depths
    if depths != sorted(set(depths)) or depths[0] < 1:
        raise KeptError(f"--depths must increase from 1 or more, got {depths}")
    for network in options.networks:
        epochs = options.epochs or [recipe(network, options.dataset)["trainer"]["max_epochs"]]
        if len(epochs) == 1:
            epochs = epochs * len(depths)
        if len(epochs) != len(depths):
            raise KeptError(f"--epochs must be one number or {len(depths)}, one for each depth, got {epochs}")
        deepest = Training(network, options.dataset, tuple(depths), tuple(epochs), options.seed)
        data = data_of(deepest, options.out, options.source)
        reference = reference_of(data, options.iterations, options.out)
        for count in range(1, len(depths) + 1):
            training = deepest.cut(count)
            row = train(training, data, reference, options.out)
            print(
                f"{training.name}: F {row['objective']:.5f}, F - F* {row['layers'][-1]:.3g}, ISTA {row['ista']}, "
                f"FISTA {row['fista']}, {row['cpu_seconds']:.0f} CPU s",
                flush=True,
            )


def _landscape(options: argparse.Namespace) -> None:
    print(landscape.table(landscape.checks(options.out, options.seed, options.epochs)), end="")


def _report(options: argparse.Namespace) -> None:
    write_report(options.parts, options.out, options.results, options.source, options.certified)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reproduced") / "sparse_coding", help="where results are kept")
    parser.add_argument("--source", type=Path, default=REPOSITORY.parent / "shared" / "data", help="folder of MNIST")
    parser.add_argument("--seed", type=int, default=0)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train networks of several depths, each from the one before")
    training.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    training.add_argument("--dataset", choices=DATASETS, default="gaussian")
    training.add_argument("--depths", nargs="+", type=int, default=[1, 2, 3, 5, 7, 12])
    training.add_argument("--epochs", nargs="+", type=int, help="one number, or one a depth; default: the recipe's")
    training.add_argument("--iterations", type=int, default=1000, help="how far ISTA and FISTA are run")
    training.set_defaults(run=_train)
    pair = commands.add_parser("landscape", help="two initialisations of LISTA, and a path between them")
    pair.add_argument("--epochs", type=int, help="default: those of the recipe")
    pair.set_defaults(run=_landscape)
    report = commands.add_parser("report", help="tables and figures of what is there")
    report.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    report.add_argument("--results", type=Path, default=REPOSITORY / "docs" / "results")
    report.add_argument("--certified", type=int, default=7, help="layers of the FacNet that is certified")
    report.set_defaults(run=_report)
    return parser


if __name__ == "__main__":
    main()
