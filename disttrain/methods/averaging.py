"""The average of the weights that a recipe asks for, or none, behind one surface."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from disttrain.config import Recipe
from disttrain.optim import EMA, SWA, WeightAverage
from disttrain.plan.plan import StepPlan


class NoAverage:
    """Nothing is averaged: every method is there and does nothing."""

    weights: list[Tensor] = []  # noqa: RUF012  # never changed

    def update(self, samples: int) -> None:
        """After an applied update with ``samples`` samples."""

    def applied(self) -> AbstractContextManager[None]:
        """The averaged weights stand in the model while this is entered."""
        return nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; empty: nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""


Average = WeightAverage | NoAverage


def make_average(recipe: Recipe, plan: StepPlan, params: list[nn.Parameter]) -> Average:
    """From the recipe's ``average`` section; lengths in epochs stretch with regime adaptation, as the run does."""
    average = recipe.average
    if average is None:
        return NoAverage()
    if average.kind == "ema":
        return EMA(params, half_life=plan.epoch.in_samples(average.half_life))
    return SWA(params, start=plan.epoch.in_samples(average.start), every=plan.epoch.in_samples(average.every))
