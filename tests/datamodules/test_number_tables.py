"""Files of whole numbers: what is read, and what is refused with the line that is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from lightning_landscape.datamodules.parts.number_tables import read_number_table
from lightning_landscape.storage.atomic import CorruptFileError


@pytest.mark.parametrize(
    ("text", "values", "lengths", "lines"),
    [
        (b"", [], [], []),
        (b"\n \n", [], [], []),
        (b"# only a header", [], [], []),
        (b"7", [7], [1], [1]),
        (b"# a\n# b\n1\t2\n3\t4\n", [1, 2, 3, 4], [2, 2], [3, 4]),
        (b"1 2\r\n\r\n 3  4 5 \r\n6", [1, 2, 3, 4, 5, 6], [2, 3, 1], [1, 3, 4]),
        (b"000123456789012345", [123456789012345], [1], [1]),
        (b"\xef\xbb\xbf# a\r\n1 2\r\n", [1, 2], [2], [2]),
        (b"\xef\xbb\xbf1 2", [1, 2], [2], [1]),
        (b"# a\r1 2\r\r3\r", [1, 2, 3], [2, 1], [2, 4]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_numbers_and_lines(
    text: bytes, values: list[int], lengths: list[int], lines: list[int], packed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "table"
    path.write_bytes(gzip.compress(text) if packed else text)
    table = read_number_table(path)
    assert (table.values.tolist(), table.lengths.tolist(), table.lines.tolist()) == (values, lengths, lines)
    assert table.header.startswith("#") == text.removeprefix(b"\xef\xbb\xbf").startswith(b"#")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"1 2\n3 x\n", 2),
        (b"# a\n1 2\n3 -4\n", 3),
        (b"1.5 2\n", 1),
        (b"1 2\n# late\n", 2),
        (b"1 2\n\xff", 2),
        (b"1 2\n\xef\xbb\xbf3 4", 2),
        (b"\xef\xbb\xbf1 2\r3 x", 2),
        ("1 2\n".encode("utf-16"), 1),
        ("1 2\n".encode("utf-32"), 1),
        (b"1 2\n\n3 1234567890123456789\n", 3),
    ],
)
def test_the_wrong_line_is_named(text: bytes, line: int, tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(text)
    with pytest.raises(CorruptFileError, match=rf"table, line {line}(, byte 0)?: .*"):
        read_number_table(path)


def test_truncated_and_damaged_archives(tmp_path: Path) -> None:
    path = tmp_path / "table.gz"
    whole = gzip.compress(b"1 2\n" * 1000, mtime=0)
    for content in (whole[:-9], whole[:20], whole[:30] + b"\x00\x01" + whole[32:], whole + b"junk"):
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match="truncated or damaged"):
            read_number_table(path)
    with pytest.raises(FileNotFoundError):
        read_number_table(tmp_path / "none")
