"""The learning rate at another batch."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

from disttrain.config import Recipe
from disttrain.plan.carry import carried
from disttrain.schedules import SCALING_RULES
from disttrain.study.branch_recipe import law_of

Rate = Callable[[int], tuple[float, str]]
"""Of a batch: the peak rate, and why."""


def rate_of(recipe: Recipe, batch: int, peak: float, samples: int, law: str) -> Rate:
    """From the rate of a run at its batch: by the recipe's own ``lr_scaling`` where it has one and ``law`` is auto, and else by
    the optimizer's law.

    Args:
        samples: length of the run.
        law: auto, linear, sqrt or none.

    Raises:
        InputError: the optimizer is somebody's own and ``law`` is auto.
    """
    optimizer = recipe.optimizer
    if law == "auto" and optimizer.reference_batch is not None and optimizer.lr_scaling != "none":

        def own(at: int) -> tuple[float, str]:
            found = carried(recipe, at, samples)
            return found.lr, found.why

        return own
    law = law_of(recipe, law)

    def scaled(at: int) -> tuple[float, str]:
        return peak * SCALING_RULES[law](at / batch), f"{peak:g} at batch {batch:,}, {law} law of {optimizer.name}"

    return scaled


def between(rates: Sequence[tuple[int, float]], outside: Rate) -> Rate:
    """From the best rates of several batches: on a straight line in the logarithms between two of them.

    Args:
        rates: batches, rising, with their rates.
        outside: for batches beyond them, whose factor is then that of the nearest one.
    """
    batches = [batch for batch, _ in rates]

    def rate(at: int) -> tuple[float, str]:
        i = bisect_left(batches, at)
        if i < len(rates) and batches[i] == at:
            return rates[i][1], f"the best of those searched at batch {at:,}"
        if 0 < i < len(rates):
            (b1, r1), (b2, r2) = rates[i - 1 : i + 1]
            share = math.log(at / b1) / math.log(b2 / b1)
            return r1 * (r2 / r1) ** share, f"between the best ones of batch {b1:,} ({r1:.3g}) and {b2:,} ({r2:.3g})"
        b, r = rates[0] if i == 0 else rates[-1]
        found, why = outside(at)
        return r * found / outside(b)[0], f"the best one of batch {b:,} ({r:.3g}), moved by the law: {why}"

    return rate
