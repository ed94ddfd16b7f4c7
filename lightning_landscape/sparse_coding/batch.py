"""What one batch of sparse coding holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor


class SparseCodingBatch(NamedTuple):
    """Signals, and what is known of their codes; the same four fields for every data set and split.

    Attributes:
        x: signals (batch, n).
        code: the codes (batch, m) that the signals were made from, ``None`` for real data and where x was drawn
            by itself. In general not a minimiser of F.
        solution: minimisers z* (batch, m) of F, float64; ``None`` for training batches.
        optimum: F(z*) (batch,), float64, within 1e-9 of the minimum, relatively; ``None`` for training batches.
    """

    x: Tensor
    code: Tensor | None = None
    solution: Tensor | None = None
    optimum: Tensor | None = None


def sparse_coding_batch(batch: Any, num_atoms: int | None = None) -> SparseCodingBatch:
    """What a data loader yields, as a batch of sparse coding.

    Args:
        batch: one of

            - signals x (batch, n) alone, a tensor;
            - a tuple or list of up to four of the fields of :class:`SparseCodingBatch` in their order: ``(x,)``,
              ``[x, code]``, ...;
            - a mapping with ``"x"`` and, where they are known, ``"code"`` (or ``"codes"``), ``"solution"`` and
              ``"optimum"``; other keys are not read;
            - an object with these attributes, other than ``codes``.

            A field that is left out, or ``None``, is not known.
        num_atoms: m, to check the codes by.

    Raises:
        ValueError: for anything else, and for a field that is no tensor or does not go with x by its shape.

    Example:
        >>> import torch
        >>> x = torch.ones(2, 3)
        >>> [sparse_coding_batch(batch).code for batch in (x, (x,), {"x": x})]
        [None, None, None]
        >>> sparse_coding_batch({"x": x, "codes": torch.zeros(2, 5)}).code.shape
        torch.Size([2, 5])
    """
    fields = SparseCodingBatch._fields
    if isinstance(batch, Tensor):
        given: dict[str, Any] = {"x": batch}
    elif isinstance(batch, Mapping):
        given = {name: batch[name] for name in fields if name in batch}
        if "codes" in batch:
            if "code" in batch:
                raise ValueError("a batch has both 'code' and 'codes', which are two names of one field: leave one out")
            given["code"] = batch["codes"]
    elif hasattr(batch, "x"):
        given = {name: getattr(batch, name, None) for name in fields}
    elif isinstance(batch, tuple | list) and len(batch) <= len(fields):
        given = dict(zip(fields, batch, strict=False))
    else:
        given = {}
    if not isinstance(given.get("x"), Tensor):
        content = f" with the keys {sorted(map(str, batch))}" if isinstance(batch, Mapping) else ""
        raise ValueError(
            "a batch must be a SparseCodingBatch, signals x (batch, n), a tuple or list of x, code, solution and "
            "optimum in this order, or a mapping with 'x' and perhaps 'code', 'solution' and 'optimum'; got "
            f"{type(batch).__name__}{content}"
        )
    x = given["x"]
    for name, value in given.items():
        if name == "x" or value is None:
            continue
        shape = (len(x) if x.ndim else 1,) if name == "optimum" else (len(x) if x.ndim else 1, num_atoms)
        fits = isinstance(value, Tensor) and value.ndim == len(shape)
        if not fits or any(size not in (None, found) for size, found in zip(shape, value.shape, strict=True)):
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            wanted = "(batch,)" if name == "optimum" else "(batch, m)"
            raise ValueError(
                f"{name} of a batch must be a tensor {wanted} = {shape} beside x of shape {tuple(x.shape)}, got "
                f"{found}: yield x alone, or a mapping that names its fields"
            )
    return SparseCodingBatch(**given)
