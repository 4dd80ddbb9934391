"""Measuring the gradient noise scale while training, on any engine, from the micro-batches there are anyway."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from disttrain.data.batch import Batch, MicroBatch
from disttrain.data.position import Position
from disttrain.errors import InputError
from disttrain.grads import NoiseScale, global_norm
from disttrain.methods.base import Context, Method, Report


class NoiseMeter(Method):
    """Measures nothing.

    Attributes:
        estimate: what measurements go into.
    """

    def __init__(self) -> None:
        self.estimate = NoiseScale()


class MicroBatchNoise(NoiseMeter):
    """Compares the squared norms of the micro-batches' own gradients with that of the global batch.

    A hook on each parameter sees what one backward adds to its gradient, before it is accumulated or exchanged, so the
    small batch is a micro-batch, whichever rank it is on: cut into micro-batches of the same size, the global batch gives
    the same estimate on any number of ranks. An update of a single micro-batch says nothing and is passed over. Costs one
    extra read of the gradient in each backward that is measured, and one exchange of three numbers.

    Args:
        every: updates between two measurements.
    """

    of_parameters = True

    def __init__(self, context: Context, every: int) -> None:
        super().__init__()
        self._engine, self._precision, self._params = context.engine, context.precision, context.params
        self._every = every
        self._measuring = False
        self._square: Tensor | None = None
        self._squares: list[tuple[Tensor, int, float]] = []
        self._hooks = [param.register_hook(self._see) for param in self._params]  # type: ignore[no-untyped-call]

    def release(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def begin_update(self, position: Position) -> None:
        self._measuring = (position.updates + 1) % self._every == 0
        self._squares = []

    def begin_backward(self) -> None:
        self._square = None  # what the hooks saw earlier was no part of this pass

    def end_backward(self, batch: Batch, micro: MicroBatch) -> None:
        if self._measuring and micro.weight and self._square is not None:
            samples = len(micro.ids)
            # What the gradient of the mean loss over this micro-batch was multiplied with by the time it reached the parameters.
            factor = self._engine.multiplier * self._precision.loss_scale * samples / batch.size
            self._squares.append((self._square, samples, factor))

    def see_gradient(self, batch: Batch) -> None:
        if not self._measuring:
            return
        self._measuring = False
        grad_norm = global_norm(self._params).double()
        sums = torch.zeros(3, dtype=torch.float64, device=grad_norm.device)
        for square, samples, factor in self._squares:
            sums[0] += square / factor**2
            sums[1] += 1.0 / samples
            sums[2] += 1.0
        self._engine.all_reduce(sums)
        total, inverse, count = sums.tolist()
        big = float(grad_norm) ** 2
        if count > 1.0 and math.isfinite(total) and math.isfinite(big):
            self.estimate.update(total / count, big, small_batch=count / inverse, big_batch=batch.size)

    def report(self) -> Report:
        value = self.estimate.value
        return lambda: {"noise_scale": value}

    def state_dict(self) -> dict[str, Any]:
        return self.estimate.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.estimate.load_state_dict(state)

    def _see(self, grad: Tensor) -> None:
        if self._measuring:
            square = grad.detach().double().square().sum()
            self._square = square if self._square is None else self._square + square


def make_noise_meter(context: Context) -> NoiseMeter:
    """Measures in every update for AdaScale, and otherwise as often as ``noise_scale`` says.

    Raises:
        InputError: every update is a single micro-batch, which says nothing of the noise.
    """
    recipe, plan = context.recipe, context.plan
    adascale = recipe.optimizer.lr_scaling == "adascale"
    if recipe.noise_scale is None and not adascale:
        return NoiseMeter()
    if context.engine.world.size * plan.accumulation < 2 and plan.largest_batch == plan.global_batch:
        raise InputError(
            "the noise scale is measured between the micro-batches of an update, and there is only one: start more ranks, or set "
            f"batch.per_rank_max to {max(plan.global_batch // 2, 1)} or less"
        )
    return MicroBatchNoise(context, 1 if adascale or recipe.noise_scale is None else recipe.noise_scale.every_steps)
