"""The first stable step: the rule, its threshold, its words, and what a run says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_landscape.callbacks import ForkStability, stability
from lightning_landscape.report.stability import stability_conclusion, stable_step, threshold, work_ahead


def rows(*barriers: float | None, spread: float = 0.01) -> list[dict]:
    return [
        {
            "step": 10 * number,
            "reason": None if barrier is not None else "error",
            "error_barrier": barrier,
            "error_profile": {"loss": [0.1, 0.5, 0.1 + spread]},
        }
        for number, barrier in enumerate(barriers)
    ]


@pytest.mark.parametrize(
    ("barriers", "expected"),
    [
        ((0.3, 0.1, 0.01, 0.0), 20),
        ((0.3, 0.01, 0.1, 0.02), 30),  # stays below, and not is below once
        ((0.0, -0.01), 0),
        ((0.3, 0.1), None),
        ((0.3, 0.01, None), None),  # the last is not known
        ((0.3, None, 0.01), 20),
        ((), None),
    ],
)
def test_the_step_from_which_barriers_stay_low(barriers: tuple[float | None, ...], expected: int | None) -> None:
    assert stable_step(rows(*barriers), 0.02) == expected
    assert stable_step(rows(*barriers)[::-1], 0.02) == expected


def test_the_threshold_may_be_measured_between_seeds_of_the_order() -> None:
    assert threshold(rows(0.3, 0.1), "spread") == pytest.approx(0.02)
    assert stable_step(rows(0.3, 0.05, 0.03), "spread") is None
    assert stable_step(rows(0.3, 0.05, 0.03, spread=0.03), "spread") == 10


def test_words_say_what_is_known_and_what_is_not() -> None:
    assert stability_conclusion(rows(0.3, 0.01), 0.02).endswith("At step 0 it rises by 30.0.")
    assert stability_conclusion(rows(0.3, 0.1), 0.02).startswith("Not stable: from step 10 on")
    assert "earlier steps may be stable too" in stability_conclusion([rows(0.3, 0.01)[1]], 0.02)
    assert stability_conclusion(rows(0.0), 0.02).startswith("Stable from step 0:")
    assert "is not known" in stability_conclusion(rows(0.1, None), 0.02)


@pytest.mark.parametrize(("seconds", "time"), [(0.05, "about 60 s"), (1.0, "about 20 min"), (9.0, "about 3.0 h")])
def test_the_time_ahead(seconds: float, time: str) -> None:
    assert work_ahead(1200, 3, seconds).endswith(f"1200 training steps, {time}")


class Line(LightningModule):
    """Logistic regression: convex, and so stable from the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_convex_run_says_that_it_is_stable_and_how_long_its_children_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(64, 2)
    callback = ForkStability([0, 4], dirpath=tmp_path)
    trainer = Trainer(
        max_epochs=2, callbacks=[callback], logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    told: list[str] = []
    monkeypatch.setattr(stability, "rank_zero_info", told.append)
    trainer.fit(Line(), DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=16, shuffle=True))
    assert float(trainer.callback_metrics["landscape/fork/stable_step"]) == 0
    assert "the children of 2 forks now: 24 training steps, about" in told[0]
    assert "Stable from step 0:" in capsys.readouterr().out


@pytest.mark.parametrize("below", [-0.1, float("nan"), "much"])
def test_thresholds_that_are_none_are_refused(below: object) -> None:
    with pytest.raises(ValueError, match="stable_below"):
        ForkStability(stable_below=below)  # type: ignore[arg-type]
