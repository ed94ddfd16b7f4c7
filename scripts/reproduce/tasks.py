"""All tasks by name."""

from __future__ import annotations

from images import CIFAR, MNIST
from language import PTB
from polynomials import CUBICS, QUADRATICS

TASKS = {task.name: task for task in (QUADRATICS, CUBICS, MNIST, CIFAR, PTB)}
