"""The files of a SNAP graph with ground-truth communities: found, checked against each other and read."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_landscape.community.crossing_pairs import LabelledGraph, labelled_graph
from lightning_landscape.datamodules.parts.number_tables import NumberTable, read_number_table
from lightning_landscape.storage.atomic import CorruptFileError
from lightning_landscape.storage.plain_files import LARGEST_DATA, file_size

PAGES = {"amazon": "com-Amazon", "dblp": "com-DBLP", "youtube": "com-Youtube"}


@dataclass(frozen=True)
class SnapFiles:
    """The two files of one graph.

    Attributes:
        edges: ``com-NAME.ungraph.txt``, gzipped or not: one edge a line.
        communities: ``com-NAME.top5000.cmty.txt``, gzipped or not: the members of one community a line.
    """

    edges: Path
    communities: Path

    def digest(self) -> str:
        """SHA-256 of the contents of both files, in hexadecimal."""
        for path in (self.edges, self.communities):
            file_size(path, most=LARGEST_DATA)
        parts = [hashlib.sha256(path.read_bytes()).digest() for path in (self.edges, self.communities)]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def read(self) -> tuple[LabelledGraph, int]:
        """The graph, and the number of communities that the file lists, repeats included.

        Raises:
            CorruptFileError: if a file is truncated or damaged, a line does not hold two nodes, the edges are fewer or
                more than the header declares, or a member of a community is no node.
        """
        edges = read_number_table(self.edges)
        wrong = edges.lengths != 2
        if wrong.any():
            place = int(wrong.argmax())
            raise CorruptFileError(
                f"{self.edges}, line {edges.lines[place]}: {edges.lengths[place]} numbers, and an edge is two nodes. "
                "Correct the line, or fetch the file anew"
            )
        _check_count(edges)
        communities = read_number_table(self.communities)
        try:
            graph = labelled_graph(edges.values.reshape(-1, 2), communities.values, communities.lengths)
        except ValueError as error:
            message, place = error.args
            row = int(np.searchsorted(communities.lengths.cumsum(), place, side="right"))
            raise CorruptFileError(
                f"{self.communities}, line {communities.lines[row]}: {message} of {self.edges}. Take both files from "
                "one graph, or fetch them anew"
            ) from error
        return graph, len(communities.lengths)


def find_snap_files(source: Path, dataset: str) -> SnapFiles:
    """The two files of a graph in ``source`` or ``source/snap``, gzipped or not.

    Raises:
        FileNotFoundError: if one is missing; the message names it and the page that offers it.
    """
    names = (f"com-{dataset}.ungraph.txt", f"com-{dataset}.top5000.cmty.txt")
    found: list[Path] = []
    for name in names:
        places = [folder / f"{name}{ending}" for folder in (source, source / "snap") for ending in ("", ".gz")]
        present = [place for place in places if place.is_file()]
        if not present:
            raise FileNotFoundError(
                f"{name} is missing: source={str(source)!r} must be a folder that holds, itself or in snap, "
                f"{names[0]} and {names[1]}, gzipped or not, as https://snap.stanford.edu/data/{PAGES[dataset]}.html "
                "offers them"
            )
        found.append(present[0])
    return SnapFiles(*found)


def _check_count(edges: NumberTable) -> None:
    declared = re.search(r"Edges:\s*(\d+)", edges.header)
    if declared and int(declared[1]) != len(edges.lengths):
        raise CorruptFileError(
            f"{edges.path} has {len(edges.lengths)} edges and its header declares {declared[1]}: fetch it anew"
        )
