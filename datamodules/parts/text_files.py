"""Text files that people bring, from any editor and system, as bytes or words with plain line ends."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from lightning_landscape.storage.atomic import CorruptFileError
from lightning_landscape.storage.plain_files import LARGEST_DATA, file_size, read_to_end

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # that of UTF-32 LE begins as UTF-16 LE's
_PACKING, _SMALL = 50, 1 << 20  # text becomes 3 to 10 times smaller; tiny files of one letter more


def read_text_file(path: Path) -> str:
    r"""The text of a UTF-8 file, gzipped or not, without a byte order mark and with lines that end in ``\n``.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is none.
        CorruptFileError: if it is no regular file, is too large, is a truncated or damaged gzip file, or is not UTF-8;
            the message names the line and the byte, from 0, of the file when unpacked.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "words.txt"
        >>> _ = path.write_bytes(b"\xef\xbb\xbfgood\r\nmorning\r\n")
        >>> read_text_file(path)
        'good\nmorning\n'
    """
    return decode_text(path, _content(path))


def decode_text(path: Path, content: bytes) -> str:
    """:func:`read_text_file` of content that is read already; ``path`` is for messages."""
    body, skipped = _unpacked(path, content)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        line = len(re.split(rb"\r\n?|\n", body[: error.start]))
        raise CorruptFileError(
            f"{path}, line {line}, byte {skipped + error.start}: 0x{body[error.start]:02x} is not UTF-8 text "
            f"({error.reason}): save the file as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def read_ascii_lines(path: Path) -> bytes:
    r"""The bytes of a file as :func:`read_text_file` does, but not decoded, for tables that check each byte.

    Raises:
        FileNotFoundError: if there is none.
        CorruptFileError: if it is a truncated or damaged gzip file, or one of UTF-16 or UTF-32.
    """
    body, _ = _unpacked(path, _content(path))
    return body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in body else body


def _unpacked(path: Path, content: bytes) -> tuple[bytes, int]:
    """The content without its byte order mark, and how many bytes that had."""
    if content.startswith(b"\x1f\x8b"):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
                content = read_to_end(cast(BinaryIO, stream), _PACKING * len(content) + _SMALL, path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CorruptFileError(f"{path} is truncated or damaged ({error}). Fetch it anew") from error
    if content.startswith(_WIDE):
        raise CorruptFileError(f"{path}, line 1, byte 0: the file is UTF-16 or UTF-32: save it as UTF-8")
    body = content.removeprefix(codecs.BOM_UTF8)
    return body, len(content) - len(body)


def _content(path: Path) -> bytes:
    file_size(path, most=LARGEST_DATA)
    return path.read_bytes()
