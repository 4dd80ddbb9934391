"""Momentum that goes through a cycle, as one_cycle has it."""

from __future__ import annotations

from disttrain.data.position import Position
from disttrain.errors import InputError
from disttrain.methods.base import Context, Method


class MomentumCycle(Method):
    """Sets momentum and the first of Adam's betas, whichever there is, from the plan before each update.

    Raises:
        InputError: the optimizer has neither.
    """

    def __init__(self, context: Context) -> None:
        assert context.plan.momentum is not None
        self._optimizer, self._momentum = context.optimizer, context.plan.momentum
        if not self._optimizer.param_groups[0].keys() & {"momentum", "betas"}:
            name = context.recipe.optimizer.name
            raise InputError(f"schedule.decay.kind one_cycle cycles the momentum, and optimizer {name} has none")

    def begin_update(self, position: Position) -> None:
        momentum = self._momentum(position.samples)
        for group in self._optimizer.param_groups:
            if "momentum" in group:
                group["momentum"] = momentum
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
