"""The model, the data and the loss surface of a recipe, as the run that the recipe describes would have them."""

from __future__ import annotations

import argparse
import copy
import logging
import math
import os
import reprlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser, Namespace
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor

from lightning_landscape.attach.frozen import require_equal_frozen
from lightning_landscape.attach.probe import TrainingData, run_surface
from lightning_landscape.either_lightning import Callback, MisconfigurationException, alike, both
from lightning_landscape.finders import PathFinder, default_finder
from lightning_landscape.own_objects import objects_of, remembered
from lightning_landscape.storage.atomic import CorruptFileError
from lightning_landscape.storage.plain_files import shown
from lightning_landscape.storage.yaml_files import read_yaml, yaml_line
from lightning_landscape.surface import LossSurface
from lightning_landscape.surface.matching import matched_state
from lightning_landscape.surface.random_states import isolated_rng

T = TypeVar("T")
C = TypeVar("C")
State = Mapping[str, Tensor]


class RecipeError(ValueError):
    """A recipe that cannot be used, with what to change in it."""


@dataclass(frozen=True)
class Recipe:
    """What of a ``landscape fit`` recipe defines the loss surface of its run.

    Attributes:
        model: the module, freshly built.
        data: its data, or a loader of its training data; ``None`` for a model that brings its own.
        seed: of the probe set.
        num_batches: training batches that define E.
        batch_norm: see :class:`~lightning_landscape.surface.LossSurface`.
        device: where to compute.
        vectorize: see :class:`~lightning_landscape.surface.LossSurface`.
    """

    model: pl.LightningModule
    data: Any
    seed: int
    num_batches: int
    batch_norm: Any
    device: torch.device
    vectorize: bool | None

    def examine(self, states: Sequence[State], work: Callable[[LossSurface, list[Tensor]], T]) -> T:
        """Calls ``work`` on the loss surface of the run and the points of ``states`` on it.

        The probe set is that of :class:`~lightning_landscape.callbacks.LevelSetConnectivity` with the same seed and
        number of batches: a trainer is started, with the recipe's data and all their hooks, and stopped before its
        first step. Buffers and frozen parameters are those of the first state, and what is frozen must agree.

        Args:
            states: named tensors of each point, the model's.
            work: what to do; its result is returned.

        Raises:
            ValueError: if a state does not fit the model, or the data allow no probe set.
        """
        modules = both(pl.LightningDataModule)
        if isinstance(self.data, modules) and not isinstance(self.data, alike(pl.LightningDataModule, self.model)):
            raise RecipeError(
                f"one of {type(self.model).__name__} and {type(self.data).__name__} is of pytorch_lightning, the "
                "other of lightning, and no trainer takes both: take both from one package"
            )
        # The model's own callbacks would write checkpoints, over those of its run; no step is taken, so that an
        # optimizer, which a recipe may hold in a section of its own, is not missed.
        vars(self.model)["configure_callbacks"] = list
        if not is_overridden("configure_optimizers", self.model, alike(pl.LightningModule, self.model)):
            vars(self.model)["configure_optimizers"] = _no_optimizer
        examiner = _Examiner(self, states, work)
        trainer = alike(pl.Trainer, self.model)(
            # One device a process: torchrun's other processes work on other pairs, not on shares of a batch.
            strategy=alike(SingleDeviceStrategy, self.model)(self.device),
            accelerator="cuda" if self.device.type == "cuda" else self.device.type,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[examiner],
        )
        trainer.fit(self.model, self.data)
        return examiner.result  # type: ignore[no-any-return]


class _Examiner(Callback):
    """Does the work at the start of a fit, where data and module are as in training, and ends the fit."""

    result: Any

    def __init__(self, recipe: Recipe, states: Sequence[State], work: Callable[[LossSurface, list[Tensor]], Any]):
        self._recipe = recipe
        self._states = list(states)
        self._work = work

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Loads the first state where a fit loads a checkpoint: when ``configure_model`` has built all layers."""
        for number, state in enumerate(self._states):
            try:
                self._states[number] = matched_state(pl_module, state)
            except ValueError as error:
                raise RecipeError(
                    f"checkpoint {number + 1} does not fit the recipe's model: {error}: give the recipe that it was "
                    "trained with"
                ) from error
        try:
            pl_module.load_state_dict(dict(self._states[0]), strict=False)
        except RuntimeError as error:
            raise RecipeError(f"the first checkpoint does not fit the recipe's model: {error}") from error

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        recipe = self._recipe
        for state in self._states[1:]:
            require_equal_frozen(pl_module, state)
        with isolated_rng(recipe.seed):
            try:
                training = TrainingData(trainer)
                surface = run_surface(
                    pl_module,
                    training.take(recipe.num_batches),
                    training,
                    None,
                    batch_norm=recipe.batch_norm,
                    vectorize=recipe.vectorize,
                    seed=recipe.seed,
                )
            except MisconfigurationException as error:
                raise RecipeError(
                    f"{error}. A recipe has no place for that: compare the two in Python, by LossSurface(model, "
                    "batches, loss_fn) and a finder's connect(surface, theta_a, theta_b)"
                ) from error
            surface.choice()
        with isolated_rng(recipe.seed):
            self.result = self._work(surface, [surface.point(state) for state in self._states])
        trainer.should_stop = True


def _no_optimizer() -> None:
    """Stands for ``configure_optimizers``."""


def read_recipe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The sections of a recipe, as plain values.

    Args:
        path: a YAML file such as ``landscape fit --config`` takes.

    Raises:
        RecipeError: if the file cannot be read, has no section ``model``, or ``model``, ``data`` or ``trainer`` is
            none that ``landscape fit`` takes; the message begins with the path and says what to write.
    """
    try:
        recipe = read_yaml(path)
    except CorruptFileError as error:
        raise RecipeError(f"{error}. Give the recipe of the run (resolved_fit.yaml)") from error
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        raise RecipeError(f"{shown(path)} cannot be read: {error}") from error
    if not isinstance(recipe, dict) or recipe.get("model") is None:
        raise RecipeError(f"{shown(path)} has no section 'model': give the recipe of the run (resolved_fit.yaml)")
    try:
        for name in ("model", "data"):
            if not isinstance(recipe.get(name), str | None):
                _entry(recipe[name], name)
        _trainer(recipe)
    except RecipeError as error:
        raise RecipeError(f"{shown(path)}: {error}") from None
    return recipe


def callback_entry(recipe: Mapping[str, Any], kind: type[Callback]) -> dict[str, Any]:
    """A recipe's callback of one class: its ``class_path`` and a copy of its ``init_args``, ``{}`` if it has none.

    Args:
        recipe: the sections that :func:`read_recipe` returns.
        kind: the class.

    Raises:
        RecipeError: if the recipe has no such callback, or its callbacks are no list of entries.
    """
    listed = _trainer(recipe).get("callbacks")
    if not isinstance(listed, list | None):
        raise RecipeError(f"trainer.callbacks must be a list, each line as {_LINE}, got {reprlib.repr(listed)}")
    for given in listed or []:
        entry = _entry(given, "trainer.callbacks")
        if entry["class_path"].rpartition(".")[2] == kind.__name__:
            return entry
    raise RecipeError(f"the recipe has no {kind.__name__} among trainer.callbacks: add one")


_LINE = "{class_path: package.Class, init_args: {...}}"


def _entry(given: Any, place: str) -> dict[str, Any]:
    """A copy of what names a class and its arguments."""
    if isinstance(given, dict) and isinstance(given.get("class_path"), str):
        arguments = given.get("init_args")
        if isinstance(arguments, dict | None):
            return copy.deepcopy({**given, "init_args": arguments or {}})
    raise RecipeError(f"what stands in {place} must be as {_LINE}, got {reprlib.repr(given)}")


def _trainer(recipe: Mapping[str, Any]) -> dict[str, Any]:
    trainer = recipe.get("trainer")
    if not isinstance(trainer, dict | None):
        raise RecipeError(f"trainer must be a section such as {{max_epochs: 1}}, got {reprlib.repr(trainer)}")
    return trainer or {}


def instantiate(kind: type[C], entry: Mapping[str, Any]) -> C:
    """The object that an entry of a recipe describes, checked and built as ``landscape fit`` builds it.

    Args:
        kind: the class, or a base of it.
        entry: its ``class_path`` and ``init_args``, whose values may be such entries too.

    Example:
        >>> entry = {"class_path": "lightning_landscape.finders.LinearPath", "init_args": {"samples": 5}}
        >>> instantiate(PathFinder, entry).samples
        5
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--object", type=kind)
    built: C = parser.instantiate_classes(parser.parse_object({"object": dict(entry)})).object
    return built


def add_recipe(parser: ArgumentParser) -> None:
    """Adds the arguments that :func:`build_recipe` reads."""
    parser.add_argument("--config", type=str, default=None, help="recipe of the run, as for landscape fit (YAML)")
    model, data = "model, without --config built with the checkpoint's hyperparameters", "data, in the same way"
    parser.add_subclass_arguments(both(pl.LightningModule), "model", required=False, help=model, fail_untyped=False)
    parser.add_subclass_arguments(both(pl.LightningDataModule), "data", required=False, help=data, fail_untyped=False)
    parser.add_argument("--from", type=str, default=None, help="FILE.py:NAME, a function that returns (model, data)")
    parser.add_argument("--num_batches", type=int, default=8, help="training batches that define the loss surface")
    parser.add_argument("--batch_norm", type=str, default="recalibrate", help="recalibrate, frozen or batch")
    parser.add_argument("--seed", type=int, default=0, help="of the probe set and the search")
    parser.add_argument(
        "--vectorize",
        type=bool | None,
        default=None,
        help="evaluate points in stacks; default: by a rule, the same on every machine",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps")


def add_finder(parser: ArgumentParser) -> None:
    """Adds the arguments of the search, which :func:`build_finder` reads, and its budget."""
    parser.add_subclass_arguments(PathFinder, "finder", help="how a path is searched")
    parser.set_defaults({"finder": {"class_path": f"lightning_landscape.finders.{type(default_finder()).__name__}"}})
    parser.add_argument("--margin", type=float, default=0.05, help="see --level; 0 asks for a strict path")
    parser.add_argument("--budget", type=float | None, default=None, help="training steps that a search may cost")


def build_finder(parser: ArgumentParser, namespace: Namespace) -> PathFinder:
    """The finder that was parsed, once its margin is known to be one."""
    if not 0 <= namespace.margin < math.inf:
        raise RecipeError(f"margin must be a finite number of at least 0, got {namespace.margin}")
    finder: PathFinder = parser.instantiate_classes(namespace).finder
    return finder


def parse(parser: ArgumentParser, args: Sequence[str]) -> Namespace:
    """Parses ``args``, with model and data from the recipe that ``--config`` names; other sections are left alone.

    Without a recipe, ``--model`` and ``--data`` are built with the hyperparameters of the first checkpoint.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("--config", "--from", "--model", "--data"):
        early.add_argument(option)
    try:
        given, files = early.parse_known_args(args)
        config, source = given.config, getattr(given, "from")
    except argparse.ArgumentError as error:
        parser.error(str(error))
    sections: dict[str, Any] = {}
    if config is not None and not {"-h", "--help"} & set(args):
        try:
            recipe = read_recipe(config)
        except RecipeError as error:
            parser.error(f"--config {error}")
        sections = {key: recipe[key] for key in ("model", "data") if recipe.get(key)}
    elif source is None and not {"-h", "--help"} & set(args):
        chosen = {key: value for key in ("model", "data") if (value := getattr(given, key)) and "{" not in value}
        sections = remembered(chosen, files)
    # First, so that what the user adds on the command line overrides them.
    first = [f"--{key}={part if isinstance(part, str) else yaml_line(part)}" for key, part in sections.items()]
    namespace = parser.parse_args([*first, *args])
    if source is None and namespace.get("model") is None:
        parser.error("give --config RECIPE, --model my.Module with --data my.Data, or --from FILE.py:NAME")
    return namespace


def build_recipe(parser: ArgumentParser, namespace: Namespace) -> Recipe:
    """The recipe that was parsed."""
    for trainer in both(pl.Trainer):
        logging.getLogger(trainer.__module__.removesuffix(".trainer.trainer")).setLevel(logging.WARNING)
    for category in both(PossibleUserWarning):
        warnings.filterwarnings("ignore", category=category)
    if namespace.num_batches < 1:
        raise RecipeError(f"num_batches must be at least 1, got {namespace.num_batches}")
    device = namespace.device
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if accelerator is None else accelerator.type
    try:
        device = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"device {device!r} cannot be used here ({error}): give auto, cpu, cuda or mps") from error
    with isolated_rng(namespace.seed):
        if namespace["from"] is not None:
            model, data = objects_of(namespace["from"])
        else:
            built = parser.instantiate_classes(namespace)
            model, data = built.model, built.get("data")
    return Recipe(
        model=model,
        data=data,
        seed=namespace.seed,
        num_batches=namespace.num_batches,
        batch_norm=namespace.batch_norm,
        device=device,
        vectorize=namespace.vectorize,
    )
