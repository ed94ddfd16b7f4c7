"""The share of examples that a classifier gets wrong, as the loss of a surface."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def classification_error(module: Any, batch: Any) -> Tensor:
    """Share of the examples of a batch ``(inputs, labels)`` whose largest logit is not the label's, in [0, 1].

    Logits have shape (N, C, ...) and labels, integers, (N, ...).

    Raises:
        ValueError: for a batch or an output of another kind, saying to pass ``error_fn``.
    """
    advice = "pass ForkStability(error_fn=lambda module, batch: <scalar mean error>)"
    if not isinstance(batch, list | tuple) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise ValueError(f"the error is counted on batches (inputs, labels), got {type(batch).__name__}: {advice}")
    inputs, labels = batch
    logits = module(inputs)
    if labels.is_floating_point() or not isinstance(logits, Tensor) or logits.ndim < 2:
        raise ValueError(f"the error needs logits (N, C, ...) and integer labels: {advice}")
    if logits.shape[:1] + logits.shape[2:] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} are not (N, C, ...) and (N, ...): {advice}"
        )
    wrong: Tensor = logits.argmax(1) != labels
    return wrong.double().mean()
