"""Community detection in block models: classical methods, graph networks, and the landscape of their training.

    python -m scripts.reproduce.community overlap --report
    python -m scripts.reproduce.community disassortative --checkpoint LineGraphGNN=best.ckpt --report
    python -m scripts.reproduce.community landscape --report

Graphs are drawn with seed 0; ``--nodes`` and ``--graphs`` set their size and number.
Each command keeps its finished pieces in ``--out`` and does not do them again, so that an interrupted run goes on; it
writes its tables and its figure there, and with ``--report`` into docs/results as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from lightning_landscape.storage.atomic import replacing
from scripts.reproduce.community import disassortative as community_disassortative
from scripts.reproduce.community import landscape as community_landscape
from scripts.reproduce.community import overlap as community_overlap
from scripts.reproduce.community.methods import BASELINES, NETWORKS, REPOSITORY, Trained
from scripts.reproduce.shared import pages

REPORT = REPOSITORY / "docs" / "results" / "community.md"
PARTS = {
    "overlap": community_overlap,
    "disassortative": community_disassortative,
    "landscape": community_landscape,
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    community_landscape.quietly()
    part = PARTS[options.part]
    rows = part.measure(options, _trained(options))
    text = part.markdown(rows)
    print(text)
    with replacing(options.out / f"{options.part}.md") as file:
        file.write(text.encode())
    pictures = [options.out / f"{options.part}.png"]
    if options.report:
        pages.fill(REPORT, {options.part: text})
        pictures.append(REPORT.with_name(f"community_{options.part}.png"))
    for picture in pictures:
        with replacing(picture) as file:
            part.draw(rows, file)


def _trained(options: argparse.Namespace) -> Trained:
    """The wanted networks with their weights: those given, or else those of a training by the recipe."""
    given = dict(getattr(options, "checkpoint", []))
    folder = options.out / options.part  # two parts may have a network of one name
    return {
        name: (network, given[name] if name in given else network.train(folder / name.replace(", ", "-")))
        for name, network in NETWORKS.get(options.part, {}).items()
        if name in given or name in options.networks
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="part", required=True)
    for name, part in PARTS.items():
        one = commands.add_parser(name, help=part.__doc__)
        part.add_arguments(one)
        if name in NETWORKS:
            one.add_argument("--methods", nargs="*", choices=[*BASELINES], default=[*BASELINES], metavar="NAME")
            one.add_argument("--networks", nargs="*", choices=[*NETWORKS[name]], default=[*NETWORKS[name]][:1])
            one.add_argument(
                "--checkpoint",
                action="append",
                type=partial(_assignment, NETWORKS[name]),
                default=[],
                metavar="NETWORK=FILE",
                help="trained weights; a network of --networks without them is trained by its recipe",
            )
        one.add_argument("--out", type=Path, default=Path("reproduced") / "community")
        one.add_argument("--report", action="store_true", help="write into docs/results/community.md too")
    return parser


def _assignment(networks: Iterable[str], text: str) -> tuple[str, Path]:
    name, found, file = text.partition("=")
    if not found or name not in networks or not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"must be NETWORK=FILE, NETWORK one of {', '.join(networks)}, got {text!r}")
    return name, Path(file)


if __name__ == "__main__":
    main()
