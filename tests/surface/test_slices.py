"""Slices: geometry of the plane, values on the grid, interrupted work, figures."""

from __future__ import annotations

import math
from pathlib import Path as FilePath

import pytest
import torch
from torch import Tensor, nn

from lightning_landscape import LossSurface, Path, SnapshotError
from lightning_landscape.finders import DynamicStringSampling
from lightning_landscape.report.slice_figure import slice_figure
from lightning_landscape.report.style import save_figure
from lightning_landscape.surface.slices import Plane, Slice, evaluate_slice

A, B = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0])


def ring() -> LossSurface:
    return LossSurface(
        nn.Linear(2, 1, bias=False), [None], loss_fn=lambda module, batch: (module.weight.square().sum() - 1) ** 2
    )


def test_three_points_lie_where_the_triangle_says() -> None:
    a, b, c = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plane = Plane.through(a, b, c)
    found = plane.coordinates(torch.stack([a, b, c]))
    side = float((b - a).norm())
    along = float((c - a) @ (b - a)) / side
    height = math.sqrt(float((c - a) @ (c - a)) - along**2)
    expected = torch.tensor([[0.0, 0.0], [side, 0.0], [along, height]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(plane.points(found), torch.stack([a, b, c]))
    assert float(plane.distances(torch.stack([a, b, c])).max()) < 1e-12


def test_projection_onto_a_skew_plane_is_orthogonal() -> None:
    origin, u, v, point = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    plane = Plane(origin, u, v)
    residual = point - plane.points(plane.coordinates(point[None]))[0]
    assert abs(float(residual @ u)) < 1e-12
    assert abs(float(residual @ v)) < 1e-12
    assert float(plane.distances(point[None])) == pytest.approx(float(residual.norm()))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 2.0])
def test_points_on_a_line_span_no_plane(share: float) -> None:
    a, b = torch.randn(2, 1000, generator=torch.Generator().manual_seed(3))
    with pytest.raises(ValueError, match="choose another third point"):
        Plane.through(a.double(), b.double(), torch.lerp(a.double(), b.double(), share))


def test_random_directions_have_the_norm_of_each_filter() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
    images = torch.randn(8, 2, 3, 3)
    surface = LossSurface(net, [images], loss_fn=lambda module, batch: module(batch).square().mean())
    theta = surface.point()
    before = torch.get_rng_state()
    plane = Plane.random(surface, theta, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())
    for direction in (plane.u, plane.v):
        parts, weights = surface.parameters(direction.float()), surface.parameters(theta)
        for name, weight in weights.items():
            if weight.ndim < 2:
                assert not parts[name].any(), name
            else:
                torch.testing.assert_close(parts[name].flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
    assert abs(float(nn.functional.cosine_similarity(plane.u, plane.v, dim=0))) < 0.5


def test_a_filter_of_zeros_stays_where_it_is() -> None:
    net = nn.Linear(4, 2, bias=False)
    nn.init.zeros_(net.weight)
    surface = LossSurface(net, [torch.ones(1, 4)], loss_fn=lambda module, batch: module(batch).square().mean())
    assert not Plane.random(surface, surface.point(), torch.Generator().manual_seed(0)).u.any()


def test_grid_values_are_the_surface() -> None:
    x, y = torch.linspace(-0.5, 2.5, 13), torch.linspace(-1.0, 1.5, 7)
    found = evaluate_slice(ring(), Plane.through(A, B, torch.tensor([0.0, 1.0])), x, y)
    radius = (x[None] - 1) ** 2 + y[:, None] ** 2
    torch.testing.assert_close(found.losses, (radius - 1).square().double(), rtol=1e-5, atol=1e-6)


class Killed(Exception):
    pass


def test_an_interrupted_slice_goes_on(tmp_path: FilePath) -> None:
    x, y, file = torch.linspace(0, 2, 11), torch.linspace(-1, 1, 6), tmp_path / "slice.safetensors"
    plane = Plane.through(A, B, torch.tensor([0.0, 1.0]))

    def stop(description: str, fraction: float) -> None:
        if fraction > 0.4:
            raise Killed

    with pytest.raises(Killed):
        evaluate_slice(ring(), plane, x, y, file, progress=stop)
    surface = ring()
    found = evaluate_slice(surface, plane, x, y, file)
    assert torch.equal(found.losses, evaluate_slice(ring(), plane, x, y).losses)
    assert surface.work.loss_evaluations == 3 * 11 + 1  # three rows were there; one more value is the fingerprint
    again = ring()
    assert torch.equal(evaluate_slice(again, plane, x, y, file).losses, found.losses)
    assert again.work.loss_evaluations == 1


def test_a_file_of_another_slice_is_kept(tmp_path: FilePath) -> None:
    x, y, file = torch.linspace(0, 2, 3), torch.linspace(-1, 1, 2), tmp_path / "slice.safetensors"
    plane = Plane.through(A, B, torch.tensor([0.0, 1.0]))
    evaluate_slice(ring(), plane, x, y, file)
    before = file.read_bytes()
    doubled = LossSurface(
        nn.Linear(2, 1, bias=False), [None], loss_fn=lambda module, batch: 2 * (module.weight.square().sum() - 1) ** 2
    )
    for surface, grid in ((ring(), y + 0.1), (doubled, y)):
        with pytest.raises(SnapshotError, match="another slice"):
            evaluate_slice(surface, plane, x, grid, file)
    assert file.read_bytes() == before
    file.write_bytes(before[:40])
    with pytest.raises(SnapshotError, match="truncated"):
        evaluate_slice(ring(), plane, x, y, file)


def surface_slice(losses: Tensor) -> Slice:
    plane = Plane.through(A, B, torch.tensor([0.0, 1.0]))
    return Slice(plane, torch.linspace(0, 2, losses.shape[1]), torch.linspace(-1, 1, losses.shape[0]), losses)


def test_figure_of_a_found_path(tmp_path: FilePath) -> None:
    connection = DynamicStringSampling().connect(ring(), A, B, level=0.1)
    x, y = torch.linspace(-0.4, 2.4, 21), torch.linspace(-1.4, 1.4, 21)
    plane = Plane.through(A, B, connection.path.beads[connection.path.num_beads // 2])
    figure = slice_figure(evaluate_slice(ring(), plane, x, y), connection.path, connection.level, "ring")
    save_figure(figure, tmp_path / "slice.png")
    assert (tmp_path / "slice.png").stat().st_size > 10_000
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("u = 0.1" in label for label in labels)
    assert not any("projected" in label for label in labels)  # two dimensions: the path lies in the plane


def test_figure_says_how_far_a_path_leaves_the_plane() -> None:
    plane = Plane(torch.zeros(3), torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]))
    losses = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = Path(torch.tensor([[0.0, 0, 0], [1.0, 0, 0.5], [2.0, 0, 0]]))
    figure = slice_figure(Slice(plane, torch.linspace(0, 2, 5), torch.linspace(0, 1, 4), losses), path)
    assert "0.25 of the distance" in figure.legends[0].get_texts()[0].get_text()


@pytest.mark.parametrize("values", [[1.0, math.nan, math.inf, 2.0], [3.0, 3.0, 3.0, 3.0], [0.0, -1.0, 2.0, 1e9]])
def test_figure_of_awkward_values(values: list[float], tmp_path: FilePath) -> None:
    losses = torch.tensor(values, dtype=torch.float64).expand(4, 4)
    save_figure(slice_figure(surface_slice(losses), level=1.5), tmp_path / "slice.png")


def test_a_slice_without_a_finite_value_has_no_figure() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        slice_figure(surface_slice(torch.full((3, 3), math.nan, dtype=torch.float64)))
