from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_landscape.datamodules import PlantedTeacherDataModule


def ready(*arguments: Any, **options: Any) -> PlantedTeacherDataModule:
    data = PlantedTeacherDataModule(*arguments, **options)
    data.setup("fit")
    return data


@pytest.mark.parametrize(
    ("teacher", "activation"),
    [("linear", lambda z: z), ("quadratic", lambda z: z**2), ("relu", lambda z: z.clamp_min(0))],
)
def test_the_answers_are_those_of_the_teacher(teacher: Any, activation: Any) -> None:
    data = ready(teacher, num_inputs=5, num_outputs=2, teacher_units=3, noise=0.0)
    assert data.inner.shape == (3, 5)
    assert data.outer.shape == (2, 3)
    torch.testing.assert_close(data.inner.norm(dim=1), torch.ones(3))
    for split in data.splits.values():
        x, y = split.tensors
        assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
        torch.testing.assert_close(y, activation(x @ data.inner.T) @ data.outer.T)


def test_inputs_and_noise_have_the_moments_asked_for() -> None:
    data = ready(num_inputs=3, num_outputs=2, input_rank=2, noise=0.5, num_examples=20_000)
    x, y = data.splits["train"].tensors
    torch.testing.assert_close(x.T @ x / len(x), torch.diag(torch.tensor([1.0, 1.0, 0.0])), atol=0.05, rtol=0)
    error = y - x @ data.inner.T @ data.outer.T
    torch.testing.assert_close(error.T @ error / len(x), 0.25 * torch.eye(2), atol=0.02, rtol=0)


def test_a_linear_teacher_of_few_units_is_a_regression_of_that_rank() -> None:
    y = ready(num_inputs=5, num_outputs=4, teacher_units=2, noise=0.0).splits["train"].tensors[1]
    assert int(torch.linalg.matrix_rank(y, rtol=1e-5)) == 2


def test_the_seed_decides_everything_and_the_global_state_nothing() -> None:
    state = torch.get_rng_state()
    first, again, other = (ready(seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("train", "val", "test"):
        for left, right, different in zip(*(data.splits[name].tensors for data in (first, again, other)), strict=True):
            assert torch.equal(left, right)
            assert not torch.equal(left, different)
    assert not torch.equal(first.splits["val"].tensors[0], first.splits["test"].tensors[0])
    before = first.splits["train"].tensors[0].clone()
    first.setup("test")
    assert torch.equal(first.splits["train"].tensors[0], before)


def test_sizes() -> None:
    data = ready(num_examples=10, batch_size=4)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 10, "val": 2, "test": 2}
    assert len(ready(num_examples=1).splits["test"]) == 1
    assert [len(x) for x, _ in data.train_dataloader()] == [4, 4, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": "tanh"}, r"teacher must be one of \['linear', 'quadratic', 'relu'\], got 'tanh'"),
        ({"num_inputs": 0}, "num_inputs must be an integer of at least 1, got 0"),
        ({"teacher_units": 1.5}, "teacher_units must be an integer"),
        ({"num_examples": 0}, "num_examples must be"),
        ({"input_rank": 7}, "input_rank must be an integer from 0 to num_inputs = 6, got 7"),
        ({"input_rank": 2.5}, "input_rank must be an integer"),
        ({"noise": -0.1}, "noise must be finite and at least 0"),
        ({"noise": float("nan")}, "noise must be finite"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlantedTeacherDataModule(**options)
