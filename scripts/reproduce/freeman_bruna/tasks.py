"""All tasks by name."""

from __future__ import annotations

from scripts.reproduce.freeman_bruna.images import CIFAR, MNIST
from scripts.reproduce.freeman_bruna.language import PTB
from scripts.reproduce.freeman_bruna.polynomials import CUBICS, QUADRATICS

TASKS = {task.name: task for task in (QUADRATICS, CUBICS, MNIST, CIFAR, PTB)}
