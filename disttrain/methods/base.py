"""The contract of a method: what a training step asks of whatever a recipe adds to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from disttrain.config import Recipe
from disttrain.data.batch import Batch, MicroBatch
from disttrain.data.position import Position
from disttrain.engine.base import Engine
from disttrain.plan.plan import StepPlan
from disttrain.precision import Precision

Report = Callable[[], Mapping[str, Any]]
"""Waits until the numbers for a training line have arrived, and gives them by name."""


@dataclass(frozen=True, slots=True)
class Context:
    """What methods are made from.

    Attributes:
        model: the task's own module, on the device.
        params: those of its parameters that are trained now.
        trained: names of those that are trained in some stage of the run.
    """

    recipe: Recipe
    plan: StepPlan
    engine: Engine
    precision: Precision
    model: nn.Module
    params: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    trained: Sequence[str]


class Method:
    """Something that accompanies training. Every hook does nothing unless a method says otherwise, and is called on every
    rank at the same moment, so it may exchange."""

    always = False
    """Whether every checkpoint has a state of it; of others, a state may be missing while there is nothing to keep."""
    of_parameters = False
    """Whether what it keeps is of the trained parameters together, and begins anew in a stage that trains others."""

    def begin_update(self, position: Position) -> None:
        """Before the micro-batches of an update, or of one that is tried again.

        Args:
            position: before the update, whose number is ``position.updates + 1``.
        """

    def begin_backward(self, last: bool) -> None:
        """Right before the backward pass of each micro-batch; gradients travel in the last one only."""

    def end_backward(self, batch: Batch, micro: MicroBatch) -> None:
        """Right after it; gradients are accumulated, scaled as backward scaled them, and not all exchanged."""

    def see_gradient(self, batch: Batch) -> None:
        """Gradients are those of the mean loss over the global batch, unscaled; nothing has changed them yet."""

    def end_update(self, batch: Batch) -> None:
        """After an update that was applied."""

    def report(self) -> Report:
        """What a training line says of the last update; begins to travel now, is asked for an update later."""
        return dict

    def events(self) -> Iterator[Mapping[str, Any]]:
        """Records of their own after an applied update, each with its ``event``."""
        yield from ()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on, the same on all ranks: nested dicts, lists, tensors, plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned; called only where that was not empty."""

    def release(self) -> None:
        """The stage is over, and another object takes the place of this one: take all hooks off the model."""

    def rank_state_dict(self) -> dict[str, Any]:
        """What this rank alone has, and a run goes on from on as many ranks; elsewhere it is not restored."""
        return {}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`rank_state_dict` returned."""


class Methods(Method):
    """Several methods, one after the other in the order of ``by_name``."""

    def __init__(self, by_name: Mapping[str, Method]) -> None:
        self._by_name = by_name

    def begin_update(self, position: Position) -> None:
        for method in self._by_name.values():
            method.begin_update(position)

    def begin_backward(self, last: bool) -> None:
        for method in self._by_name.values():
            method.begin_backward(last)

    def end_backward(self, batch: Batch, micro: MicroBatch) -> None:
        for method in self._by_name.values():
            method.end_backward(batch, micro)

    def see_gradient(self, batch: Batch) -> None:
        for method in self._by_name.values():
            method.see_gradient(batch)

    def end_update(self, batch: Batch) -> None:
        for method in self._by_name.values():
            method.end_update(batch)

    def report(self) -> Report:
        reports = [method.report() for method in self._by_name.values()]
        return lambda: {name: value for report in reports for name, value in report().items()}

    def events(self) -> Iterator[Mapping[str, Any]]:
        for method in self._by_name.values():
            yield from method.events()

    def state_dict(self) -> dict[str, Any]:
        return {name: state for name, method in self._by_name.items() if (state := method.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, method in self._by_name.items():
            if name in state or method.always:
                method.load_state_dict(state[name])

    def release(self) -> None:
        for method in self._by_name.values():
            method.release()

    def take_over(self, earlier: Methods) -> None:
        """Go on from what the methods of the stage before have kept."""
        kept = earlier.state_dict()
        for name, method in self._by_name.items():
            if name in kept and not method.of_parameters:
                method.load_state_dict(kept[name])

    def rank_state_dict(self) -> dict[str, Any]:
        return {name: state for name, method in self._by_name.items() if (state := method.rank_state_dict())}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        for name in state:
            self._by_name[name].load_rank_state_dict(state[name])
