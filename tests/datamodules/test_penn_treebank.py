"""Penn Treebank's streams of words, on a tiny corpus and on the published files."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_landscape.attach.probe import TrainingData
from lightning_landscape.datamodules import PennTreebankDataModule
from lightning_landscape.datamodules.penn_treebank import FILES
from lightning_landscape.storage.atomic import CorruptFileError
from lightning_landscape.surface.random_states import isolated_rng

SENTENCES = ["the cat sat on the mat", "a dog <unk> the cat", "the mat N"]
TEXT = {"train": " \n " + "\n".join(SENTENCES * 4) + "\n", "val": "the dog sat\nthe zebra\n", "test": "a cat\n" * 3}


def write(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, (name, _) in FILES.items():
        (folder / name).write_bytes((TEXT | texts)[split].encode())
    return folder


def loaded(folder: Path, **arguments: Any) -> PennTreebankDataModule:
    data = PennTreebankDataModule(folder, **{"batch_size": 2, "bptt": 4, "verify": False} | arguments)
    data.setup()
    return data


def spoken(data: PennTreebankDataModule, row: Tensor) -> list[str]:
    words = list(data.vocabulary)
    return [words[index] for index in row.tolist()]


def joined(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    tokens, targets = zip(*batches, strict=True)
    return torch.cat(tokens, 1), torch.cat(targets, 1)


def test_a_stream_goes_on_from_batch_to_batch(tmp_path: Path) -> None:
    data = loaded(write(tmp_path))
    batches = list(data.train_dataloader())
    assert all(part.dtype == torch.int64 and part.shape == (2, 4) for batch in batches for part in batch)
    tokens, targets = joined(batches)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    text = [word for sentence in SENTENCES * 4 for word in [*sentence.split(), "<eos>"]]
    half = len(text) // 2
    for row, start in zip(tokens, (0, half), strict=True):
        assert spoken(data, row) == text[start : start + tokens.shape[1]]
    assert tokens.shape[1] == (half - 1) // 4 * 4


def test_evaluation_leaves_out_only_what_does_not_fill_the_streams(tmp_path: Path) -> None:
    data = loaded(write(tmp_path, test="a cat sat on the\n" * 5))  # 30 words, 15 a stream
    batches = list(data.test_dataloader())
    assert [batch[0].shape for batch in batches] == [(2, 4), (2, 4), (2, 4), (2, 2)]
    tokens, targets = joined(batches)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    assert spoken(data, targets[1])[-1] == "<eos>"


def test_the_vocabulary_has_the_training_words_by_frequency(tmp_path: Path) -> None:
    data = loaded(write(tmp_path, train="b a\na <unk>\na c"), batch_size=1)
    assert data.vocabulary == {"<eos>": 0, "a": 1, "<unk>": 2, "b": 3, "c": 4}


def test_an_unknown_word_counts_as_unk(tmp_path: Path) -> None:
    data = loaded(write(tmp_path), batch_size=1)
    tokens, targets = joined(list(data.val_dataloader()))
    assert spoken(data, tokens[0]) == ["the", "dog", "sat", "<eos>", "the", "<unk>"]
    assert spoken(data, targets[0])[-1] == "<eos>"


def test_an_unknown_word_without_unk_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, train="the dog sat\n" * 9)
    with pytest.raises(ValueError, match=r"ptb\.valid\.txt holds 'zebra'.*write <unk> in place of rare words"):
        loaded(folder, batch_size=1)


@pytest.mark.parametrize("ending", ["", "\n\n", "\n \n\t\n"], ids=["none", "empty line", "blank lines"])
def test_lines_without_words_add_nothing(tmp_path: Path, ending: str) -> None:
    plain = loaded(write(tmp_path / "plain"))
    spaced = loaded(write(tmp_path / "spaced", **{split: text.rstrip() + ending for split, text in TEXT.items()}))
    crlf = loaded(write(tmp_path / "crlf", **{split: text.replace("\n", "\r\n") for split, text in TEXT.items()}))
    for other in (spaced, crlf):
        assert other.vocabulary == plain.vocabulary
        for split, windows in plain.splits.items():
            assert torch.equal(other.splits[split].streams, windows.streams)


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    data = PennTreebankDataModule(write(tmp_path))
    with pytest.raises(CorruptFileError, match=r"ptb\.train\.txt is not the published .* f26c4b92.*verify=False"):
        data.setup()
    assert not data.splits


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"caf\xe9", "line 1, byte 3: 0xe9"),
        (b"a b\r\nc\rd \xff e\n", "line 3, byte 9: 0xff"),
        (b"\xef\xbb\xbfa\n\xc3", "line 2, byte 5: 0xc3"),
        ("a b\n".encode("utf-16"), "line 1, byte 0: the file is UTF-16"),
    ],
)
def test_bytes_that_are_no_text_are_refused_by_line_and_byte(content: bytes, place: str, tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "ptb.test.txt").write_bytes(content)
    with pytest.raises(CorruptFileError, match=rf"ptb\.test\.txt, {place}"):
        loaded(folder)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_byte_order_mark_and_line_ends_of_any_system_are_no_words(mark: bytes, end: bytes, tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        text = "die Straße\nist lang\ndie Straße\n".encode().replace(b"\n", end)
        (tmp_path / f"ptb.{name}.txt").write_bytes(mark + text)
    data = PennTreebankDataModule(tmp_path, batch_size=1, bptt=4, verify=False)
    data.setup()
    assert data.vocabulary == {"<eos>": 0, "Straße": 1, "die": 2, "ist": 3, "lang": 4}
    assert next(iter(data.val_dataloader()))[0].tolist() == [[2, 1, 0, 3]]


def test_a_missing_file_is_named_with_the_folder(tmp_path: Path) -> None:
    (write(tmp_path / "ptb") / "ptb.valid.txt").unlink()
    with pytest.raises(FileNotFoundError, match=rf"source='{tmp_path}' must be .*ptb\.valid\.txt"):
        loaded(tmp_path)


def test_takes_the_folder_above_and_only_reads_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "ptb")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    assert loaded(tmp_path).vocabulary == loaded(folder).vocabulary
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.txt")} == before


@pytest.mark.parametrize("name", ["batch_size", "bptt"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True])
def test_sizes_are_positive_integers(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got {value!r}"):
        PennTreebankDataModule("nowhere", **{name: value})


@pytest.mark.parametrize(("split", "text"), [("train", "a b"), ("val", "a"), ("test", "")])
def test_a_text_too_short_for_the_streams_is_refused(tmp_path: Path, split: str, text: str) -> None:
    with pytest.raises(ValueError, match=rf"{FILES[split][0]} has \d words.*lower batch_size or bptt"):
        loaded(write(tmp_path, **{split: text}, **({} if split == "train" else {"train": "a b <unk>\n" * 9})))


def test_one_window_is_enough(tmp_path: Path) -> None:
    data = loaded(write(tmp_path, train="the dog <unk> sat\n"), batch_size=1)
    assert len(data.train_dataloader()) == 1


def test_needs_setup_first(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"train split is not loaded: call setup\(\)"):
        PennTreebankDataModule(tmp_path).train_dataloader()


def test_several_processes_are_refused(tmp_path: Path) -> None:
    data = PennTreebankDataModule(write(tmp_path), verify=False)
    data.trainer = SimpleNamespace(world_size=2)
    with pytest.raises(MisconfigurationException, match=r"2 processes.*devices=1"):
        data.setup()


def test_a_batch_changed_in_place_leaves_the_corpus(tmp_path: Path) -> None:
    data = loaded(write(tmp_path), batch_size=1)
    before = data.splits["train"].streams.clone()
    for tokens, targets in data.train_dataloader():
        tokens.zero_()
        targets.zero_()
    assert torch.equal(data.splits["train"].streams, before)


def test_setup_draws_no_random_number(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    loaded(write(tmp_path))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("read", [0, 1, 3, 6])
def test_a_loader_goes_on_where_another_stopped(tmp_path: Path, read: int) -> None:
    data = loaded(write(tmp_path), bptt=5)
    whole = list(data.train_dataloader())
    assert len(whole) == 6
    stopped, resumed = data.train_dataloader(), data.train_dataloader()
    assert len(list(itertools.islice(stopped, read))) == read
    resumed.load_state_dict(stopped.state_dict())
    rest = list(resumed)
    assert len(rest) == 6 - read % 6
    assert torch.equal(joined(rest)[0], joined(whole[read % 6 :])[0])
    assert torch.equal(joined(list(resumed))[0], joined(whole)[0])  # the next pass is whole again


def test_a_probe_set_draws_whole_windows_in_random_order(tmp_path: Path) -> None:
    data = loaded(write(tmp_path), bptt=2)
    loader = data.train_dataloader()
    windows = [tokens.tolist() for tokens, _ in loader]
    model = pl.LightningModule()
    trainer = SimpleNamespace(
        train_dataloader=loader,
        num_training_batches=len(loader),
        max_steps=-1,
        lightning_module=model,
        precision_plugin=SimpleNamespace(convert_input=lambda batch: batch),
        strategy=SimpleNamespace(batch_to_device=lambda batch, dataloader_idx: batch),
    )
    position = loader.state_dict()
    with isolated_rng(0):
        probe = TrainingData(trainer).take(len(windows) + 1)
    drawn = [tokens.tolist() for tokens, _ in probe]
    assert drawn != windows
    assert sorted(drawn) == sorted(windows)
    assert loader.state_dict() == position


def test_the_published_files(data_root: Path) -> None:
    """Sizes as published: 929,589, 73,760 and 82,430 words with <eos>, of 10,000 kinds."""
    data = PennTreebankDataModule(data_root, batch_size=1, bptt=1)
    data.setup()
    assert {split: windows.streams.numel() for split, windows in data.splits.items()} == {
        "train": 929_589,
        "val": 73_760,
        "test": 82_430,
    }
    assert len(data.vocabulary) == 10_000
    assert list(data.vocabulary)[:5] == ["the", "<unk>", "<eos>", "N", "of"]
    opening = spoken(data, data.splits["train"].streams[0, 24:32])
    assert opening == ["<eos>", "pierre", "<unk>", "N", "years", "old", "will", "join"]
    assert all(int(windows.streams.max()) < 10_000 for windows in data.splits.values())
