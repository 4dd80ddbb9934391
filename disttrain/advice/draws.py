"""Figures that are not known exactly: the estimate, and behind it draws of what it may be.

Arithmetic on such arrays carries the uncertainty along, and what two of them have in common cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from disttrain.grads.student import student_quantile
from disttrain.study.fit import DRAWS, LEVEL, Interval

Draws = NDArray[np.float64]
"""``(1 + DRAWS,)``: the estimate first."""
_NORMAL = 1.959964
"""The quantile of the normal distribution that belongs to an end of an interval of 95 %."""


def drawn(value: float, low: float, high: float, random: np.random.Generator) -> Draws:
    """A positive number with an interval of 95 %: on each side of the estimate a normal distribution in the logarithm, so that
    :func:`figure` finds the same ends again.

    Args:
        random: another one for each number that is independent of the others.
    """
    z = random.standard_normal(DRAWS)
    sides = np.where(z < 0, math.log(value / low), math.log(high / value)) / _NORMAL
    return np.concatenate([[value], value * np.exp(z * sides)])


def of_values(values: Sequence[float], random: np.random.Generator) -> Draws:
    """The geometric mean of independent positive values, with Student's interval in the logarithm."""
    logs = np.log(np.asarray(values, dtype=np.float64))
    mean = float(logs.mean())
    if len(logs) < 2:
        raise ValueError("of_values: one value has no interval")
    half = float(logs.std(ddof=1)) / math.sqrt(len(logs)) * student_quantile((1 + LEVEL) / 2, len(logs) - 1)
    return drawn(math.exp(mean), math.exp(mean - half), math.exp(mean + half), random)


def figure(draws: Draws) -> Interval:
    """The estimate with its interval of 95 %."""
    low, high = np.quantile(draws[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(draws[0]), float(low), float(high))
