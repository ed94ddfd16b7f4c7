"""Penn Treebank as a stream of words, from the plain files of Mikolov's preparation."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_landscape.datamodules.parts.text_files import decode_text
from lightning_landscape.storage.atomic import CorruptFileError
from lightning_landscape.storage.plain_files import LARGEST_DATA, file_size

FILES = {  # md5 of the files as Mikolov published them
    "train": ("ptb.train.txt", "f26c4b92c5fdc7b3f8c7cdcb991d8420"),
    "val": ("ptb.valid.txt", "aa0affc06ff7c36e977d7cd49e3839bf"),
    "test": ("ptb.test.txt", "8b80168b89c18661a38ef683c0dc3721"),
}
END = "<eos>"
UNKNOWN = "<unk>"


class ContiguousWindows(Dataset[tuple[Tensor, Tensor]]):
    """Windows of ``bptt`` columns over parallel streams of tokens, each item a whole batch.

    Item i is ``(streams[:, iT : iT + T], streams[:, iT + 1 : iT + T + 1])`` for T = ``bptt``: tokens and the
    ones that follow them. Read in order, the windows continue one another; alone, each is a batch for a loss
    surface. The last window is shorter where the streams end before it does.

    Args:
        streams: int64 (B, N), N at least 2.
        bptt: columns of a window, at least 1.

    Example:
        >>> windows = ContiguousWindows(torch.arange(10).reshape(2, 5), bptt=3)
        >>> [tokens.tolist() for tokens, _ in (windows[0], windows[1])]
        [[[0, 1, 2], [5, 6, 7]], [[3], [8]]]
    """

    def __init__(self, streams: Tensor, bptt: int) -> None:
        self.streams = streams
        self.bptt = bptt

    def __len__(self) -> int:
        return -(-(self.streams.shape[1] - 1) // self.bptt)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        start = index * self.bptt
        end = min(start + self.bptt, self.streams.shape[1] - 1)
        # Copies: a step that changes its batch in place must not change the corpus.
        return self.streams[:, start:end].clone(), self.streams[:, start + 1 : end + 1].clone()


class ContiguousLoader(DataLoader[tuple[Tensor, Tensor]]):
    """Yields the windows in order, and goes on where a checkpoint was saved in the middle of an epoch.

    Lightning saves ``state_dict`` in its checkpoints, and loads it when an epoch that had begun is resumed.
    Without it the resumed epoch would start at the first window, and the carried state would meet another text.
    One case cannot be told from the middle of an epoch: with the Trainer's ``limit_train_batches``, a checkpoint
    saved right after the last batch; the epoch resumed from it starts after that batch.
    """

    measured_by_dataset = True
    _position = 0  # windows read in this pass
    _start = 0  # of the next pass

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:  # type: ignore[override]  # a generator counts
        start, self._start = self._start, 0
        for self._position, batch in enumerate(itertools.islice(super().__iter__(), start, None), start + 1):
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The number of windows read in this pass."""
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass start after the windows read."""
        self._start = self._position = state["position"] % len(self)


class PennTreebankDataModule(LightningDataModule):
    """Penn Treebank as prepared by Mikolov et al. (2010), cut into contiguous batches for truncated BPTT.

    A batch is ``(tokens, targets)``, int64 (B, T) each, where ``targets[b, t]`` is the word after
    ``tokens[b, t]``. Each split is one long text, every line ended by ``<eos>``, folded into
    B = ``batch_size`` parallel streams; row b of a batch goes on where row b of the batch before it ended
    (Zaremba et al. 2014). Batches therefore come in order, never shuffled. Training drops what does not fill
    a window of T = ``bptt`` words; validation and test end with a shorter window, so that only the at most
    B - 1 words which do not fill the streams are left out.

    The vocabulary is made of the words of the training file and ``<eos>``, the most frequent first and
    equally frequent ones in alphabetical order; for Penn Treebank it has 10,000 entries. A word of the other
    files that is not in it counts as ``<unk>``. Lines without words, such as an empty one at the end, are
    skipped.

    The files are only read; nothing is downloaded, for the text is licensed.

    Args:
        source: folder that holds ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, itself or in ``ptb``.
        batch_size: number of parallel streams B.
        bptt: words in a window, T; Zaremba et al. (2014) use 20 for the small model and 35 for the larger ones.
        verify: compare the md5 of each file with the published one. ``False`` takes a corpus of your own
            under the same three names, one sentence a line, in UTF-8, with or without a byte order mark.

    Attributes:
        vocabulary: from word to index, set by ``setup``.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, _ in FILES.values():
        ...     _ = (folder / name).write_text("a b a\\nb c\\n")
        >>> data = PennTreebankDataModule(folder, batch_size=1, bptt=4, verify=False)
        >>> data.setup()
        >>> data.vocabulary
        {'<eos>': 0, 'a': 1, 'b': 2, 'c': 3}
        >>> tokens, targets = next(iter(data.train_dataloader()))
        >>> tokens.tolist(), targets.tolist()
        ([[1, 2, 1, 0]], [[2, 1, 0, 2]])
    """

    def __init__(self, source: str | Path = "data", batch_size: int = 20, bptt: int = 20, verify: bool = True) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("bptt", bptt)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        # A plain string, because checkpoints that hold a Path do not load with weights_only.
        source = str(source)
        self.source = Path(source).expanduser()
        self.batch_size = batch_size
        self.bptt = bptt
        self.verify = verify
        self.vocabulary: dict[str, int] = {}
        self.splits: dict[str, ContiguousWindows] = {}
        self.save_hyperparameters()

    def setup(self, stage: str | None = None) -> None:
        """Read the files and make the vocabulary, once, whatever the stage.

        Raises:
            FileNotFoundError: if a file is missing.
            CorruptFileError: if a file has a wrong md5 or is no UTF-8; the message names the line.
            ValueError: if a split is too short for ``batch_size`` and ``bptt``, or holds a word that is not in
                the vocabulary while ``<unk>`` is not in it either.
            MisconfigurationException: in a run of several processes.
        """
        if self.trainer is not None and self.trainer.world_size > 1:
            raise MisconfigurationException(
                f"PennTreebankDataModule cannot serve {self.trainer.world_size} processes: Lightning would deal the "
                "windows out to them in turn, and the text of a stream would no longer be continuous. Set devices=1"
            )
        if self.splits:
            return
        words = {split: self._read(split) for split in FILES}
        counts = Counter(words["train"])
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        self.vocabulary = {word: index for index, word in enumerate(ordered)}
        self.splits = {split: self._windows(split, text) for split, text in words.items()}

    def train_dataloader(self) -> ContiguousLoader:
        """Windows of the training text, in order."""
        return self._loader("train")

    def val_dataloader(self) -> ContiguousLoader:
        """Windows of the validation text, in order."""
        return self._loader("val")

    def test_dataloader(self) -> ContiguousLoader:
        """Windows of the test text, in order."""
        return self._loader("test")

    def _loader(self, split: str) -> ContiguousLoader:
        if split not in self.splits:
            raise RuntimeError(f"the {split} split is not loaded: call setup() first")
        return ContiguousLoader(self.splits[split], batch_size=None, pin_memory=torch.cuda.is_available())

    def _read(self, split: str) -> list[str]:
        path = self._folder() / FILES[split][0]
        file_size(path, most=LARGEST_DATA)
        content = path.read_bytes()
        found, expected = hashlib.md5(content, usedforsecurity=False).hexdigest(), FILES[split][1]
        if self.verify and found != expected:
            raise CorruptFileError(
                f"{path} is not the published file: its md5 is {found} and should be {expected}. Fetch it anew, or "
                "give verify=False for a corpus of your own"
            )
        sentences = (words for line in decode_text(path, content).split("\n") if (words := line.split()))
        return [word for words in sentences for word in (*words, END)]

    def _folder(self) -> Path:
        names = [name for name, _ in FILES.values()]
        for folder in (self.source, self.source / "ptb"):
            if all((folder / name).is_file() for name in names):
                return folder
        raise FileNotFoundError(
            f"source={str(self.source)!r} must be a folder that holds, itself or in ptb, all of {', '.join(names)}: "
            "Penn Treebank in Mikolov's preparation, which is licensed and not downloaded here"
        )

    def _windows(self, split: str, words: list[str]) -> ContiguousWindows:
        name = FILES[split][0]
        unknown = self.vocabulary.get(UNKNOWN)
        indices = [self.vocabulary.get(word, unknown) for word in words]
        if None in indices:
            raise ValueError(
                f"{name} holds {words[indices.index(None)]!r}, which {FILES['train'][0]} does not, and that has no "
                f"{UNKNOWN} to stand for it: write {UNKNOWN} in place of rare words"
            )
        length = len(indices) // self.batch_size
        needed = self.bptt + 1 if split == "train" else 2
        if length < needed:
            raise ValueError(
                f"{name} has {len(indices)} words, {length} for each of batch_size={self.batch_size} streams, and "
                f"with bptt={self.bptt} a stream needs {needed}: lower batch_size or bptt"
            )
        streams = torch.tensor(indices[: length * self.batch_size]).view(self.batch_size, length)
        if split == "train":  # windows of one length, so that a mean over batches is a mean over words
            streams = streams[:, : (length - 1) // self.bptt * self.bptt + 1]
        return ContiguousWindows(streams, self.bptt)
