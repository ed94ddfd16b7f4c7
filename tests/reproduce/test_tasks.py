"""The tasks on real data: what their batches are, and one small run of each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adam

from lightning_landscape.models import ImageClassifier
from scripts.reproduce.freeman_bruna import __main__ as figures
from scripts.reproduce.freeman_bruna.images import _CIFAR_SCALES, _MNIST_SCALES, Scales, ShuffledBatches, _problem
from scripts.reproduce.freeman_bruna.language import RandomWindows, _cross_entropy, _summed_cross_entropy
from scripts.reproduce.freeman_bruna.published_points import published
from scripts.reproduce.freeman_bruna.task import Settings
from scripts.reproduce.freeman_bruna.tasks import TASKS
from scripts.reproduce.shared import kept


def test_every_published_curve_has_its_task() -> None:
    assert [*TASKS] == ["quadratics", "cubics", "mnist", "cifar", "ptb"]
    for name, task in TASKS.items():
        assert task.name == name
        levels = [task.level(threshold) for threshold in published(name)]
        assert levels == sorted(levels)


@pytest.mark.parametrize(
    ("name", "threshold", "level"), [("cubics", 0.15, 0.15), ("mnist", 2.0, 0.02), ("ptb", 700.0, math.log(700))]
)
def test_thresholds_are_levels_of_the_metric(name: str, threshold: float, level: float) -> None:
    assert TASKS[name].level(threshold) == pytest.approx(level)


def test_the_small_network_of_mnist_learns_faster() -> None:
    rates = {}
    for network in ("published", "lenet"):
        optimizer = TASKS["mnist"].recipe(Settings(network=network)).optimizer([torch.zeros(1)])
        assert isinstance(optimizer, Adam)
        rates[network] = optimizer.param_groups[0]["lr"]
    assert rates == {"published": 1e-4, "lenet": 1e-3}


def test_every_pass_shuffles_all_full_batches() -> None:
    images, labels = torch.arange(10.0).reshape(10, 1, 1, 1), torch.arange(10)
    batches = ShuffledBatches(images, labels, size=3)
    passes = [torch.cat([labels for _, labels in batches]).tolist() for _ in range(2)]
    assert all(len(seen) == len(set(seen)) == 9 for seen in passes)
    assert passes[0] != passes[1]
    for images, labels in batches:
        assert torch.equal(images.flatten(), labels.float())


def test_crops_are_windows_of_the_images_some_of_them_mirrored() -> None:
    images, labels = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(6, 1, 1, 1), torch.zeros(6, dtype=torch.int64)
    windows = images[0, 0].unfold(0, 5, 1).unfold(1, 5, 1).reshape(-1, 5, 5)
    known = {tuple(window.flatten().tolist()): False for window in windows}
    known |= {tuple(window.flip(1).flatten().tolist()): True for window in windows}
    cropped = [next(iter(ShuffledBatches(images, labels, size=6, crop=5)))[0] for _ in range(5)]
    mirrored = [known[tuple(image.flatten().tolist())] for batch in cropped for image in batch]
    assert {True, False} == set(mirrored)


@pytest.mark.parametrize(
    ("architecture", "channels", "scales"), [("dss-mnist", 1, _MNIST_SCALES), ("dss-cifar", 3, _CIFAR_SCALES)]
)
def test_networks_start_where_the_scripts_start_them(architecture: Any, channels: int, scales: Scales) -> None:
    network = ImageClassifier(architecture, in_channels=channels, image_size=8)
    batch = (torch.rand(6, channels, 8, 8), torch.arange(6))
    problem = _problem(network, scales, batch, batch, ShuffledBatches(*batch, size=2), probe=4)
    state = problem.metric.state(problem.initial())
    weights, biases = ([value for name, value in state.items() if name.endswith(end)] for end in ("weight", "bias"))
    for weight, bias, (std, value) in zip(weights, biases, scales, strict=True):
        assert float(weight.abs().max()) <= 2 * std
        assert float(weight.std()) == pytest.approx(0.88 * std, rel=0.05)  # of a normal distribution cut at two
        assert torch.equal(bias, torch.full_like(bias, value))
    assert not torch.equal(problem.initial(), problem.initial())
    # E of the metric counts errors on the four examples of the probe, that of the loss is a cross-entropy.
    theta = problem.initial()
    assert problem.metric.loss(theta) * 4 in range(5)
    images, labels = batch[0][:4], batch[1][:4]
    network.load_state_dict(problem.loss.state(theta), strict=False)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(network.eval()(images), labels)
    assert problem.loss.loss(theta) == pytest.approx(float(expected), rel=1e-5)


def test_windows_come_in_a_new_order_at_each_pass() -> None:
    windows = [(torch.tensor([index]), torch.tensor([index])) for index in range(20)]
    batches = RandomWindows(windows)
    first, second = ([int(tokens) for tokens, _ in batches] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


def test_the_language_loss_is_summed_over_the_words_of_a_window() -> None:
    class Words(nn.Module):
        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
            return torch.zeros(*tokens.shape, 8), None

    batch = (torch.zeros(3, 5, dtype=torch.int64), torch.ones(3, 5, dtype=torch.int64))
    assert float(_cross_entropy(Words(), batch)) == pytest.approx(math.log(8))
    assert float(_summed_cross_entropy(Words(), batch)) == pytest.approx(5 * math.log(8))


@pytest.mark.slow
def test_a_small_pair_of_mnist(data_root: Path, tmp_path: Path) -> None:
    arguments = ["mnist", "--thresholds", "40", "--pairs", "1", "--network", "lenet", "--probe", "500"]
    arguments += ["--source", str(data_root), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path)]
    for mode in ("faithful", "strict"):  # on the same networks, trained once
        figures.main([*arguments, "--mode", mode, "--strict-work", "100"])
        (row,) = (kept.read(file)[1] for file in (tmp_path / mode).glob("*.json"))
        assert all(error < 0.4 for error in row["metric"])
        assert row["training_steps"] == [100, 100]
        assert row["normalized_length"] >= 1
        assert row["level"] == pytest.approx(1.02 * 0.4 if mode == "faithful" else max(row["losses"]))
    assert "network=lenet" in (tmp_path / "mnist.md").read_text()
