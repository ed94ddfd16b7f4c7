"""Dictionaries of the sparse coding experiments: random, adversarial and learned from data."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
import torch
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

Normalization = Literal["norm", "squared_norm"]


def normalized(dictionary: Tensor, by: Normalization = "norm") -> Tensor:
    """Columns divided by ``||d||``, which makes them unit vectors, or by ``||d||^2``.

    A column of standard Gaussians divided by its squared norm has norm about ``1 / sqrt(n)``: the problem is then
    that of unit atoms with lam larger by ``sqrt(n)`` and coefficients smaller by as much, up to the spread of norms.

    Args:
        dictionary: D (n, m), without zero columns.
        by: ``"norm"`` divides by ``||d||``, ``"squared_norm"`` by ``||d||^2``.

    Raises:
        ValueError: if ``by`` is another word.

    Example:
        >>> normalized(torch.tensor([[3.0], [4.0]]), "squared_norm")
        tensor([[0.1200],
                [0.1600]])
    """
    norms: Tensor = torch.linalg.vector_norm(dictionary, dim=0)
    if by not in ("norm", "squared_norm"):
        raise ValueError(f"normalization must be 'norm' or 'squared_norm', got {by!r}")
    return dictionary / (norms if by == "norm" else norms.square())


def gaussian_dictionary(n: int, m: int, generator: torch.Generator, normalization: Normalization = "norm") -> Tensor:
    """Standard Gaussian entries, columns normalised, float32 (n, m).

    Args:
        n: dimension of a signal.
        m: number of atoms.
        generator: random generator that the entries are drawn from.
        normalization: whether columns are divided by ``||d||`` (``"norm"``) or by ``||d||^2`` (``"squared_norm"``).

    Example:
        >>> dictionary = gaussian_dictionary(64, 100, torch.Generator().manual_seed(0))
        >>> dictionary.shape, torch.allclose(dictionary.norm(dim=0), torch.ones(100))
        (torch.Size([64, 100]), True)
    """
    return normalized(torch.randn(n, m, generator=generator), normalization)


def conditioned(dictionary: Tensor, condition: float) -> Tensor:
    """A dictionary with other singular values, geometric from 1 to ``1 / condition``, then unit columns.

    The columns' lengths move the condition number, downwards as a rule.

    Args:
        dictionary: D (n, m).
        condition: ratio of the largest to the smallest of min(n, m) singular values, at least 1.

    Example:
        >>> values = torch.linalg.svdvals(conditioned(torch.eye(2), 4.0))
        >>> values.tolist()
        [1.0, 1.0]
    """
    left, values, right = torch.linalg.svd(dictionary.double(), full_matrices=False)
    values = torch.logspace(0, -math.log10(condition), len(values), dtype=torch.float64)
    return normalized((left * values) @ right).to(dictionary.dtype)


def fourier_dictionary(n: int, m: int, generator: torch.Generator) -> Tensor:
    """Real parts of n random Fourier modes, ``D[j, k] = cos(2 pi f_j k / m)``, unit columns, float32 (n, m).

    The frequencies f_j are distinct numbers of 1, ..., ceil(m / 2) - 1, so that the rows are orthogonal before the
    columns are normalised. What nearly diagonalises ``D^T D`` are then waves, which spread a sparse code over all
    coordinates: the dictionary is adversarial to learned accelerations (Moreau & Bruna 2017). Atoms k and
    m - k are equal, so that minimisers are not unique though minima are.

    Args:
        n: number of modes, at most ceil(m / 2) - 1.
        m: number of atoms.
        generator: random generator that the frequencies are drawn from.

    Raises:
        ValueError: if there are fewer than n frequencies.
    """
    available = (m + 1) // 2 - 1
    if not 1 <= n <= available:
        raise ValueError(f"n must lie between 1 and the {available} frequencies of m={m} atoms, got {n!r}")
    frequencies = torch.randperm(available, generator=generator)[:n] + 1
    # Reduced modulo m as integers: the angle is then exact to rounding.
    turns = frequencies[:, None] * torch.arange(m) % m
    return normalized(torch.cos(2 * torch.pi * turns.double() / m)).float()


def learned_dictionary(signals: Tensor, m: int, lam: float, epochs: int, seed: int) -> Tensor:
    """Unit atoms that code given signals sparsely, float32 (n, m), by online learning (Mairal et al. 2009).

    Args:
        signals: (N, n).
        m: number of atoms.
        lam: weight of the l1 norm of the codes.
        epochs: passes over the signals.
        seed: random seed of the initial atoms and the order of signals; the global random state is left as it is.
    """
    learner = MiniBatchDictionaryLearning(
        m, alpha=lam, max_iter=epochs, batch_size=256, fit_algorithm="cd", shuffle=True, random_state=seed
    )
    # Coordinate descent draws from NumPy's global state, random_state or not.
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(seed)  # noqa: NPY002
        with warnings.catch_warnings():
            # Codes of single minibatches that stop early make no difference to the atoms.
            warnings.simplefilter("ignore", ConvergenceWarning)
            atoms = learner.fit(signals.double().numpy()).components_
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return normalized(torch.from_numpy(atoms).T).float().contiguous()
