"""Text files of whole numbers, read at once and checked to the last character."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lightning_landscape.datamodules.parts.text_files import read_ascii_lines
from lightning_landscape.storage.atomic import CorruptFileError

_LONGEST = 18  # digits of a number that an int64 holds for certain
_BLANKS = np.frombuffer(b" \t\r\n", dtype=np.uint8)
_HEADER = re.compile(rb"(?:#[^\n]*(?:\n|$))*")


@dataclass(frozen=True)
class NumberTable:
    """Lines of whole numbers, as SNAP writes edges and communities.

    Attributes:
        path: the file.
        header: the lines that begin with ``#`` at its top.
        values: (T,) int64, all numbers in the order of the file.
        lengths: (R,) int64, how many of them each line has, lines without numbers left out.
        lines: (R,) int64, the line of the file that each is, from 1.
    """

    path: Path
    header: str
    values: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    lines: npt.NDArray[np.int64]


def read_number_table(path: Path) -> NumberTable:
    """Read whole numbers between blanks and line ends, after a header of lines that begin with ``#``.

    The file may be gzipped, whatever its name, begin with a byte order mark, and end its lines as any system does. A
    million lines take a fraction of a second.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is none.
        CorruptFileError: if it is a truncated or damaged gzip file, or holds anything but numbers of at most 18 digits;
            the message names the line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "edges.txt"
        >>> _ = path.write_text("# an edge list\\n0 1\\n\\n12 3 4\\n")
        >>> table = read_number_table(path)
        >>> table.values, table.lengths, table.lines
        (array([ 0,  1, 12,  3,  4]), array([2, 3]), array([2, 4]))
    """
    content = read_ascii_lines(path)
    header = _HEADER.match(content)
    assert header is not None  # it matches nothing too
    body = content[header.end() :]
    before = header.group().count(b"\n")
    text = np.frombuffer(body, dtype=np.uint8)
    blank = np.isin(text, _BLANKS)
    line_of = np.cumsum(text == ord("\n"))  # the first line is 0, and a line end belongs to the next
    stray = ~blank & ((text < ord("0")) | (text > ord("9")))
    if stray.any():
        place = int(stray.argmax())
        raise CorruptFileError(
            f"{path}, line {before + 1 + int(line_of[place])}: {chr(text[place])!r} in a file that should hold whole "
            "numbers alone. Correct the line, or fetch the file anew"
        )
    edges = np.flatnonzero(np.diff(blank, prepend=True, append=True))  # numbers begin and end in turn
    starts, ends = edges[::2], edges[1::2]
    if len(starts) and (ends - starts).max() > _LONGEST:
        place = int(starts[(ends - starts).argmax()])
        raise CorruptFileError(
            f"{path}, line {before + 1 + int(line_of[place])}: a number of more than {_LONGEST} digits. Correct the "
            "line, or fetch the file anew"
        )
    lengths = np.bincount(line_of[starts]) if len(starts) else np.zeros(0, np.int64)
    lines = np.flatnonzero(lengths)
    # Of blanks alone NumPy would make a 0.
    values = np.fromstring(body.decode("ascii"), dtype=np.int64, sep=" ")[: len(starts)]
    return NumberTable(path, header.group().decode(errors="replace"), values, lengths[lines], lines + before + 1)
