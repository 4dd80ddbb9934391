"""What a run has to reach, and when it did."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from disttrain.errors import InputError


@dataclass(frozen=True, slots=True)
class Goal:
    """A value of a metric on the validation set.

    Attributes:
        higher: whether more of it is better.
    """

    metric: str
    value: float
    higher: bool

    def __str__(self) -> str:
        return f"validation {self.metric} {'at least' if self.higher else 'at most'} {self.value:.5g}"

    def met(self, value: float) -> bool:
        return value >= self.value if self.higher else value <= self.value


def parse_target(text: str) -> tuple[str, float]:
    """``loss=0.45``.

    Raises:
        InputError: it is something else.
    """
    metric, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not metric or not math.isfinite(value):
        raise InputError(f"--target {text!r}: expected METRIC=VALUE of the validation set, such as loss=0.45")
    return metric, value


def smoothed(values: Sequence[float]) -> list[float]:
    """Each but the first and last as the median of itself and its neighbours, so that no single reading decides; one that is
    not a number is worse than any."""
    known = [math.inf if math.isnan(value) else value for value in values]
    inner = [statistics.median(known[i - 1 : i + 2]) for i in range(1, len(known) - 1)]
    return [*known[:1], *inner, *known[-1:]] if len(known) > 1 else known


def reached_at(curve: Sequence[tuple[int, float]], goal: Goal) -> float | None:
    """Samples at which a curve of (samples, value) reaches the goal; None: it has not.

    That is where the smoothed curve crosses it, on the straight line between two evaluations. The last evaluation, which has no
    neighbour behind it, does not count, so a target is reached by two of three evaluations and not by one good reading. Where
    the second evaluation has reached it, when it did is known only to lie before: the answer is that evaluation's samples.
    """
    sign = -1.0 if goal.higher else 1.0
    values = smoothed([sign * value for _, value in curve])
    target = sign * goal.value
    for i in range(1, len(values) - 1):
        if values[i] <= target:
            (before, _), (here, _) = curve[i - 1], curve[i]
            above, below = values[i - 1], values[i]
            if above <= target or not math.isfinite(above):
                return float(here)
            return here - (here - before) * (target - below) / (above - below)
    return None


def reached_at_once(curve: Sequence[tuple[int, float]], goal: Goal) -> bool:
    """Whether the first evaluation has reached it already: when, there is no telling."""
    return reached_at(curve, goal) is not None and goal.met(curve[0][1])


def at_samples(curve: Sequence[tuple[int, float]], samples: int) -> float | None:
    """The value at the first evaluation at or after so many samples; None: there is none, or it is not finite."""
    value = next((value for seen, value in curve if seen >= samples), math.nan)
    return value if math.isfinite(value) else None
