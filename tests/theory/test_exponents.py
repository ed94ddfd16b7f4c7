from __future__ import annotations

import pytest

from lightning_landscape.theory.exponents import fitted_exponent

WIDTHS = [4, 6, 8, 12, 16]


@pytest.mark.parametrize("exponent", [-2.0, -0.5, 1.0])
def test_the_exponent_of_a_power_law_is_found(exponent: float) -> None:
    assert fitted_exponent(WIDTHS, [3 * width**exponent for width in WIDTHS]) == pytest.approx(exponent)


def test_means_at_the_floor_are_left_out() -> None:
    means = [1 / width for width in WIDTHS[:3]] + [1e-9, 0.0]
    assert fitted_exponent(WIDTHS, means, floor=1e-5) == pytest.approx(-1.0)
    assert fitted_exponent(WIDTHS, means, floor=means[2]) is None


def test_what_is_no_power_law_of_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="5 sizes do not go with 1 means"):
        fitted_exponent(WIDTHS, [1.0])
    with pytest.raises(ValueError, match="sizes must be positive"):
        fitted_exponent([0, 1, 2], [1.0, 1.0, 1.0])
