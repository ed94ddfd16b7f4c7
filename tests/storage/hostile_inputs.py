"""Hostile files and readers of them; as a program it reads each under a bound on memory and prints what came of it."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import pickle
import resource
import socket
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightning_landscape.datamodules.caches.edge_lists import SnapFiles
from lightning_landscape.datamodules.caches.idx import unpack
from lightning_landscape.datamodules.caches.tar import unpack_files
from lightning_landscape.datamodules.parts.number_tables import read_number_table
from lightning_landscape.recipes import read_recipe
from lightning_landscape.storage.checkpoints import read_reference
from lightning_landscape.storage.rows import KeyedRows, NumberedRows
from lightning_landscape.storage.tensor_files import read_safetensors

MEMORY = 1 << 30  # bytes that a reader may take
ZEROS = 1 << 28  # bytes that a bomb unpacks to
EXPANDED = 1 << 40  # numbers of 4 bytes: 4 TiB

Reader = Callable[[Path], Any]
READERS: dict[str, tuple[str, Reader]] = {
    "checkpoint": (".ckpt", read_reference),
    "bare pickle": (".pt", read_reference),
    "safetensors": (".safetensors", read_reference),
    "snapshot": (".safetensors", read_safetensors),
    "checks": (".jsonl", lambda path: NumberedRows(path).resume(1)),
    "pairs": (".jsonl", KeyedRows),
    "recipe": (".yaml", read_recipe),
    "numbers": (".txt", read_number_table),
    "digest": (".txt", lambda path: SnapFiles(path, path).digest()),
    "idx": (".gz", lambda path: unpack(path, "0" * 32, path.parent / "unpacked")),
    "tar": (".tar.gz", lambda path: unpack_files(path, path.parent / "unpacked", {"data": "0" * 32})),
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may have 107 bytes
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 42)


def safetensors_of(header: dict[str, Any], declared: int | None = None) -> Callable[[Path], None]:
    text = json.dumps(header).encode()
    start = struct.pack("<Q", len(text) if declared is None else declared)
    return lambda path: _ignored(path.write_bytes(start + text))


def tensor_of(shape: list[int], end: int) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}


def saved(value: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(value, path, **options)


def packed_again(path: Path) -> None:
    """A checkpoint with a member that unpacks to a thousand times its size."""
    torch.save({"state_dict": {"w": torch.ones(2)}}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content + bytes(ZEROS if name.endswith("data.pkl") else 0))


def absurd_members(path: Path) -> None:
    """A checkpoint whose directory declares members of 4 GB."""
    torch.save({"state_dict": {"w": torch.ones(2)}}, path)
    content = bytearray(path.read_bytes())
    place = content.find(b"PK\x01\x02")
    while place >= 0:
        content[place + 20 : place + 28] = b"\xfe\xff\xff\xff" * 2
        place = content.find(b"PK\x01\x02", place + 1)
    path.write_bytes(content)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (f"{self.path}.executed",)


def payload(path: Path) -> None:
    torch.save({"state_dict": {"w": Payload(path)}}, path)


def bare_payload(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(path)))


def text_of(content: bytes) -> Callable[[Path], None]:
    return lambda path: _ignored(path.write_bytes(content))


def bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(b"1 2\n" * (ZEROS // 4)))


def tar_bomb(kind: bytes) -> Callable[[Path], None]:
    """A tar archive with one huge member: a file, or a header that tarfile takes into memory."""

    def write(path: Path) -> None:
        member = tarfile.TarInfo("data")
        member.type, member.size = kind, ZEROS
        with gzip.open(path, "wb") as file:
            file.write(member.tobuf())
            file.write(bytes(ZEROS))

    return write


def _ignored(_: Any) -> None:
    return None


Case = tuple[str, str, Callable[[Path], Any], str]  # reader, what it is, how it is made, name without suffix
SPECIAL = {"fifo": fifo, "socket": unix_socket, "folder": Path.mkdir, "endless": endless, "circle": circle}
NAMES = {"bytes": os.fsdecode(b"caf\xe9"), "lines": "two\nlines", "long": "n" * 240}
HUGE: Any = {"state_dict": {"w": torch.zeros(1).expand(EXPANDED)}}
BACKWARDS = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}
READING = [reader for reader in READERS if reader != "digest"]  # which takes any bytes
CASES: list[Case] = [
    *((reader, what, make, "x") for reader in READERS for what, make in SPECIAL.items()),
    *((reader, f"noise, {what}", noise, name) for reader in READING for what, name in NAMES.items()),
    *((reader, "4 TiB", sparse, "x") for reader in ("numbers", "digest", "idx", "tar", "recipe", "safetensors")),
    ("safetensors", "header of 2^60", safetensors_of({}, 1 << 60), "x"),
    ("safetensors", "header of 2^64 - 1", safetensors_of({}, (1 << 64) - 1), "x"),
    ("safetensors", "header longer than the file", safetensors_of({}, 3), "x"),
    ("safetensors", "tensor of 4 TiB", safetensors_of(tensor_of([1 << 40], 1 << 42)), "x"),
    ("safetensors", "shape that overflows", safetensors_of(tensor_of([1 << 40, 1 << 40], 8)), "x"),
    ("safetensors", "end before its start", safetensors_of(BACKWARDS), "x"),
    ("checkpoint", "expanded to 4 TiB", saved(HUGE), "x"),
    ("bare pickle", "expanded to 4 TiB", saved(HUGE, _use_new_zipfile_serialization=False), "x"),
    ("checkpoint", "many names of one tensor",
     saved({"state_dict": dict.fromkeys(map(str, range(20_000)), torch.zeros(10_000))}), "x"),
    ("checkpoint", "packed member", packed_again, "x"),
    ("checkpoint", "members of 4 GB", absurd_members, "x"),
    ("checkpoint", "payload", payload, "x"),
    ("bare pickle", "payload", bare_payload, "x"),
    ("bare pickle", "no state", saved(torch.ones(3)), "x"),
    ("checkpoint", "empty", text_of(b""), "x"),
    ("checkpoint", "start of a zip", text_of(b"PK\x03\x04" + bytes(64)), "x"),
    ("checks", "deep nesting", text_of(b"[" * 200_000), "x"),
    ("pairs", "deep nesting", text_of(b'{"a":' * 200_000), "x"),
    ("checks", "number of many digits", text_of(b"9" * 100_000), "x"),
    ("recipe", "deep nesting", text_of(b"[" * 20_000), "x"),
    ("recipe", "no text", text_of(b"\xff\xfe\xff"), "x"),
    ("numbers", "bomb", bomb, "x"),
    ("numbers", "cut", text_of(gzip.compress(b"1 2\n" * 99)[:-9]), "x"),
    ("idx", "bomb", bomb, "x"),
    ("tar", "bomb", tar_bomb(tarfile.REGTYPE), "x"),
    ("tar", "huge header", tar_bomb(tarfile.XHDTYPE), "x"),
    ("tar", "huge name", tar_bomb(tarfile.GNUTYPE_LONGNAME), "x"),
    ("tar", "bytes alone", bomb, "x"),
]  # fmt: skip


def outcome(reader: str, make: Callable[[Path], Any], name: str, folder: Path) -> dict[str, Any]:
    """What a reader raises for a file, how long it took, and whether a payload ran or more than 64 MiB were written."""
    suffix, read = READERS[reader]
    path = folder / f"{name}{suffix}"
    make(path)
    began = time.perf_counter()
    kind = message = ""
    try:
        read(path)
    except BaseException as error:
        kind, message = ",".join(cls.__name__ for cls in type(error).__mro__), str(error)
    written = sum(file.stat().st_blocks * 512 for file in folder.glob("unpacked*/*") if file.is_file())
    executed = bool(list(folder.glob("*.executed")))
    return {"kind": kind, "message": ascii(message), "seconds": time.perf_counter() - began, "executed": executed,
            "written": written}  # fmt: skip


if __name__ == "__main__":
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    with tempfile.TemporaryDirectory() as root:
        for number, (reader, _, make, name) in zip(itertools.count(), CASES, strict=False):
            folder = Path(root, str(number))
            folder.mkdir()
            print(json.dumps(outcome(reader, make, name, folder)))
    sys.exit()
