"""Intervals by resampling what was measured: launches first, then the windows of each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from disttrain.scaling.record import Interval

T = TypeVar("T")
DRAWS = 400


def drawn(launches: Sequence[Sequence[T]], random: np.random.Generator) -> list[T]:
    """Windows of launches drawn with replacement, each with windows of its own drawn with replacement."""
    found: list[T] = []
    for i in random.integers(len(launches), size=len(launches)):
        windows = launches[i]
        found += [windows[k] for k in random.integers(len(windows), size=len(windows))]
    return found


def interval(launches: Sequence[Sequence[T]], value: Callable[[Sequence[T]], float], seed: int = 0) -> Interval:
    """``value`` of all windows, with its 95 % interval."""
    random = np.random.default_rng(seed)
    all_of_them = [window for windows in launches for window in windows]
    return around(value(all_of_them), [value(drawn(launches, random)) for _ in range(DRAWS)])


def around(value: float, draws: Sequence[float]) -> Interval:
    """A value and the middle 95 % of its draws, widened to hold it."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(value, float(min(low, value)), float(max(high, value)))


def median_of(values: Sequence[float]) -> float:
    return statistics.median(values)
