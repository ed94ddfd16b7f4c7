"""Layers: the iteration each starts as, the step each computes, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.parametrizations import orthogonal

from lightning_landscape.sparse_coding import (
    LassoProblem,
    check_factorization,
    facnet_step,
    fista,
    fista_iterates,
    ista,
    soft_threshold,
)
from lightning_landscape.sparse_coding.dictionaries import gaussian_dictionary
from lightning_landscape.sparse_coding.layers import (
    LAYERS,
    ALISTALayer,
    FacNetLayer,
    FreeFacNetLayer,
    LISTACPLayer,
    LISTACPSSLayer,
    LISTALayer,
    SLISTALayer,
    TiLISTALayer,
    UnrolledLayer,
    analytic_weights,
    cayley,
    polar_factor,
)

N, M, LAM, DEPTH = 16, 24, 0.1, 7
AS_ISTA = ["lista", "facnet", "facnet_free", "lista_cp", "tilista", "slista"]


def problem_of(dtype: torch.dtype = torch.float64, normalization: Any = "norm") -> LassoProblem:
    dictionary = gaussian_dictionary(N, M, torch.Generator().manual_seed(0), normalization)
    return LassoProblem(dictionary.to(dtype), LAM)


def signals(problem: LassoProblem, count: int = 9) -> Tensor:
    x = torch.randn(count, len(problem.dictionary), dtype=problem.dictionary.dtype)
    return x / problem.lambda_max(x)[:, None]


def unrolled(layers: list[UnrolledLayer], problem: LassoProblem, x: Tensor) -> Tensor:
    previous = z = x.new_zeros(len(x), problem.dictionary.shape[1])
    for layer in layers:
        previous, z = z, layer(problem.dictionary, x, z, previous)
    return z


@pytest.mark.parametrize("normalization", ["norm", "squared_norm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*AS_ISTA, "l_fista"])
def test_starts_as_ista_or_fista(name: str, dtype: torch.dtype, normalization: str) -> None:
    problem = problem_of(dtype, normalization)
    x = signals(problem)
    z = unrolled([LAYERS[name](problem, k).eval() for k in range(DEPTH)], problem, x)
    expected = (fista if name == "l_fista" else ista)(problem, x, DEPTH)
    assert z.dtype == dtype
    assert (z - expected).abs().max() <= 1e-6 * expected.abs().max().clamp_min(1)
    assert z.count_nonzero() > 0


def test_a_layer_of_l_fista_is_the_iteration_of_its_place() -> None:
    problem = problem_of()
    x = signals(problem)
    codes = fista_iterates(problem, x)
    z = [next(codes) for _ in range(6)]
    for k in range(1, 5):
        torch.testing.assert_close(LAYERS["l_fista"](problem, k)(problem.dictionary, x, z[k], z[k - 1]), z[k + 1])


@pytest.mark.parametrize("name", AS_ISTA)
def test_any_layer_steps_as_ista_from_any_code(name: str) -> None:
    problem = problem_of()
    x, z = signals(problem), torch.randn(9, M, dtype=torch.float64)
    step = LAYERS[name](problem, 3).eval()(problem.dictionary, x, z, torch.full_like(z, math.nan))
    torch.testing.assert_close(step, ista(problem, x, 1, initial=z))


def moved(layer: UnrolledLayer) -> UnrolledLayer:
    """The layer away from its start."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    return layer


def test_lista_computes_its_formula() -> None:
    problem = problem_of()
    x, z = signals(problem), torch.randn(9, M, dtype=torch.float64)
    layer = moved(LISTALayer(problem))
    for row in range(len(x)):
        expected = soft_threshold(
            layer.W_g @ z[row] + layer.W_e @ x[row], problem.lam * layer.theta / problem.lipschitz
        )
        torch.testing.assert_close(layer(problem.dictionary, x, z, z)[row], expected)


@pytest.mark.parametrize("name", ["lista_cp", "tilista", "slista"])
def test_coupled_layers_compute_their_formulas(name: str) -> None:
    problem = problem_of()
    x, z = signals(problem), torch.randn(9, M, dtype=torch.float64)
    layer: Any = moved(LAYERS[name](problem))
    rate = 1 / problem.lipschitz
    weight = {"lista_cp": lambda: layer.W, "tilista": lambda: rate * layer.gamma * layer.W,
              "slista": lambda: rate * layer.gamma * problem.dictionary}[name]()  # fmt: skip
    threshold = problem.lam * rate * (layer.gamma if name == "slista" else layer.theta)
    for row in range(len(x)):
        expected = soft_threshold(z[row] - weight.T @ (problem.dictionary @ z[row] - x[row]), threshold)
        torch.testing.assert_close(layer(problem.dictionary, x, z, z)[row], expected)


@pytest.mark.parametrize("layer", [FacNetLayer, FreeFacNetLayer])
def test_facnet_takes_the_step_of_the_certificate(layer: type[FacNetLayer]) -> None:
    problem = problem_of()
    x, z = signals(problem), torch.randn(9, M, dtype=torch.float64)
    facnet = moved(layer(problem)).eval()
    assert isinstance(facnet, FacNetLayer)
    assert (facnet.A - torch.eye(M)).abs().max() > 0.01
    found = check_factorization(problem, facnet.A.detach(), facnet.S.detach())
    assert found.unitarity_error < 1e-12
    assert found.smallest_scale > problem.lipschitz
    expected = facnet_step(problem, x, z, facnet.A.detach(), facnet.S.detach())
    torch.testing.assert_close(facnet(problem.dictionary, x, z, z), expected)


def test_an_untrained_facnet_has_the_factorisation_of_ista() -> None:
    problem = problem_of()
    layer = FacNetLayer(problem)
    assert torch.equal(layer.A, torch.eye(M, dtype=torch.float64))
    torch.testing.assert_close(layer.S, torch.full((M,), problem.lipschitz, dtype=torch.float64))
    assert check_factorization(problem, layer.A.detach(), layer.S.detach()).valid


def test_a_free_factor_is_penalised_in_training_and_orthogonal_in_evaluation() -> None:
    problem = problem_of()
    layer = FreeFacNetLayer(problem, mu=3.0)
    assert layer.penalty().item() == 0
    with torch.no_grad():
        layer.factor.mul_(2)
    assert layer.penalty().item() == pytest.approx(3 * 9 * M)
    torch.testing.assert_close(layer.train().A, 2 * torch.eye(M, dtype=torch.float64))
    torch.testing.assert_close(layer.eval().A, torch.eye(M, dtype=torch.float64))


def test_the_cayley_transform_is_that_of_torch() -> None:
    linear = torch.nn.Linear(6, 6, bias=False, dtype=torch.float64)
    matrix = linear.weight.detach().clone()
    orthogonal(linear, "weight", orthogonal_map="cayley", use_trivialization=False)
    torch.testing.assert_close(cayley(matrix), linear.weight)
    torch.testing.assert_close(cayley(matrix) @ cayley(matrix).T, torch.eye(6, dtype=torch.float64))


def test_the_polar_factor_is_that_of_the_singular_value_decomposition_and_has_a_gradient() -> None:
    matrix = torch.randn(8, 8, dtype=torch.float64)
    left, _, right = torch.linalg.svd(matrix)
    torch.testing.assert_close(polar_factor(matrix), left @ right)
    # All singular values equal, where the decomposition has no derivative: the factor's is the skew-symmetric part.
    identity = torch.eye(4, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(4, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((polar_factor(identity) * direction).sum(), identity)
    torch.testing.assert_close(gradient, (direction - direction.T) / 2)


def test_analytic_weights_have_least_coherence_among_those_with_unit_diagonal() -> None:
    dictionary = problem_of().dictionary
    weights, scales = analytic_weights(dictionary)
    torch.testing.assert_close((weights * dictionary).sum(0), torch.ones(M, dtype=torch.float64))
    torch.testing.assert_close(
        weights, torch.linalg.solve(dictionary @ dictionary.T, dictionary) / scales, rtol=1e-9, atol=1e-9
    )
    least = (weights.T @ dictionary).square().sum()
    for _ in range(20):
        other = weights + 0.1 * torch.randn_like(weights)
        other = other / (other * dictionary).sum(0)
        assert (other.T @ dictionary).square().sum() > least


def test_analytic_weights_do_without_a_pixel_that_is_always_zero() -> None:
    dictionary = problem_of().dictionary
    padded = torch.cat([dictionary, torch.zeros(2, M, dtype=torch.float64)])
    weights, scales = analytic_weights(padded)
    expected, expected_scales = analytic_weights(dictionary)
    torch.testing.assert_close(weights[:N], expected)
    torch.testing.assert_close(scales, expected_scales)
    assert weights[N:].abs().max() < 1e-12


def test_analytic_weights_take_rounding_of_float32_for_nothing() -> None:
    """Learned atoms are never quite 0 where all images are."""
    dictionary = problem_of(torch.float32).dictionary
    weights, scales = analytic_weights(torch.cat([dictionary, 1e-12 * torch.rand(2, M)]))
    expected, expected_scales = analytic_weights(dictionary)
    torch.testing.assert_close(weights[:N], expected)
    torch.testing.assert_close(scales, expected_scales)
    assert weights[N:].abs().max() < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alista_starts_as_ista_on_the_whitened_dictionary(dtype: torch.dtype) -> None:
    problem = problem_of(dtype)
    x = signals(problem)
    layers: list[UnrolledLayer] = [ALISTALayer(problem, k) for k in range(DEPTH)]
    dictionary = problem.dictionary.double()
    values, vectors = torch.linalg.eigh(dictionary @ dictionary.T)
    whitening = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    scales = (whitening @ dictionary).square().sum(0)
    atoms = whitening @ dictionary / scales.sqrt()
    torch.testing.assert_close(atoms.norm(dim=0), torch.ones(M, dtype=torch.float64))
    step = 1 / torch.linalg.matrix_norm(atoms, 2).square()
    u = torch.zeros(len(x), M, dtype=torch.float64)
    for _ in range(DEPTH):
        moved_code = u + step * (x.double() @ whitening - u @ atoms.T) @ atoms
        u = soft_threshold(moved_code, scales.sqrt() * problem.lam * step)  # atoms of D have norm 1: s = 1
    z = unrolled(layers, problem, x)
    assert (z - u / scales.sqrt()).abs().max() <= 1e-6 * z.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alista_starts_as_ista_on_a_tight_frame(dtype: torch.dtype) -> None:
    # Two orthogonal bases side by side: D D^T = 2 c^2 I with atoms of length c.
    bases = [torch.linalg.qr(torch.randn(N, N, dtype=torch.float64))[0] for _ in range(2)]
    problem = LassoProblem(0.3 * torch.cat(bases, dim=1).to(dtype), LAM)
    x = signals(problem)
    z = unrolled([ALISTALayer(problem, k) for k in range(DEPTH)], problem, x)
    expected = ista(problem, x, DEPTH)
    assert (z - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_support_selection_keeps_the_largest_coefficients_unshrunk() -> None:
    problem = problem_of()
    x = signals(problem)
    plain = LISTACPLayer(problem, 3)
    layer = LISTACPSSLayer(problem, 3, growth=0.05, limit=0.13)
    assert layer.trusted == 3  # min(4 * .05, .13) of 24
    assert LISTACPSSLayer(LassoProblem(torch.ones(1, 100), LAM), growth=0.29, limit=0.29).trusted == 29
    rows = torch.tensor([[5.0, -4.0, 0.5, 3.0, 2.0], [0.1, 0.2, 0.0, 0.3, -0.4]], dtype=torch.float64)
    layer.trusted = 2
    expected = torch.tensor([[5.0, -4.0, 0.0, 2.0, 1.0], [0.0] * 5], dtype=torch.float64)
    torch.testing.assert_close(layer.shrink(rows, torch.tensor(1.0, dtype=torch.float64)), expected)
    zero = torch.zeros(9, M, dtype=torch.float64)
    for growth, limit in ((0.0, 0.13), (0.05, 0.0)):
        none = LISTACPSSLayer(problem, 3, growth=growth, limit=limit)
        assert torch.equal(none(problem.dictionary, x, zero, zero), plain(problem.dictionary, x, zero, zero))


@pytest.mark.parametrize("kind", ["lista", "l_fista", "lista_cp", "alista", "tilista", "slista"])
def test_every_thresholding_layer_selects_its_support(kind: str) -> None:
    problem = problem_of()
    x, zero = signals(problem), torch.zeros(9, M, dtype=torch.float64)
    plain, selecting, none = (LAYERS[kind](problem, 3, growth=growth, limit=0.13) for growth in (0.0, 0.05, 0.0))
    before, after = (layer(problem.dictionary, x, zero, zero) for layer in (plain, selecting))
    assert torch.equal(before, none(problem.dictionary, x, zero, zero))
    # From z = 0 every coefficient moves away from 0, three of each row that pass the threshold by its whole height.
    gained = (after - before).abs() > 1e-12
    assert torch.equal(gained, (before != 0) & (before.abs() >= before.abs().sort(dim=1).values[:, -3:-2]))
    heights = (after - before).abs()[gained]
    torch.testing.assert_close(heights, heights[0].expand_as(heights))
    with pytest.raises(ValueError, match="growth must lie"):
        LAYERS[kind](problem, growth=-0.1)


def test_tied_layers_share_one_matrix() -> None:
    problem = problem_of()
    first, second = TiLISTALayer(problem, 0), TiLISTALayer(problem, 1)
    second.tie(first)
    assert second.W is first.W
    assert second.gamma is not first.gamma
    lista = LISTALayer(problem)
    LISTALayer(problem, 1).tie(lista)
    assert isinstance(lista.W_g, torch.nn.Parameter)


@pytest.mark.parametrize("name", list(LAYERS))
def test_noise_moves_the_start_and_a_reset_without_it_comes_back(name: str) -> None:
    problem = problem_of(torch.float32)
    before = torch.get_rng_state()
    plain = LAYERS[name](problem, 2)
    assert torch.equal(torch.get_rng_state(), before)
    first, second = (LAYERS[name](problem, 2, noise=0.5) for _ in range(2))
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert any(not torch.equal(*pair) for pair in pairs)
    first.reset_parameters()
    assert any(not torch.equal(*pair) for pair in pairs)
    moved(plain).reset_parameters()
    for (key, value), expected in zip(plain.state_dict().items(), LAYERS[name](problem, 2).parameters(), strict=True):
        assert torch.equal(value, expected), key


@pytest.mark.parametrize("name", ["facnet", "facnet_free"])
def test_facnet_with_noise_is_a_valid_rotation(name: str) -> None:
    problem = problem_of()
    layer: Any = LAYERS[name](problem, noise=1.0).eval()
    assert (layer.A.T @ layer.A - torch.eye(M)).abs().max() < 1e-10
    assert (layer.A - torch.eye(M)).abs().max() > 0.1
    assert layer.S.min() > 0


@pytest.mark.parametrize("name", list(LAYERS))
def test_every_parameter_but_those_of_a_zero_code_gets_a_gradient(name: str) -> None:
    problem = problem_of()
    x, z = signals(problem), torch.randn(9, M, dtype=torch.float64)
    layer = LAYERS[name](problem, 5)
    layer(problem.dictionary, x, z, torch.randn_like(z)).square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize(
    ("layer", "arguments", "message"),
    [
        (LISTALayer, {"index": -1}, "index must be an integer of at least 0, got -1"),
        (SLISTALayer, {"index": True}, "index must be"),
        (SLISTALayer, {"noise": -1.0}, "noise must be finite and at least 0"),
        (SLISTALayer, {"noise": math.nan}, "noise must be"),
        (FreeFacNetLayer, {"mu": 0.0}, "mu must be positive"),
        (LISTACPSSLayer, {"growth": 1.5}, r"growth must lie in \[0, 1\]"),
        (LISTACPSSLayer, {"limit": math.nan}, "limit must lie"),
    ],
)
def test_refuses_arguments_out_of_range(layer: type[UnrolledLayer], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(problem_of(), **arguments)
