"""The loss surface: values, gradients, batch norm, and what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from lightning_landscape import LossSurface
from lightning_landscape.surface.work import Work

Pair = tuple[Tensor, Tensor]


def mse(module: nn.Module, batch: Any) -> Tensor:
    return functional.mse_loss(module(batch[0]), batch[1])


def pairs(inputs: tuple[int, ...] = (4,), outputs: int = 2, count: int = 2, size: int = 6) -> list[Pair]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, *inputs, generator=generator), torch.randn(size, outputs, generator=generator))
        for _ in range(count)
    ]


def mlp(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), *middle, nn.Tanh(), nn.Linear(3, 2))


def around(surface: LossSurface, count: int = 4, scale: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    point = surface.point()
    return point + scale * torch.randn(count, len(point), generator=generator).to(point)


class LastState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, num_layers=2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.lstm(x)[0]
        return self.head(hidden[:, -1])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GCNConv(4, 3), GCNConv(3, 2)

    def forward(self, data: Data) -> Tensor:
        hidden = torch.relu(self.first(data.x, data.edge_index))
        return self.second(hidden, data.edge_index)


def graph() -> Data:
    edges = torch.tensor([[0, 1, 2, 3, 4, 1, 2, 3], [1, 2, 3, 4, 0, 0, 1, 2]])
    return Data(x=torch.randn(5, 4), edge_index=edges, y=torch.tensor([0, 1, 0, 1, 1]))


def cross_entropy_of_nodes(module: nn.Module, data: Data) -> Tensor:
    return functional.cross_entropy(module(data), data.y)


class Half(nn.Module):
    """A float64 head on a bfloat16 body."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 3).bfloat16(), nn.Linear(3, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x.bfloat16())).double()).float()


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], list[Any]], Callable[..., Tensor]]] = {
    "mlp": (mlp, pairs, mse),
    "batch norm": (lambda: mlp(nn.BatchNorm1d(3)), pairs, mse),
    "sync batch norm": (lambda: mlp(nn.SyncBatchNorm(3)), pairs, mse),
    "group norm": (lambda: mlp(nn.GroupNorm(1, 3)), pairs, mse),
    "dropout": (lambda: mlp(nn.Dropout(0.5)), pairs, mse),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
        lambda: pairs((1, 4, 4)),
        mse,
    ),
    "tied": (Tied, lambda: pairs(outputs=4), mse),
    "lstm": (LastState, lambda: pairs((5, 4)), mse),
    "transformer": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(12, 2)),
        lambda: pairs((3, 4)),
        mse,
    ),
    "graph": (Graph, lambda: [graph(), graph()], cross_entropy_of_nodes),
    "compiled": (lambda: torch.compile(mlp(), backend="eager"), pairs, mse),
    "compiled inside": (lambda: nn.Sequential(torch.compile(mlp(), backend="eager"), nn.Linear(2, 2)), pairs, mse),
}


@pytest.mark.parametrize("case", CASES)
def test_stack_loop_and_finite_differences_agree(case: str) -> None:
    make, batches, loss_fn = CASES[case]
    module, data = make().double(), [_double(batch) for batch in batches()]
    loop = LossSurface(module, data, loss_fn, vectorize=False)
    chosen = LossSurface(module, data, loss_fn)
    thetas = around(loop)
    assert thetas.dtype == torch.float64

    losses = loop.losses(thetas)
    values, gradients = loop.gradients(thetas, data[0])
    torch.testing.assert_close(chosen.losses(thetas), losses)
    torch.testing.assert_close(chosen.gradients(thetas, data[0]), (values, gradients))
    assert set(chosen.choice().values()) <= {True, False}
    assert [loop.loss(theta) for theta in thetas] == pytest.approx(losses.tolist(), rel=1e-12)

    direction = torch.randn(loop.dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    step = 1e-6 * direction
    above, _ = loop.gradients(thetas + step, data[0])
    below, _ = loop.gradients(thetas - step, data[0])
    torch.testing.assert_close(gradients @ direction, (above - below) / 2e-6, rtol=1e-5, atol=1e-7)


def _double(batch: Any) -> Any:
    if isinstance(batch, Data):
        return Data(x=batch.x.double(), edge_index=batch.edge_index, y=batch.y)
    return tuple(part.double() for part in batch)


@pytest.mark.parametrize("case", ["mlp", "batch norm", "sync batch norm", "group norm", "dropout", "tied", "compiled"])
def test_vmap_agrees_with_the_loop(case: str) -> None:
    make, batches, loss_fn = CASES[case]
    module, data = make(), batches()
    loop, stacked = (LossSurface(module, data, loss_fn, vectorize=how) for how in (False, True))
    thetas = around(loop, count=70)  # more than one stack at once
    torch.testing.assert_close(stacked.losses(thetas), loop.losses(thetas), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        stacked.gradients(thetas, data[0]), loop.gradients(thetas, data[0]), rtol=1e-4, atol=1e-5
    )


def test_a_module_that_does_not_run_under_vmap_falls_back_by_itself() -> None:
    surface = LossSurface(LastState(), pairs((5, 4)), mse)
    thetas = around(surface)
    surface.losses(thetas)
    surface.gradients(thetas, pairs((5, 4))[0])
    assert surface.choice() == {"losses": False, "gradients": False}


def test_the_loss_is_the_mean_over_batches_of_the_module_in_eval_mode() -> None:
    module, data = mlp(nn.Dropout(0.9)), pairs(count=3)
    surface = LossSurface(module, data, mse)
    module.eval()
    expected = sum(mse(module, batch).item() for batch in data) / 3
    assert surface.loss(surface.point()) == pytest.approx(expected, rel=1e-6)
    assert surface.losses(surface.point()[None]).dtype == torch.float64


def test_theta_is_the_trainable_parameters_in_order() -> None:
    module = mlp()
    module[0].bias.requires_grad_(False)
    surface = LossSurface(module, pairs(), mse)
    assert surface.names == ["0.weight", "2.weight", "2.bias"]
    assert surface.dimension == 12 + 6 + 2
    expected = torch.cat([module[0].weight.flatten(), module[2].weight.flatten(), module[2].bias])
    assert torch.equal(surface.point(), expected.detach())


def test_tied_weights_are_one_coordinate() -> None:
    surface = LossSurface(Tied(), pairs(outputs=4), mse)
    assert surface.names == ["encoder.weight", "encoder.bias", "decoder.bias"]
    assert surface.dimension == 16 + 4 + 4
    # Moving the shared weight moves both layers.
    assert not surface.gradients(surface.point()[None], pairs(outputs=4)[0])[1][0, :16].eq(0).any()


@pytest.mark.parametrize("case", CASES)
def test_state_and_point_are_inverse(case: str) -> None:
    make, batches, loss_fn = CASES[case]
    module, data = make(), batches()
    surface = LossSurface(module, data, loss_fn)
    theta = around(surface, 1)[0]
    state = surface.state(theta)
    assert list(state) == surface.names
    assert torch.equal(surface.point(state), theta)
    plain = module._orig_mod if case == "compiled" else module
    if case != "compiled inside":
        plain.load_state_dict(state, strict=False)
        again = LossSurface(module, data, loss_fn)
        assert torch.equal(again.point(), theta)
        assert again.loss(again.point()) == surface.loss(theta)


def test_the_point_of_a_state_is_checked() -> None:
    surface = LossSurface(mlp(), pairs(), mse)
    state = surface.state(surface.point())
    with pytest.raises(ValueError, match=r"1 parameters of the module are missing.*2\.bias"):
        surface.point({name: value for name, value in state.items() if name != "2.bias"})
    with pytest.raises(ValueError, match=r"'2.bias' has shape \(3,\) where the module has \(2,\)"):
        surface.point({**state, "2.bias": torch.zeros(3)})


def test_points_are_copies() -> None:
    surface = LossSurface(mlp(), pairs(), mse)
    before = surface.loss(surface.point())
    surface.point().zero_()
    for value in surface.state(surface.point()).values():
        value.zero_()
    assert surface.loss(surface.point()) == before


@pytest.mark.parametrize("shape", [(5,), (2, 5), (1, 1, 20)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    surface = LossSurface(mlp(), pairs(), mse)
    for call in (surface.losses, lambda thetas: surface.gradients(thetas, pairs()[0]), surface.loss):
        with pytest.raises(ValueError, match="expected parameters of shape"):
            call(torch.zeros(shape))


def test_no_points_have_no_losses() -> None:
    surface = LossSurface(mlp(), pairs(), mse)
    none = torch.zeros(0, surface.dimension)
    assert surface.losses(none).shape == (0,)
    assert [tuple(part.shape) for part in surface.gradients(none, pairs()[0])] == [(0,), (0, surface.dimension)]
    assert surface.work == Work()


@pytest.mark.parametrize(
    ("body", "head", "expected"),
    [
        (torch.float32, torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float64, torch.float64, torch.float64),
        (torch.bfloat16, torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("vectorize", [False, True])
def test_parameters_of_any_precision(
    body: torch.dtype, head: torch.dtype, expected: torch.dtype, vectorize: bool
) -> None:
    module = Half()
    module.body.to(body)
    module.head.to(head)

    def loss_fn(module: Any, batch: Pair) -> Tensor:
        hidden = torch.tanh(module.body(batch[0].to(body)))
        return functional.mse_loss(module.head(hidden.to(head)).double(), batch[1].double())

    surface = LossSurface(module, pairs(), loss_fn, vectorize=vectorize)
    point = surface.point()
    assert point.dtype == expected
    _, gradients = surface.gradients(point.repeat(3, 1), pairs()[0])
    assert gradients.dtype == expected
    assert gradients.isfinite().all()
    assert (gradients.abs().sum(dim=1) > 0).all()
    module.zero_grad()
    loss_fn(module, pairs()[0]).backward()
    flat = torch.cat([p.grad.to(expected).flatten() for p in module.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], flat, rtol=1e-2, atol=1e-3)
    assert {name: value.dtype for name, value in surface.state(point).items()} == {
        name: parameter.dtype for name, parameter in module.named_parameters()
    }


def statistics(module: nn.Sequential, data: list[Pair]) -> Pair:
    inputs = [module[0](batch[0]).detach() for batch in data]
    mean = torch.stack([x.mean(0) for x in inputs]).mean(0)
    return mean, torch.stack([x.var(0) for x in inputs]).mean(0)  # unbiased, as torch keeps it


@pytest.mark.parametrize("vectorize", [False, True])
def test_recalibrated_batch_norm_uses_the_cumulative_average_over_the_probe_set(vectorize: bool) -> None:
    module, data = mlp(nn.BatchNorm1d(3)), pairs(count=3)
    surface = LossSurface(module, data, mse, vectorize=vectorize)
    values = surface.losses(around(surface)).tolist()
    for theta, value in zip(around(surface), values, strict=True):
        module.load_state_dict(surface.state(theta), strict=False)
        module[1].running_mean, module[1].running_var = statistics(module, data)
        module.eval()
        assert value == pytest.approx(sum(mse(module, batch).item() for batch in data) / 3, rel=1e-5)


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("mode", ["frozen", "batch"])
def test_batch_norm_by_the_modules_statistics_and_by_those_of_each_batch(mode: Any, vectorize: bool) -> None:
    module, data = mlp(nn.BatchNorm1d(3)), pairs()
    module[1].running_mean.uniform_(-1, 1)
    module[1].running_var.uniform_(0.5, 2)
    surface = LossSurface(module, data, mse, batch_norm=mode, vectorize=vectorize)
    theta = around(surface)
    values = surface.losses(theta)
    frozen = module.train(mode == "batch")
    module.load_state_dict(surface.state(theta[1]), strict=False)
    expected = sum(mse(frozen, batch).item() for batch in data) / 2
    assert values[1].item() == pytest.approx(expected, rel=1e-5)
    assert surface.evaluation_passes == 2


@pytest.mark.parametrize("mode", ["recalibrate", "batch", "frozen"])
def test_gradients_normalise_by_the_batch_unless_frozen(mode: Any) -> None:
    module, data = mlp(nn.BatchNorm1d(3)), pairs()
    surface = LossSurface(module, data, mse, batch_norm=mode)
    _, gradients = surface.gradients(surface.point()[None], data[0])
    module.train(mode != "frozen")
    mse(module, data[0]).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
    torch.testing.assert_close(gradients[0], expected)


@pytest.mark.parametrize("wrap", ["plain", "compiled", "compiled inside"])
def test_a_batch_norm_layer_that_its_owner_froze_keeps_its_statistics(wrap: str) -> None:
    inner = mlp(nn.BatchNorm1d(3))
    inner[1].running_mean.fill_(0.7)
    inner[1].eval()
    module: nn.Module = inner if wrap == "plain" else torch.compile(inner, backend="eager")
    module = nn.Sequential(module) if wrap == "compiled inside" else module
    surface = LossSurface(module, pairs(), mse)
    assert surface.evaluation_passes == 2
    inner.eval()
    expected = sum(mse(inner, batch).item() for batch in pairs()) / 2
    assert surface.loss(surface.point()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("vectorize", [False, True])
def test_statistics_of_a_point_that_diverged_do_not_reach_the_next(vectorize: bool) -> None:
    module = mlp(nn.BatchNorm1d(3))
    module[1].running_mean.fill_(torch.nan)  # a run that diverged, whose weights were put back
    surface = LossSurface(module, pairs(), mse, vectorize=vectorize)
    theta = surface.point()
    before = surface.losses(theta.repeat(2, 1))
    assert before.isfinite().all()
    assert surface.losses((theta * torch.nan).repeat(2, 1)).isnan().all()
    torch.testing.assert_close(surface.losses(theta.repeat(2, 1)), before)
    assert surface.losses(torch.stack([theta, theta * torch.nan, theta])).isnan().tolist() == [False, True, False]
    surface.loss(theta * torch.nan)
    torch.testing.assert_close(surface.losses(theta.repeat(2, 1)), before)


def test_one_example_under_batch_norm_says_what_to_do() -> None:
    one = pairs(size=1, count=1)
    with pytest.raises(ValueError, match="batches of at least two examples"):
        LossSurface(mlp(nn.BatchNorm1d(3)), one, mse)
    frozen = LossSurface(mlp(nn.BatchNorm1d(3)), one, mse, batch_norm="frozen")
    assert frozen.loss(frozen.point()) > 0
    without = LossSurface(mlp(), one, mse)
    assert without.loss(without.point()) > 0


def test_dictionaries_as_batches_and_as_losses() -> None:
    data = [{"x": x, "meta": {"y": y, "name": "text"}} for x, y in pairs()]
    surface = LossSurface(
        mlp(), data, lambda module, batch: {"loss": mse(module, (batch["x"], batch["meta"]["y"])), "more": 1}
    )
    tuples = LossSurface(mlp(), pairs(), mse)
    theta = around(tuples, 3)
    torch.testing.assert_close(surface.losses(theta), tuples.losses(theta))
    torch.testing.assert_close(surface.gradients(theta, data[0]), tuples.gradients(theta, pairs()[0]))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_data_loader_defines_the_same_surface_as_its_batches(shuffle: bool) -> None:
    x, y = pairs(size=8, count=1)[0]
    loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=shuffle)
    surface = LossSurface(mlp(), loader, mse)
    whole = LossSurface(mlp(), [(x, y)], mse)
    theta = around(whole, 1)[0]
    assert surface.loss(theta) == pytest.approx(whole.loss(theta), rel=1e-6)


class Endless(IterableDataset[Pair]):
    def __iter__(self) -> Iterator[Pair]:
        return iter([(torch.zeros(4), torch.zeros(2)), (torch.ones(4), torch.ones(2))])


def test_training_batches_may_have_no_length() -> None:
    surface = LossSurface(mlp(), pairs(), mse, training_batches=DataLoader(Endless(), batch_size=2))
    seen = list(itertools.islice(surface.training_stream(), 3))
    assert [float(batch[1].sum()) for batch in seen] == [2.0, 2.0, 2.0]


def error_rate(module: nn.Module, batch: Any) -> Tensor:
    return (module(batch[0]).argmax(-1) != batch[1].argmax(-1)).float().mean()


@pytest.mark.parametrize("vectorize", [False, True, None])
def test_a_metric_without_gradients_is_measured_while_beads_descend_the_training_loss(vectorize: bool | None) -> None:
    module, batches = mlp(), pairs(size=32)
    by_metric = LossSurface(module, batches, error_rate, vectorize=vectorize, training_loss_fn=mse)
    by_loss = LossSurface(module, batches, mse, vectorize=False)
    thetas = around(by_metric)
    measured = by_metric.losses(thetas)
    assert measured.tolist() == [by_metric.loss(theta) for theta in thetas]
    assert set((measured * 64).tolist()) <= set(map(float, range(65)))  # counts of 64 examples
    for found, expected in zip(
        by_metric.gradients(thetas, batches[0]), by_loss.gradients(thetas, batches[0]), strict=True
    ):
        torch.testing.assert_close(found, expected)
    assert by_metric.work == Work(gradient_steps=4, forward_passes=16, loss_evaluations=8)


def test_the_training_loss_goes_along_to_another_module() -> None:
    batch = pairs()[0]
    surface = LossSurface(mlp(), [batch], error_rate, training_loss_fn=mse).with_module(mlp())
    expected = LossSurface(mlp(), [batch], mse).gradients(surface.point()[None], batch)
    assert torch.equal(surface.gradients(surface.point()[None], batch)[1], expected[1])


def test_the_training_loss_may_draw_random_numbers() -> None:
    def noisy(module: nn.Module, batch: Any) -> Tensor:
        return mse(module, batch) * torch.rand(())

    surface = LossSurface(mlp(), pairs(), mse, training_loss_fn=noisy)
    first, second = (surface.gradients(surface.point()[None], pairs()[0])[0] for _ in range(2))
    assert first != second


@pytest.mark.parametrize("count", [1, 3])
def test_gradients_of_a_metric_without_any_are_refused(count: int) -> None:
    surface = LossSurface(mlp(), pairs(), error_rate)
    with pytest.raises(ValueError, match=r"has no gradient .* pass training_loss_fn"):
        surface.gradients(around(surface, count), pairs()[0])


def test_the_training_stream_repeats_the_probe_set_without_training_batches() -> None:
    surface = LossSurface(mlp(), pairs(count=2), mse)
    stream = surface.training_stream()
    first, second, third = (next(stream) for _ in range(3))
    assert torch.equal(first[0], third[0])
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": []}, "batches is empty"),
        ({"batches": iter(pairs())}, r"batches is an iterator .* pass list\(batches\)"),
        ({"batches": pairs(), "training_batches": iter(pairs())}, r"training_batches is an iterator"),
        ({"batches": pairs(), "batch_norm": "running"}, "batch_norm must be 'recalibrate', 'frozen' or 'batch'"),
        ({"batches": pairs(), "loss_fn": None}, "Sequential is no LightningModule .* pass loss_fn"),
        ({"batches": pairs(), "loss_fn": lambda module, batch: module(batch[0])}, r"scalar tensor .* shape \(6, 2\)"),
        ({"batches": pairs(), "loss_fn": lambda module, batch: 1.0}, "scalar tensor .* got float"),
        ({"batches": pairs(), "loss_fn": lambda module, batch: None}, "scalar tensor .* got NoneType"),
    ],
)
def test_arguments_that_make_no_surface_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossSurface(mlp(), **{"loss_fn": mse, **arguments})


def test_empty_training_batches_are_refused_when_they_are_read() -> None:
    surface = LossSurface(mlp(), pairs(), mse, training_batches=[])
    with pytest.raises(ValueError, match="training_batches is empty"):
        next(surface.training_stream())


def test_modules_without_real_trainable_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="Tanh has no trainable parameter"):
        LossSurface(nn.Tanh(), pairs(), mse)
    with pytest.raises(ValueError, match="no trainable parameter"):
        LossSurface(mlp().requires_grad_(False), pairs(), mse)
    with pytest.raises(ValueError, match="'weight' is not initialised: run one batch through LazyLinear"):
        LossSurface(nn.LazyLinear(2), pairs(), mse)
    with pytest.raises(ValueError, match="'weight' is complex"):
        LossSurface(nn.Linear(2, 2, dtype=torch.complex64), pairs(), mse)


def test_randomness_is_refused_by_name() -> None:
    def noisy(module: nn.Module, batch: Pair) -> Tensor:
        return functional.mse_loss(functional.dropout(module(batch[0])), batch[1])

    with pytest.raises(ValueError, match=r"at the same theta; it draws random numbers, by functional dropout"):
        LossSurface(mlp(), pairs(), noisy)


def test_state_kept_between_calls_is_refused_by_name() -> None:
    class Memory(nn.Linear):
        seen = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1.0
            return super().forward(x) * self.seen

    with pytest.raises(ValueError, match=r"at the same theta; the module keeps something from one call to the next"):
        LossSurface(Memory(4, 2), pairs(), mse)


def test_state_in_a_buffer_is_put_back_instead() -> None:
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 2)
            self.register_buffer("count", torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return super().forward(x) * self.count

    surface = LossSurface(Counting(), pairs(), mse)
    theta = surface.point()
    assert surface.losses(theta.repeat(3, 1)).unique().numel() == 1
    assert surface.loss(theta) == surface.losses(theta[None]).item()


def test_a_loss_that_is_not_finite_is_a_value_not_an_error() -> None:
    surface = LossSurface(nn.Linear(1, 1, bias=False), [None], lambda module, batch: module.weight.log().sum())
    values = surface.losses(torch.tensor([[1.0], [0.0], [-1.0]]))
    assert values[0] == 0
    assert values[1] == -torch.inf
    assert values[2].isnan()


def penalised(module: nn.Module, batch: Pair) -> Tensor:
    x = batch[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    return mse(module, batch) + slope.square().mean()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_gradient_penalty_is_evaluated_in_any_context(context: Callable[[], Any]) -> None:
    module, data = mlp(), pairs()
    expected = sum(penalised(module, batch).item() for batch in data) / 2
    with context():
        surface = LossSurface(module, data, penalised)
        value = surface.loss(surface.point())
        _, gradients = surface.gradients(surface.point()[None], data[0])
    assert value == pytest.approx(expected, rel=1e-6)
    penalised(module, data[0]).backward()
    flat = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
    torch.testing.assert_close(gradients[0], flat)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("vectorize", [False, True])
def test_batches_and_points_made_in_a_context_without_gradients(context: Any, vectorize: bool) -> None:
    module = mlp(nn.BatchNorm1d(3))
    outside = LossSurface(module, pairs(), mse, vectorize=vectorize)
    expected = outside.gradients(around(outside), pairs()[0])
    with context():
        data = [(x.clone(), y.clone()) for x, y in pairs()]
        surface = LossSurface(module, data, mse, vectorize=vectorize)
        thetas = around(surface)
        torch.testing.assert_close(surface.gradients(thetas, data[0]), expected)
        torch.testing.assert_close(surface.losses(thetas), outside.losses(thetas))
        torch.testing.assert_close(surface.gradients(thetas, next(surface.training_stream())), expected)
    assert torch.is_grad_enabled()


class Counter:
    """A loss that counts its calls, with gradients and without."""

    def __init__(self) -> None:
        self.with_gradient = self.without = 0

    def __call__(self, module: nn.Module, batch: Any) -> Tensor:
        if torch.is_grad_enabled():
            self.with_gradient += 1
        else:
            self.without += 1
        return mse(module, batch)


@pytest.mark.parametrize(("middle", "passes"), [((), 3), ((nn.BatchNorm1d(3),), 6)])
def test_work_is_what_was_computed(middle: tuple[nn.Module, ...], passes: int) -> None:
    counter = Counter()
    surface = LossSurface(mlp(*middle), pairs(count=3), counter, vectorize=False)
    assert surface.work == Work()
    assert surface.evaluation_passes == passes
    counter.with_gradient = counter.without = 0
    surface.losses(around(surface, 5))
    surface.loss(surface.point())
    surface.gradients(around(surface, 4), pairs()[0])
    assert surface.work == Work(gradient_steps=4, forward_passes=6 * passes, loss_evaluations=6)
    assert (counter.with_gradient, counter.without) == (4, 6 * passes)
    assert surface.work.total == 4 + 2 * passes
    assert surface.work.since(Work(1, 2, 3)) == Work(3, 6 * passes - 2, 3)


class Annealed(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 2)
        self.weight = 1.0
        self.register_buffer("scale", torch.ones(()))

    def training_step(self, batch: Pair) -> Tensor:
        return self.weight * self.scale * mse(self.net, batch)


def test_with_module_sees_what_changed_and_counts_anew() -> None:
    module = Annealed()
    surface = LossSurface(module, pairs())
    before = surface.loss(surface.point())
    module.weight = 2.0
    module.scale.fill_(3.0)
    with torch.no_grad():
        module.net.bias.add_(1.0)
    assert surface.loss(surface.point()) == before
    now = surface.with_module(module)
    assert now.work == Work()
    assert now.loss(surface.point()) == pytest.approx(6 * before, rel=1e-6)
    assert torch.equal(now.point()[-2:], module.net.bias)
    assert not torch.equal(now.point(), surface.point())
    assert surface.work.loss_evaluations == 2


def test_a_surface_says_what_it_is() -> None:
    text = repr(LossSurface(mlp(), pairs(), mse))
    assert text == "LossSurface(Sequential, dimension=23, batch_norm='recalibrate', device='cpu')"


def test_parameters_that_a_step_reaches_past_functional_call_are_computed_by_the_loop() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.weights = [self.weight]

    surface = LossSurface(Listed(), [None], lambda module, batch: sum(w.square().sum() for w in module.weights))
    # Copies of the installed point would agree by accident; so would any others, were nothing else installed.
    surface.losses(surface.point().expand(8, -1))
    surface.gradients(surface.point().expand(8, -1), None)
    assert surface.choice() == {"losses": False, "gradients": False}
    assert surface.losses(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])).tolist() == [0.0, 1.0]


def test_small_losses_that_differ_are_not_taken_for_rounding() -> None:
    def noisy(module: nn.Module, batch: None) -> Tensor:
        return 1e-6 * (module.weight.square().sum() + torch.rand(()))

    with pytest.raises(ValueError, match="draws random numbers"):
        LossSurface(nn.Linear(2, 2), [None], noisy)
