"""Where signals come from: planted sparse codes, a normalised Gaussian, or a pool of real data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Signals (count, n), and the codes (count, m) that they were made from where there are any.
Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor | None]]


def planted(dictionary: Tensor, sparsity: float, scale: float, snr: float | None = None) -> Draw:
    """``x = D z`` where each coefficient of z is Gaussian, N(0, scale^2), with probability ``sparsity``, else 0.

    With noise x is ``D z + e``, e Gaussian of the variance at which ``10 log10(||D z||^2 / E ||e||^2) = snr``.

    Args:
        dictionary: D (n, m).
        sparsity: probability that a coefficient is not zero, in (0, 1].
        scale: standard deviation of the coefficients that are not zero.
        snr: signal-to-noise ratio of each signal in dB, ``None`` for no noise.

    Example:
        >>> x, code = planted(torch.eye(2), sparsity=1.0, scale=10.0)(3, torch.Generator().manual_seed(0))
        >>> torch.equal(x, code)
        True
    """

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        shape = (count, dictionary.shape[1])
        present = torch.rand(shape, generator=generator) < sparsity
        code = torch.where(present, scale * torch.randn(shape, generator=generator), 0.0)
        x = code @ dictionary.T
        if snr is not None:
            size = x.norm(dim=1, keepdim=True) * 10 ** (-snr / 20) / x.shape[1] ** 0.5
            x = x + size * torch.randn(x.shape, generator=generator)
        return x, code

    return draw


def unit_correlation(dictionary: Tensor) -> Draw:
    """Gaussian directions scaled to ``||D^T x||_inf = 1``: lambda_max is 1 for each (Ablin et al. 2019).

    Example:
        >>> x, _ = unit_correlation(torch.eye(2))(3, torch.Generator().manual_seed(0))
        >>> x.abs().amax(dim=1)
        tensor([1., 1., 1.])
    """

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, None]:
        x = torch.randn(count, dictionary.shape[0], generator=generator)
        return x / (x @ dictionary).abs().amax(dim=1, keepdim=True), None

    return draw


def pooled(pool: Tensor) -> Draw:
    """Rows of ``pool`` (N, n), drawn with replacement."""

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, None]:
        return pool[torch.randint(len(pool), (count,), generator=generator)], None

    return draw
