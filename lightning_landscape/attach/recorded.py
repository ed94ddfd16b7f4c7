"""Copies of batches as they pass by in training, for data that nobody may read a second time."""

from __future__ import annotations

import copy
import pickle
import random
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from lightning_landscape.either_lightning import MisconfigurationException
from lightning_landscape.storage.atomic import replacing


class RecordedData:
    """The first batches that pass, which define E, and a random sample of the later ones, for searches.

    Batch i has a key in [0, 1) that the seed and i decide alone; kept are the smallest keys that fit into the memory,
    which is a uniform sample without replacement, however long the stream. No random state outside is touched, but for
    the order of a pass, which comes from torch's global one. Copies are made before a step can change its batch, and
    lie on the CPU.

    Args:
        num_batches: how many define E.
        memory: MiB of tensors kept, those that define E first.
        seed: of the sample.

    Attributes:
        probe: the batches that define E; once :meth:`settle` was called they stay as they are.
        settled: whether they are complete.
    """

    def __init__(self, num_batches: int, memory: float, seed: int) -> None:
        self.probe: list[Any] = []
        self.settled = False
        self._num_batches = num_batches
        self._room = int(memory * 2**20)
        self._seed = seed
        self._seen = 0
        self._sample: list[tuple[float, int, Any]] = []  # key, bytes, batch
        self._file = f"recorded-{uuid.uuid4().hex[:12]}.pt"  # another run in this folder has a file of its own
        self._written = 0

    def keep(self, batch: Any) -> None:
        """Sees a batch as the step will get it."""
        key = random.Random(f"{self._seed} {self._seen}").random()
        self._seen += 1
        size = num_bytes(batch)
        if not self.settled:
            if not self.probe or size <= self._room:
                self.probe.append(_copied(batch))
                self._room -= size
                self.settled = len(self.probe) == self._num_batches
                return
            self.settled = True
        fits = size
        for kept, bytes_kept, _ in self._sample:  # by key
            if kept > key:
                break
            fits += bytes_kept
        if fits > self._room:
            return
        self._sample.append((key, size, _copied(batch)))
        self._sample.sort(key=lambda item: item[0])
        while sum(item[1] for item in self._sample) > self._room:
            self._sample.pop()

    def settle(self) -> None:
        """The batches that there are define E from now on."""
        self.settled = True

    def thin(self) -> None:
        """Frees the sample; what defines E stays."""
        self._sample.clear()

    def __iter__(self) -> Iterator[Any]:
        """A pass over the sample in random order; over the batches of E while nothing came after them."""
        batches = [batch for _, _, batch in self._sample] or self.probe
        for place in torch.randperm(len(batches)).tolist():
            yield copy.deepcopy(batches[place])  # a step may change what it gets

    def state_dict(self, folder: Path) -> dict[str, Any]:
        """Plain data for a checkpoint; the batches of E go into a file of the folder."""
        if len(self.probe) > self._written:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / self._file) as file:
                torch.save(self.probe, file)
            self._written = len(self.probe)
        return {"file": self._file, "probe": len(self.probe), "settled": self.settled, "seen": self._seen}

    def load_state_dict(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Goes on with the same E; the sample for searches is drawn from what passes from now on.

        Raises:
            MisconfigurationException: if the file is missing, or holds classes that are not known to be harmless.
        """
        self._seen, self.settled = state["seen"], state["settled"]
        if not state["probe"]:
            return
        path = folder / state["file"]
        try:
            self.probe = torch.load(path, map_location="cpu", weights_only=True)[: state["probe"]]
        except (OSError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise MisconfigurationException(
                f"the recorded batches that define E cannot be read from {path} ({type(error).__name__}: {error}): put "
                "the file back, call torch.serialization.add_safe_globals for a class of your own, or pass batches="
            ) from error
        if self.settled:  # else what comes now goes into another file: the first run may be resumed again
            self._file, self._written = state["file"], len(self.probe)
        self._room -= sum(map(num_bytes, self.probe))


def num_bytes(batch: Any) -> int:
    """What the tensors in a batch take, in nested containers and attributes too."""
    found: dict[int, int] = {}
    _weigh(batch, found, set())
    return sum(found.values())


def _weigh(value: Any, found: dict[int, int], seen: set[int]) -> None:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor) or type(value).__module__ == "numpy":
        found[id(value)] = int(getattr(value, "nbytes", 0))
        return
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple | set):
        inner = value
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        inner = vars(value).values()
    for item in inner:
        _weigh(item, found, seen)


def _copied(batch: Any) -> Any:
    return move_data_to_device(copy.deepcopy(batch), torch.device("cpu"))
