r"""Deep linear networks of any widths have no poor local minima.

Statement (Freeman & Bruna 2017, the linear case; see Baldi & Hornik 1989 for two layers, Lu & Kawaguchi 2017 for
depth). Let ``E(W_1, ..., W_K) = (1/N) sum_i ||W_K ... W_1 x_i - y_i||^2`` with W_k of shape (n_k, n_{k-1}) and s =
min_k n_k. From every point there is a path on which E never increases, to a global minimum, which is the least
squared error of a matrix of rank at most s. Nothing is assumed of the widths, of the weights (all zero, say), or of
the data (a singular covariance, repeated eigenvalues).

Construction. Let p be the narrowest hidden layer, h its width, A = W_K ... W_{p+1} and C = W_p ... W_1.

1. *Opening.* T = W_{K-1} ... W_{p+1} gets full column rank and S = W_p ... W_2 full row rank, while the product A C
   stays as it is. If T N = 0 for an orthonormal basis N, then A N = 0, and W_p may lose its component along N. No
   input excites N any more; the layers above are at least as wide as p, so that each has directions orthogonal to all
   that the inputs excite, and N may be passed up through them. S is treated in the same way from above. Now A = W_K T
   and C = S W_1 are free: any straight move of theirs is a straight move of W_K or W_1.
2. *Regression.* A gets as large a rank as its shape allows, by new directions that C does not excite. Then C goes
   straight to its optimum A^+ P_ls, with P_ls a least-squares solution; E is convex in C.
3. *The Grassmannian.* Now E depends on the range V of A alone (the quotient by GL(h)), as a constant less tr(Pi_V M),
   where Pi_V is the projection on V and M the covariance of the fitted values. Let e be a top eigenvector of M, w the
   unit vector of V nearest to it and V = span(w) + V'. V' is orthogonal to e, so that turning w into e in their plane
   leaves V' as it is. On that plane the form M is diagonal in e and the direction g orthogonal to it, with the larger
   value at e: tr(Pi_V M) grows all the way. Then the same in the orthogonal complement of e, and so on h times.

A straight segment between two rotated points, A moving along R A and C along A^+ R^T P_ls, has in place of w a vector
of squared norm 1 - q, with 0 <= q <= psi^2 / 4 for an angle psi between the two. It gains (1 - q^2) times what the
unit vector of its direction gains, and the latter grows faster than q^2 once psi^2 is below the gap of M between e and
g, relative to its value at e: E falls along the whole segment. Among equal eigenvalues the eigenvector nearest to V is
taken, so that the gap is positive whenever w has to move.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_landscape.models.theorems.deep_linear_network import DeepLinearNetwork
from lightning_landscape.path import Path
from lightning_landscape.theory.regression import Batch, Regression
from lightning_landscape.theory.subspaces import null_space, plane_rotation, pseudo_inverse, spectral_norm
from lightning_landscape.theory.weight_lists import Weights, path_through, product, weights_at

_EQUAL = 1e-8  # eigenvalues that differ by less than this share are one
_LARGEST_ANGLE = math.pi / 8
_SMALLEST_ANGLE = 2e-3  # below it a segment rises by less than 1e-12 of the eigenvalue, whatever the gap
_NO_ANGLE = 1e-14


def descent_path(module: DeepLinearNetwork, theta: Tensor, batch: Batch) -> Path:
    """A path from ``theta`` to a global minimum on which E never increases.

    Args:
        module: the network, of any widths, without ridge; its weights are not read.
        theta: parameters, shape (P,), in the order of ``named_parameters()``.
        batch: (x, y), tensors (N, n) and (N, m).

    Returns:
        A path in float64; E at its end is ``Regression(batch).minimum(min(module.widths))``.

    Raises:
        ValueError: if the module has a ridge, or for a batch or parameters of another shape.

    Example:
        >>> network = DeepLinearNetwork(num_inputs=2, num_outputs=2, hidden=[1])
        >>> path = descent_path(network, torch.zeros(4), (torch.eye(2), torch.diag(torch.tensor([1.0, 2.0]))))
        >>> torch.outer(path.beads[-1, 2:], path.beads[-1, :2]).round(decimals=9).abs()
        tensor([[0., 0.],
                [0., 2.]], dtype=torch.float64)
    """
    if not isinstance(module, DeepLinearNetwork):
        raise ValueError(f"module must be a DeepLinearNetwork, got {type(module).__name__}")
    if module.ridge:
        raise ValueError(f"ridge must be 0 for this theorem, got {module.ridge}; theory.deep_linear treats two layers")
    problem = Regression(batch)
    problem.require_shape(module.num_inputs, module.num_outputs)
    weights = weights_at(module, theta)
    if len(weights) == 1:
        return path_through([weights, [problem.solution]])
    hidden = module.widths[1:-1]
    narrowest = 1 + hidden.index(min(hidden))
    states = [*_open(weights, narrowest)]
    return path_through([*states, *_descend(states[-1], narrowest, problem, spectral_norm(weights[-1]))])


def _open(weights: Weights, narrowest: int) -> Iterator[Weights]:
    """Step 1: corners on which the product of all weights is constant."""
    yield weights
    size = len(weights[narrowest - 1])
    weights = [*weights]
    upper = product(weights[narrowest:-1][::-1], size)
    kernel = null_space(upper, _scale(weights[narrowest:-1]))
    if kernel.shape[1]:
        weights[narrowest - 1] = weights[narrowest - 1] - kernel @ (kernel.T @ weights[narrowest - 1])
        yield [*weights]
        weights[narrowest:-1] = _pass_on(weights[narrowest:-1], kernel)
        yield [*weights]
        upper = product(weights[narrowest:-1][::-1], size)
    cokernel = null_space(product(weights[1:narrowest][::-1], size).T, _scale(weights[1:narrowest]))
    if cokernel.shape[1]:
        weights[-1] = weights[-1] - weights[-1] @ upper @ cokernel @ cokernel.T @ pseudo_inverse(upper)
        yield [*weights]
        downwards = [weight.T for weight in weights[1:narrowest][::-1]]
        weights[1:narrowest] = [weight.T for weight in _pass_on(downwards, cokernel)[::-1]]
        yield weights


def _pass_on(layers: Weights, kernel: Tensor) -> Weights:
    """Layers, in the order of application, that pass the kernel of their product on to unused directions.

    They act as before on the orthogonal complement of ``kernel``, and on the kernel by isometries times their norm.
    """
    used, source = null_space(kernel.T), kernel
    changed = []
    for layer in layers:
        used = layer @ used
        target = null_space(used.T)[:, : kernel.shape[1]]
        changed.append(layer + ((spectral_norm(layer) or 1.0) * target - layer @ source) @ source.T)
        source = target
    return changed


def _scale(factors: Weights) -> float:
    return math.prod(map(spectral_norm, factors))


def _descend(weights: Weights, narrowest: int, problem: Regression, last_norm: float) -> Iterator[Weights]:
    """Steps 2 and 3, carried out by the first and the last layer.

    ``last_norm`` is the norm of the last layer before it lost components, which left rounding.
    """
    size = len(weights[narrowest - 1])
    upper = product(weights[narrowest:-1][::-1], size)
    lower = product(weights[1:narrowest][::-1], size)
    outer, inner = weights[-1] @ upper, lower @ weights[0]
    upper_inverse, lower_inverse = pseudo_inverse(upper), pseudo_inverse(lower)
    scale = last_norm * spectral_norm(upper)
    for new_outer, new_inner in _two_layers(outer, inner, problem, scale):
        first = weights[0] + lower_inverse @ (new_inner - inner)
        last = weights[-1] + (new_outer - outer) @ upper_inverse
        yield [first, *weights[1:-1], last]


def _two_layers(outer: Tensor, inner: Tensor, problem: Regression, scale: float) -> Iterator[tuple[Tensor, Tensor]]:
    kernel, missing = null_space(outer, scale), null_space(outer.T, scale)
    added = min(kernel.shape[1], missing.shape[1])
    if added:
        inner = inner - kernel @ (kernel.T @ inner)
        yield outer, inner
        size = spectral_norm(outer) if kernel.shape[1] < outer.shape[1] else 1.0
        outer = outer + size * missing[:, :added] @ kernel[:, :added].T
        yield outer, inner
    inverse = pseudo_inverse(outer)
    yield outer, inverse @ problem.solution
    for rotation in _rotations(outer, problem.fitted):
        outer, inverse = rotation @ outer, inverse @ rotation.T
        yield outer, inverse @ problem.solution


def _rotations(outer: Tensor, form: Tensor) -> Iterator[Tensor]:
    """Small rotations, one after the other, of range(outer) to a top eigenspace of ``form``: step 3."""
    rank = outer.shape[1] - null_space(outer).shape[1]
    space = torch.linalg.svd(outer, full_matrices=False).U[:, :rank]
    rest = torch.eye(len(form), dtype=form.dtype)  # orthonormal basis of what is left of R^m
    largest = torch.linalg.matrix_norm(form, ord=2)
    while space.shape[1] and space.shape[1] < rest.shape[1]:
        values, vectors = torch.linalg.eigh(rest.T @ form @ rest)
        top = values[-1]
        if top <= _EQUAL**2 * largest:
            return  # nothing more to gain
        candidates = rest @ vectors[:, values >= (1 - _EQUAL) * top]
        left, cosines, right = torch.linalg.svd(candidates.T @ space)
        goal, near = candidates @ left[:, 0], space @ right[0]
        side = near - (near @ goal) * goal
        sine = float(side.norm())
        if sine > _NO_ANGLE:
            side = side / sine
            angle = math.atan2(sine, float(cosines[0]))
            gap = max(0.0, 1 - float(side @ form @ side / top))
            widest = min(_LARGEST_ANGLE, max(_SMALLEST_ANGLE, math.sqrt(gap) / 2))
            steps = math.ceil(angle / widest)
            yield from [plane_rotation(side, goal, angle / steps)] * steps
        space = space @ right[1:].T
        rest = rest @ null_space((rest.T @ goal)[None])
