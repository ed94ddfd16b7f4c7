"""Figures that cost nothing, but in the tests of the figures."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from lightning_landscape.callbacks import publishing


@pytest.fixture
def real_figures() -> None:
    """For tests of the figures themselves; elsewhere drawing would take most of the time."""


@pytest.fixture(autouse=True)
def _blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_figures" not in request.fixturenames:
        for name in ("profile_figure", "history_figure"):
            monkeypatch.setattr(publishing, name, lambda *args: Figure(figsize=(1, 1)))
