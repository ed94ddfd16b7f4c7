"""The functions that the README names: one path per kind of network, and answers where no theorem grants one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
import torch
from theorem_cases import batch_of, theta_of
from torch import nn

from lightning_landscape import theory
from lightning_landscape.models import (
    DeepLinearNetwork,
    DeepQuadraticNetwork,
    PolynomialNetwork,
    QuadraticNetwork,
    TwoLayerReLU,
)
from lightning_landscape.theory import (
    deep_linear,
    deep_quadratic,
    intrinsic_dimension,
    multilinear,
    quadratic,
    two_layer_relu,
)

NETWORKS = [
    (DeepLinearNetwork(2, 2, hidden=[3]), deep_linear),
    (QuadraticNetwork(num_inputs=2, hidden_units=12, num_outputs=2), quadratic),
    (DeepQuadraticNetwork(num_inputs=2, hidden=[6, 10], num_outputs=2), deep_quadratic),
    (PolynomialNetwork(2, 6, coefficients=[1.0, 0.0, 0.0], num_outputs=2), intrinsic_dimension),
    (TwoLayerReLU(num_inputs=2, hidden_units=4, num_outputs=2, l1=1e-2), two_layer_relu),
]


@pytest.mark.parametrize(("module", "theorem"), NETWORKS)
def test_connecting_path_is_that_of_the_theorem(module: nn.Module, theorem: object) -> None:
    batch = batch_of("generic", 2, 2, seed=0)
    ends = theta_of("generic", module, seed=1), theta_of("generic", module, seed=2)
    found = theory.connecting_path(module, *ends, batch)
    assert torch.equal(found.beads, theorem.connecting_path(module, *ends, batch).beads)


@pytest.mark.parametrize(("module", "theorem"), [*NETWORKS[:3], (DeepLinearNetwork(2, 2, hidden=[1]), multilinear)])
def test_descent_path_is_that_of_the_theorem(module: nn.Module, theorem: object) -> None:
    batch, theta = batch_of("generic", 2, 2, seed=0), theta_of("generic", module, seed=1)
    found = theory.descent_path(module, theta, batch)
    assert torch.equal(found.beads, theorem.descent_path(module, theta, batch).beads)


def test_a_class_derived_from_a_network_is_treated_as_that() -> None:
    class Mine(DeepLinearNetwork):
        pass

    module, batch = Mine(2, 2, hidden=[3]), batch_of("generic", 2, 2, seed=0)
    theta = theta_of("generic", module, seed=1)
    assert torch.equal(
        theory.descent_path(module, theta, batch).beads, deep_linear.descent_path(module, theta, batch).beads
    )


def test_other_modules_are_refused_with_the_list() -> None:
    batch, theta = batch_of("generic", 2, 2, seed=0), torch.zeros(4)
    message = "no theorem treats a Linear: give one of DeepLinearNetwork, QuadraticNetwork, PolynomialNetwork, TwoLayer"
    with pytest.raises(TypeError, match=message):
        theory.connecting_path(nn.Linear(2, 2), theta, theta, batch)
    with pytest.raises(TypeError, match=message):
        theory.descent_path(nn.Linear(2, 2), theta, batch)


def test_what_no_theorem_grants_is_said() -> None:
    batch = batch_of("generic", 2, 2, seed=0)
    narrow, relu = DeepLinearNetwork(2, 2, hidden=[1]), NETWORKS[-1][0]
    with pytest.raises(ValueError, match="need not be connected: make every hidden width larger than 2, or call desce"):
        theory.connecting_path(narrow, torch.zeros(4), torch.ones(4), batch)
    with pytest.raises(ValueError, match="n_1 = 1 must exceed"):
        theory.descent_path(DeepLinearNetwork(2, 2, hidden=[1], ridge=0.1), torch.zeros(4), batch)
    with pytest.raises(TypeError, match="has no descent_path: call connecting_path"):
        theory.descent_path(relu, torch.zeros(16), batch)


def test_names_of_the_face_stay_functions_after_every_import() -> None:
    for module in pkgutil.iter_modules(theory.__path__):
        importlib.import_module(f"lightning_landscape.theory.{module.name}")
    for name in ("connecting_path", "descent_path", "counterexample", "component", "measure_bound"):
        assert inspect.isfunction(getattr(theory, name)), name
    assert theory.counterexample([2, 3, 2]).separating_height == pytest.approx(1 / 6)
