"""Values as plain JSON."""

from __future__ import annotations

import json
import math
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from lightning_landscape.storage.plain import plain_json


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Pair(NamedTuple):
    left: float
    right: float


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (1.5, 1.5),
        (2, 2),
        (True, True),
        (None, None),
        ("nan", "nan"),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (Colour.RED, "red"),
        (Size.LARGE, 3),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array(2.0), 2.0),
        (np.array([[1.0, math.nan], [math.inf, 2.0]]), [[1.0, None], [None, 2.0]]),
        (torch.tensor(3), 3),
        (torch.tensor([0.5, math.nan], requires_grad=True), [0.5, None]),
        (torch.zeros(0), []),
        ((1, (2.0, math.nan)), [1, [2.0, None]]),
        (Pair(math.inf, 1.0), [None, 1.0]),
        ({Colour.RED: {"a": [math.nan]}, 4: ()}, {"red": {"a": [None]}, 4: []}),
    ],
)
def test_a_value_becomes_plain(value: Any, plain: Any) -> None:
    found = plain_json(value)
    assert found == plain
    assert type(found) is type(plain)
    assert json.loads(json.dumps(found, allow_nan=False)) is not ...


def test_what_it_does_not_know_is_left_for_json_to_refuse() -> None:
    thing = object()
    assert plain_json([thing]) == [thing]
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(plain_json(thing))


def test_the_value_itself_is_not_changed() -> None:
    value = {"a": [math.nan]}
    plain_json(value)
    assert math.isnan(value["a"][0])
