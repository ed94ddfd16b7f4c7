"""What a task is: a problem to open, and how the published script treats it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer

from lightning_landscape import LossSurface
from lightning_landscape.finders import BezierCurve


@dataclass(frozen=True)
class Settings:
    """What a user chooses; part of the identity of a pair, because each changes its numbers.

    Attributes:
        source: folder of the raw data, only read.
        cache: folder to unpack it into.
        probe: examples that define E (for language: windows of tokens); ``None``: as many as published.
        network: of the images: ``"published"``, or the small ``"lenet"`` on MNIST.
        max_steps: training steps after which a network or a bead is given up; ``None``: the task's own.
        strict_work: training steps that a strict search may cost; ``None``: no limit.
        seed: of all pairs.
    """

    source: str = "../shared/data"
    cache: str = "data"
    probe: int | None = None
    network: Literal["published", "lenet"] = "published"
    max_steps: int | None = None
    strict_work: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """How a published script trains networks and beads, and what it accepts.

    Attributes:
        slack: a segment is accepted below ``slack`` times the threshold, where the text says below it.
        alpha: beads are trained until the test metric is below ``alpha`` times the threshold.
        split: where a bead starts on a segment that is too high; the first always starts in the middle.
        grid: a segment is looked at where t = i / ``grid``, i < ``grid``.
        optimizer: made anew for each network and bead.
        network_check: steps from one look at the metric to the next while a network trains.
        bead_check: steps from one look at the metric to the next while a bead trains.
        max_steps: after which we give up; the scripts never do, and their run then leaves no number.
        clip: largest norm of a gradient.
    """

    slack: float
    alpha: float
    split: Literal["argmax", "midpoint"]
    grid: int
    optimizer: Callable[[list[Tensor]], Optimizer]
    network_check: int
    bead_check: int
    max_steps: int
    clip: float | None = None


@dataclass(frozen=True)
class Problem:
    """A task with its data at hand.

    Attributes:
        initial: draws the parameters (P,) of a fresh network from the global generator.
        metric: the surface whose E is the published metric; its gradients are of the training loss.
        loss: the surface whose E is the training loss, on training examples.
        together: networks that may train side by side, on the same batches: 1 where batches are drawn.
    """

    initial: Callable[[], Tensor]
    metric: LossSurface
    loss: LossSurface
    together: int = 1


@dataclass(frozen=True)
class Task:
    """One figure of the paper.

    Attributes:
        name: as on the command line.
        axis: what the thresholds are.
        recipe: of the published script, for the network of the settings.
        open: loads data and network.
        level: from a threshold to a value of the metric's E.
        strict_level: from a threshold to the level of the strict search; ``None`` stands for the larger
            training loss of the two networks.
        curve: what the strict search tries first, before a string: its bends need not lie below the level.
    """

    name: str
    axis: str
    recipe: Callable[[Settings], Recipe]
    open: Callable[[Settings], Problem]
    level: Callable[[float], float]
    strict_level: Callable[[float], float | None]
    curve: BezierCurve = field(default_factory=lambda: BezierCurve(bends=3, max_steps=10_000))
