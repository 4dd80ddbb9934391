"""The average of the weights that a recipe asks for, or none, behind one surface."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from disttrain.config.sections.base import Length
from disttrain.data.batch import Batch
from disttrain.errors import InputError
from disttrain.methods.base import Context, Method
from disttrain.optim import EMA, SWA, WeightAverage


class Average(Method):
    """No average: evaluation sees the weights as they are."""

    def applied(self) -> AbstractContextManager[None]:
        """The averaged weights stand in the model while this is entered."""
        return nullcontext()


class MovingAverage(Average):
    """An average that follows the weights.

    Args:
        names: of its parameters, under which a checkpoint holds them.
    """

    def __init__(self, average: WeightAverage, names: list[str]) -> None:
        self._average, self._names = average, names

    def applied(self) -> AbstractContextManager[None]:
        return self._average.applied()

    def end_update(self, batch: Batch) -> None:
        self._average.update(batch.size)

    def state_dict(self) -> dict[str, Any]:
        state = self._average.state_dict()
        return {**state, "weights": dict(zip(self._names, state["weights"], strict=True))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._average.load_state_dict({**state, "weights": [state["weights"][name] for name in self._names]})


def make_average(context: Context) -> Average:
    """From the recipe's ``average`` section; lengths in epochs stretch with regime adaptation, as the run does.

    Raises:
        InputError: a length is less than a sample.
    """
    average = context.recipe.average
    if average is None:
        return Average()
    # Those of all stages: a frozen parameter's average is the parameter, and so is that of one trained later on.
    named = dict(context.model.named_parameters())
    names, params = list(context.trained), [named[name] for name in context.trained]
    if average.kind == "ema":
        half_life = _samples(context, average.half_life, "average.half_life")
        return MovingAverage(EMA(params, half_life=half_life), names)
    start, every = context.plan.epoch.in_samples(average.start), _samples(context, average.every, "average.every")
    return MovingAverage(SWA(params, start=start, every=every), names)


def _samples(context: Context, length: Length, key: str) -> int:
    samples = context.plan.epoch.in_samples(length)
    if samples < 1:
        raise InputError(f"{key} is less than one sample; expected a longer one")
    return samples
