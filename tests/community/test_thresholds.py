"""Thresholds against what is published of them."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_landscape.community import (
    Detectability,
    average_degree,
    critical_degrees,
    detectability,
    exact_recovery,
    rates_from_snr,
    signal_to_noise,
    symmetric_connectivity,
)
from lightning_landscape.community.thresholds import _conjugate_degree


@pytest.mark.parametrize(
    ("a", "b", "snr"), [(5.75, 0.25, 2.52), (5.5, 0.5, 2.08), (5.25, 0.75, 1.69), (5.0, 1.0, 1.33)]
)
def test_the_grid_of_the_experiments(a: float, b: float, snr: float) -> None:
    assert average_degree(a, b, 2) == 3
    assert signal_to_noise(a, b, 2) == pytest.approx(snr, abs=0.006)


@pytest.mark.parametrize("k", [2, 3, 5, 20])
@pytest.mark.parametrize("assortative", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_rates_have_the_snr_and_the_degree(k: int, assortative: bool, part: float) -> None:
    degree = 7.3
    snr = part * (degree if assortative else degree / (k - 1) ** 2)
    a, b = rates_from_snr(snr, degree, k, assortative)
    assert average_degree(a, b, k) == pytest.approx(degree)
    assert signal_to_noise(a, b, k) == pytest.approx(snr, abs=1e-12)
    assert (a >= b) if assortative else (a <= b)


def test_the_disassortative_table() -> None:
    a, b = rates_from_snr(0.9, 14.4, 5, assortative=False)
    assert a == pytest.approx(0, abs=1e-12)
    assert b == pytest.approx(18)


def test_connectivity_of_both_regimes() -> None:
    sparse = symmetric_connectivity(200, 3.0, 1.0, 3)
    assert sparse.dtype == torch.float64
    assert sparse.diagonal().tolist() == [0.015] * 3
    assert sparse[0, 1:].tolist() == [0.005] * 2
    assert torch.allclose(symmetric_connectivity(200, 3.0, 1.0, 3, logarithmic=True), sparse * math.log(200))


def test_two_communities_are_easy_or_impossible() -> None:
    for snr in (0.3, 1.0, 1.000001, 2.0):
        a, b = rates_from_snr(snr, 3.0, 2)
        assert detectability(a, b, 2) == (Detectability.EASY if snr > 1 else Detectability.IMPOSSIBLE)


@pytest.mark.parametrize("degree", [1.5, 3.0, 10.0, 100.0])
def test_no_bound_crosses_kesten_stigum_at_three(degree: float) -> None:
    for assortative, most in ((True, degree), (False, degree / 4)):
        for part in torch.linspace(0.05, 1, 40).tolist():
            a, b = rates_from_snr(min(part, most), degree, 3, assortative)
            assert detectability(a, b, 3) != Detectability.HARD


def test_four_communities_without_inner_edges_cross_it() -> None:
    """Abbe and Sandon: below Kesten-Stigum, d = 9, at k = 4; not by the first moment alone, which needs 9.64."""
    lower, upper = critical_degrees(-1 / 3, 4)
    assert upper == pytest.approx(2 * math.log(4) / math.log(4 / 3))  # first moment of 4-colourings
    assert lower < 9 < upper
    assert detectability(0.0, 9.01 * 4 / 3, 4) == Detectability.EASY
    assert detectability(0.0, 8.99 * 4 / 3, 4) == Detectability.HARD


@pytest.mark.parametrize(("k", "crosses"), [(3, False), (4, False), (5, True), (6, True), (20, True)])
def test_the_first_moment_crosses_disassortatively_from_five_on(k: int, crosses: bool) -> None:
    assert (critical_degrees(-1 / (k - 1), k)[1] < (k - 1) ** 2) == crosses


@pytest.mark.parametrize(("k", "crosses"), [(10, False), (11, True), (30, True)])
def test_the_first_moment_crosses_assortatively_from_eleven_on(k: int, crosses: bool) -> None:
    tiny = 1e-4
    assert (critical_degrees(tiny, k)[1] * tiny**2 < 1) == crosses


def test_the_lower_bound_is_that_of_colourings() -> None:
    """Achlioptas and Naor: random graphs of average degree below 2 (k - 1) log(k - 1) have k-colourings."""
    assert critical_degrees(-1 / 4, 5)[0] == pytest.approx(2 * 4 * math.log(4))
    assert critical_degrees(1.0, 5)[1] == pytest.approx(2)


def test_hard_wherever_the_first_moment_says_so() -> None:
    for k in (5, 12):
        for correlation in (-1 / (k - 1), 0.3):
            lower, upper = critical_degrees(correlation, k)
            for degree in (0.99 * lower, 1.01 * upper):
                b = degree * (1 - correlation)
                a = max(degree * (1 + (k - 1) * correlation), 0.0)
                found = detectability(a, b, k)
                if degree < lower:
                    assert found == Detectability.IMPOSSIBLE
                else:
                    assert found in (Detectability.HARD, Detectability.EASY)


def test_five_communities_in_the_gap() -> None:
    assert detectability(0.0, 18.0, 5) == Detectability.HARD
    assert detectability(0.0, 20.1, 5) == Detectability.EASY
    assert detectability(0.0, 13.0, 5) == Detectability.IMPOSSIBLE


def test_no_giant_component_no_detection() -> None:
    assert detectability(1.0, 0.0, 2) == Detectability.IMPOSSIBLE


@pytest.mark.parametrize("degree", [1.001, 1.5, 3.0, 30.0, 1e4])
def test_conjugate_degree(degree: float) -> None:
    tau = _conjugate_degree(degree)
    assert 0 <= tau < 1
    if tau:
        assert math.log(tau) - tau == pytest.approx(math.log(degree) - degree)


@pytest.mark.parametrize(
    ("a", "b", "k", "found"),
    [
        (8.1, 0.5, 2, True),
        (9, 1, 2, True),
        (4.4, 0.5, 2, False),
        (0.5, 4.6, 2, True),
        (9, 1, 4, True),
        (9, 1, 5, False),
        (8, 2, 2, True),  # equality: sqrt(8) - sqrt(2) = sqrt(2)
        (12, 3, 3, True),
        # At equality with a rate of 0 one isolated node is expected in the limit.
        (2, 0, 2, False),
        (0, 2, 2, False),
        (3, 0, 3, False),
        (2.001, 0, 2, True),
    ],
)
def test_exact_recovery(a: float, b: float, k: int, found: bool) -> None:
    assert exact_recovery(a, b, k) == found


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_degree(-1.0, 1.0, 2), "a must be finite and at least 0, got -1.0"),
        (lambda: signal_to_noise(1.0, math.nan, 2), "b must be finite and at least 0, got nan"),
        (lambda: detectability(0.0, 0.0, 2), "not both be 0"),
        (lambda: exact_recovery(1.0, 1.0, 1), "num_communities must be an integer of at least 2, got 1"),
        (lambda: rates_from_snr(3.1, 3.0, 2), "snr must lie from 0 to 3 for 2 assortative communities .* got 3.1"),
        (lambda: rates_from_snr(0.91, 14.4, 5, assortative=False), "snr must lie from 0 to 0.9 for 5 disassortative"),
        (lambda: rates_from_snr(math.nan, 3.0, 2), "snr must lie"),
        (lambda: rates_from_snr(1.0, 0.0, 2), "degree must be positive"),
        (lambda: rates_from_snr(1.0, 3.0, 1), "num_communities must be"),
        (lambda: symmetric_connectivity(4, 5.0, 1.0, 2), "they must be at most 4"),
        (lambda: symmetric_connectivity(0, 5.0, 1.0, 2), "num_nodes must be an integer of at least 1"),
        (lambda: critical_degrees(0.1, 2), "num_communities must be an integer of at least 3"),
        (lambda: critical_degrees(0.0, 4), "not be 0"),
        (lambda: critical_degrees(-0.5, 4), "from -1 / "),
    ],
)
def test_bad_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
