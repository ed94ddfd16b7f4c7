"""A module's forward as operations that the bound knows, read from its graph by torch.fx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from lightning_landscape.alignment.tracing import place_of, trace
from lightning_landscape.certificates.affine import Affine
from lightning_landscape.certificates.chord import Chord, Deviation
from lightning_landscape.certificates.layers import is_size, of_function, of_layer
from lightning_landscape.certificates.operation import Operation, Piece, Point, UnsupportedError


@dataclass(frozen=True)
class Step:
    """One operation: which values it takes, by their place in the list of all, and whether it reads parameters."""

    operation: Operation
    inputs: tuple[int, ...]
    fixed: bool

    @property
    def from_fixed(self) -> bool:
        """Whether its output moves along a line where the parameters do, because its input does not move."""
        return isinstance(self.operation, Affine) and self.fixed


class Network:
    """The forward of a module on one tensor, as a list of steps.

    Args:
        module: the module in eval mode; only read.
        example: an input of it.

    Raises:
        UnsupportedError: for a forward that cannot be traced, or has a step without a rule, which is named.
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        try:
            graph = trace(module, (example,))
        except ValueError as error:
            raise UnsupportedError(str(error)) from error
        names = {id(value): name for name, value in module.named_parameters() if value.requires_grad}
        self.steps: list[Step] = []
        places: dict[fx.Node, int] = {}
        still: set[int] = {0}  # places of what does not depend on the parameters
        for node in graph.nodes:
            if node.op == "placeholder":
                if not places:
                    places[node] = 0
                elif node.users:
                    raise UnsupportedError(f"forward takes a second argument {node.target!r}")
                continue
            if is_size(node) or (node.op == "get_attr" and not node.users):
                continue
            if node.op == "output":
                self._finish(node, places)
                continue
            operation, inputs = self._read(node, module, names)
            if any(value not in places for value in inputs):
                raise UnsupportedError(f"{place_of(node, module)} takes what is no activation: nothing is claimed")
            taken = tuple(places[value] for value in inputs)
            fixed = all(place in still for place in taken)
            places[node] = len(self.steps) + 1
            if fixed and not isinstance(operation, Affine):
                still.add(places[node])
            self.steps.append(Step(operation, taken, fixed))
        self._still = still

    def values(self, x: Tensor, point: Point) -> list[Tensor]:
        """All values at a point, the input first and the output last."""
        values = [x]
        for step in self.steps:
            values.append(step.operation.value([values[place] for place in step.inputs], point))
        return values

    def values_between(self, start: Sequence[Tensor], end: Sequence[Tensor], t: float, point: Point) -> list[Tensor]:
        """:meth:`values` at the point (1 - t) a + t b, given those at a and at b."""
        values = [start[0]]
        for place, step in enumerate(self.steps, start=1):
            if place in self._still:
                values.append(start[place])
            elif step.from_fixed:
                values.append(start[place] * (1 - t) + end[place] * t)
            else:
                values.append(step.operation.value([values[before] for before in step.inputs], point))
        return values

    def chords(self, start: Sequence[Tensor], end: Sequence[Tensor], piece: Piece) -> list[Chord]:
        """What is known of all values along a piece, given those at its ends."""
        chords = [Chord(start[0], start[0], Deviation(None, None, 0.0))]
        for place, step in enumerate(self.steps, start=1):
            ends = (start[place], start[place]) if place in self._still else (start[place], end[place])
            inputs = [chords[before] for before in step.inputs]
            deviation = step.operation.deviation(inputs, *ends, piece)
            if place in self._still:
                deviation = Deviation(None, None, deviation.slack)
            chords.append(Chord(*ends, deviation))
        return chords

    def _read(self, node: fx.Node, module: nn.Module, names: Mapping[int, str]) -> tuple[Operation, list[fx.Node]]:
        try:
            if node.op == "call_module":
                if len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node):
                    raise UnsupportedError("it is called with more than one tensor")
                return of_layer(module.get_submodule(str(node.target)), names), [node.args[0]]
            if node.op in ("call_function", "call_method"):
                return of_function(node.target, node.args, node.kwargs)
            raise UnsupportedError("the bound has no rule for it")
        except (UnsupportedError, TypeError, KeyError) as error:
            raise UnsupportedError(f"{place_of(node, module)}: {error}. Nothing is claimed for it") from error

    def _finish(self, node: fx.Node, places: Mapping[fx.Node, int]) -> None:
        output: Any = node.args[0]
        if not isinstance(output, fx.Node) or places.get(output) != len(self.steps):
            raise UnsupportedError("forward returns something else than its last activation: nothing is claimed")
