from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import pickle
import shutil
import signal
import tarfile
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100

from lightning_landscape.datamodules import CIFAR10DataModule, CIFAR100DataModule
from lightning_landscape.storage.atomic import CorruptFileError

PER_BATCH, NUM_TEST = 12, 10
NUM_TRAIN = 5 * PER_BATCH
BASE = "cifar-10-batches-py"
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
fork = multiprocessing.get_context("fork")


def pixels(name: str) -> np.ndarray:
    count = NUM_TEST if name == "test_batch" else PER_BATCH
    return np.random.default_rng([*name.encode()]).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def small_cifar() -> dict[str, bytes]:
    """The seven files with a few random images each; the label of an image is its number in the file, modulo 10."""
    content: dict[str, Any] = {"batches.meta": {"label_names": [*"abcdefghij"]}}
    for name in (*BATCHES, "test_batch"):
        images = pixels(name)
        content[name] = {"data": images.reshape(len(images), -1), "labels": [n % 10 for n in range(len(images))]}
    return {name: pickle.dumps(value) for name, value in content.items()}


FILES = small_cifar()


@pytest.fixture(autouse=True)
def _published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the checksums of the small files the ones that torchvision publishes, and the network unreachable."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in BATCHES])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "url", "file:///nowhere/cifar-10-python.tar.gz")


def pack(path: Path, files: dict[str, bytes], inside: str = BASE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, f"w:{path.suffix.removeprefix('.')}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The folder in which the archive lies."""
    return pack(tmp_path / "source" / f"{BASE}.tar.gz", FILES).parent


def prepared(root: Path, source: Path, **arguments: Any) -> CIFAR10DataModule:
    data = CIFAR10DataModule(root=root, source=source, **{"val_size": 10, "batch_size": 8, **arguments})
    data.prepare_data()
    return data


def cached(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / BASE).iterdir()}


@pytest.mark.parametrize(
    ("name", "inside"),
    [(f"{BASE}.tar.xz", BASE), (f"{BASE}.tar.gz", f"./{BASE}"), ("cifar-10-python.tar.gz", BASE)],
)
def test_unpacks_an_archive_and_leaves_it_untouched(root: Path, tmp_path: Path, name: str, inside: str) -> None:
    archive = pack(tmp_path / "source" / name, FILES | {"readme.html": b"<html>"}, inside)
    before = archive.read_bytes()
    prepared(root, archive.parent)
    assert cached(root) == FILES
    assert archive.read_bytes() == before
    assert list(archive.parent.iterdir()) == [archive]


@pytest.mark.parametrize("level", [0, 1], ids=["itself", "above"])
def test_copies_an_unpacked_folder(root: Path, tmp_path: Path, level: int) -> None:
    folder = write(tmp_path / "source" / BASE, FILES)
    prepared(root, [folder, folder.parent][level])
    assert cached(root) == FILES


def restored(data: CIFAR10DataModule, images: Tensor) -> np.ndarray:
    means, stds = (np.reshape(values, (3, 1, 1)) for values in (data.channel_means, data.channel_stds))
    return np.round((images.numpy() * stds + means) * 255).astype(np.uint8)


def test_serves_standardised_floats_and_integer_labels(root: Path, source: Path) -> None:
    data = prepared(root, source, batch_size=NUM_TEST)
    data.setup()
    images, labels = next(iter(data.test_dataloader()))
    assert (images.shape, images.dtype, labels.dtype) == ((NUM_TEST, 3, 32, 32), torch.float32, torch.int64)
    expected = (pixels("test_batch") / 255 - np.reshape(data.channel_means, (3, 1, 1))) / np.reshape(
        data.channel_stds, (3, 1, 1)
    )
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-5)
    assert labels.tolist() == [*range(10)]
    assert torch.equal(torch.cat(list(data.predict_dataloader())), images)


def test_training_and_validation_part_the_training_images(root: Path, source: Path) -> None:
    data = prepared(root, source, val_size=15)
    data.setup("fit")
    assert [len(data.splits[name]) for name in ("train", "val")] == [45, 15]
    found = np.concatenate([restored(data, data.splits[name].tensors[0]) for name in ("train", "val")])
    expected = np.concatenate([pixels(name) for name in BATCHES])
    assert sorted(map(bytes, found)) == sorted(map(bytes, expected))
    labels = {bytes(image): number % PER_BATCH % 10 for number, image in enumerate(expected)}
    both = torch.cat([data.splits[name].tensors[1] for name in ("train", "val")])
    assert both.tolist() == [labels[bytes(image)] for image in found]


def test_the_seed_alone_decides_the_split(root: Path, source: Path) -> None:
    splits = []
    for seed in (0, 0, 1):
        torch.rand(1)
        data = prepared(root, source, seed=seed)
        state = torch.get_rng_state()
        data.setup("fit")
        assert torch.equal(torch.get_rng_state(), state)
        splits.append(data.splits["val"].tensors[0])
    assert torch.equal(splits[0], splits[1])
    assert not torch.equal(splits[0], splits[2])


@pytest.mark.parametrize("call", ["prepare_data", "setup"])
def test_missing_files_say_what_to_type(root: Path, call: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        getattr(CIFAR10DataModule(root=root), call)()
    message = str(caught.value)
    assert f"no usable CIFAR10 in root={str(root)!r}" in message
    assert "data_batch_1 is missing" in message
    assert f"CIFAR10DataModule(root={str(root)!r}, download=True)" in message
    assert "source=FOLDER" in message
    assert not root.exists()


def test_an_empty_source_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"source='.*' must be a folder that holds cifar-10-python.tar.gz,"):
        prepared(root, tmp_path)
    assert not root.exists()


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda content: content[: len(content) // 2], "is damaged"),
    "no archive": (lambda content: b"<html>" * 1000, "is damaged"),
    "empty": (lambda content: b"", "is damaged"),
    "altered": (lambda content: content[:2000] + bytes([content[2000] ^ 255]) + content[2001:], "is damaged"),
}


@pytest.mark.parametrize("kind", ["gz", "xz"])
@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_archive_is_named_and_leaves_whole_files_alone(
    root: Path, tmp_path: Path, kind: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    archive = pack(tmp_path / "source" / f"{BASE}.tar.{kind}", FILES)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(CorruptFileError, match=message) as caught:
        prepared(root, archive.parent)
    assert str(archive) in str(caught.value)
    if (root / BASE).exists():
        assert cached(root).items() <= FILES.items()


def test_an_archive_with_a_wrong_or_a_missing_file_is_refused(root: Path, tmp_path: Path) -> None:
    wrong = pack(tmp_path / "wrong" / f"{BASE}.tar.gz", FILES | {"data_batch_4": FILES["data_batch_3"]})
    with pytest.raises(CorruptFileError, match=r"data_batch_4 in .* is damaged: its md5 is \w+ and should be"):
        prepared(root, wrong.parent)
    assert "data_batch_4" not in cached(root)
    few = pack(tmp_path / "few" / f"{BASE}.tar.gz", {n: FILES[n] for n in FILES if n != "test_batch"})
    with pytest.raises(CorruptFileError, match="it lacks test_batch"):
        prepared(root, few.parent)


def test_a_hostile_archive_writes_nothing_outside_and_no_link(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "source" / f"{BASE}.tar.gz"
    path.parent.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(FILES["test_batch"])
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {"../../escaped": b"x", "/tmp/h_absolute": b"x", f"{BASE}/extra": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(f"{BASE}/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    with pytest.raises(CorruptFileError, match="it lacks data_batch_1, "):
        prepared(root, path.parent)
    assert {p.name for p in tmp_path.rglob("*")} == {"secret", "source", path.name}
    assert not Path("/tmp/h_absolute").exists()


def test_a_damaged_cache_is_named_and_made_anew_from_a_source(root: Path, source: Path) -> None:
    prepared(root, source)
    kept = (root / BASE / "data_batch_1").stat().st_mtime_ns
    path = root / BASE / "data_batch_2"
    path.write_bytes(FILES["data_batch_2"][:-1])
    for call in ("prepare_data", "setup"):
        with pytest.raises(CorruptFileError, match="data_batch_2 is damaged: its md5 is") as caught:
            getattr(CIFAR10DataModule(root=root), call)()
        assert f"root={str(root)!r}" in str(caught.value)
    prepared(root, source)
    assert cached(root) == FILES
    assert (root / BASE / "data_batch_1").stat().st_mtime_ns == kept


def test_a_whole_cache_needs_no_source(root: Path, source: Path) -> None:
    prepared(root, source)
    shutil.rmtree(source)
    prepared(root, source).setup()
    CIFAR10DataModule(root=root, download=True).prepare_data()


def prepare_together(root: Path, source: Path, gate: Any) -> None:
    gate.wait()
    prepared(root, source)


def test_processes_that_prepare_at_once_do_not_clash(root: Path, source: Path) -> None:
    gate = fork.Barrier(3)
    processes = [fork.Process(target=prepare_together, args=(root, source, gate)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert cached(root) == FILES


def prepare_until_killed(root: Path, source: Path) -> None:
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
    prepared(root, source)


def test_a_killed_process_leaves_no_half_file(root: Path, source: Path) -> None:
    process = fork.Process(target=prepare_until_killed, args=(root, source))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not set(FILES) & {path.name for path in (root / BASE).iterdir()}
    prepared(root, source).setup()


def test_downloads_what_is_missing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "web" / "cifar-10-python.tar.gz", FILES)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setenv("no_proxy", "*")
    handler = partial(SimpleHTTPRequestHandler, directory=str(archive.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        CIFAR10DataModule(root=root, download=True).prepare_data()
        server.shutdown()
    assert cached(root) == FILES
    assert [path.name for path in root.iterdir()] == [BASE]


def test_download_offline_says_what_to_do(root: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)CIFAR10 could not be downloaded into root='.*cache'.*as source"):
        CIFAR10DataModule(root=root, download=True).prepare_data()
    assert list(root.iterdir()) == []


def test_download_unpacks_an_archive_in_root_without_the_network(root: Path) -> None:
    pack(root / "cifar-10-python.tar.gz", FILES)
    write(root / BASE, FILES | {"data_batch_5": b"half"})
    CIFAR10DataModule(root=root, download=True).prepare_data()
    assert cached(root) == FILES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_size": 0}, "val_size must be an integer from 1 to 49999, got 0"),
        ({"val_size": 50_000}, "val_size .* got 50000"),
        ({"batch_size": 0}, "batch_size .* got 0"),
        ({"download": True, "source": "x"}, "download=True and source='x' exclude each other"),
        ({"root": "x", "source": "./x"}, "source='./x' is only read and cannot be the cache as well"),
        ({"root": "x", "source": f"x/{BASE}"}, "is only read and cannot be the cache as well"),
    ],
)
def test_refuses_bad_arguments_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CIFAR10DataModule(**arguments)


def test_val_size_must_leave_something_to_train_on(root: Path, source: Path) -> None:
    with pytest.raises(ValueError, match="val_size=60 must be less than the 60 training images"):
        prepared(root, source, val_size=NUM_TRAIN).setup("fit")


def test_hyperparameters_are_plain(root: Path, source: Path) -> None:
    hyperparameters = dict(CIFAR10DataModule(root=root, source=source).hparams)
    assert (hyperparameters["root"], hyperparameters["source"]) == (str(root), str(source))
    assert all(isinstance(value, str | int) for value in hyperparameters.values())


def test_cifar100_reads_its_fine_labels(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(count: int) -> bytes:
        images = np.zeros((count, 3072), np.uint8)
        return pickle.dumps({"data": images, "fine_labels": [99 - n for n in range(count)], "coarse_labels": [0]})

    files = {"train": part(6), "test": part(3), "meta": pickle.dumps({"fine_label_names": ["x"] * 100})}
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5["meta"]})
    folder = pack(tmp_path / "source" / "cifar-100-python.tar.gz", files, "cifar-100-python").parent
    data = CIFAR100DataModule(root=root, source=folder, val_size=2)
    data.prepare_data()
    data.setup()
    assert data.splits["test"].tensors[1].tolist() == [99, 98, 97]
    # A black pixel is (0 - mean) / std in each channel.
    black = torch.tensor([-m / s for m, s in zip(data.channel_means, data.channel_stds, strict=True)])
    torch.testing.assert_close(data.splits["train"].tensors[0][0, :, 0, 0], black)
    with pytest.raises(FileNotFoundError, match=r"CIFAR100DataModule\(root='other', download=True\)"):
        CIFAR100DataModule(root="other").prepare_data()


@pytest.mark.slow
def test_real_cifar10(data_root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (data_root / f"{BASE}.tar.xz").is_file():
        pytest.skip(f"real CIFAR-10 needs {data_root / BASE}.tar.xz")
    monkeypatch.undo()
    data = CIFAR10DataModule(root=request.getfixturevalue("unpacked_cifar10"))
    data.prepare_data()
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 45_000, "val": 5000, "test": 10_000}
    both = [data.splits[name].tensors for name in ("train", "val")]
    images, labels = (torch.cat(parts) for parts in zip(*both, strict=True))
    assert images.shape == (50_000, 3, 32, 32)
    assert labels.bincount().tolist() == [5000] * 10
    assert data.splits["test"].tensors[1].bincount().tolist() == [1000] * 10
    for channel in range(3):
        values = images[:, channel].double()
        assert values.mean().item() == pytest.approx(0, abs=3e-4)
        assert values.std().item() == pytest.approx(1, abs=3e-4)
