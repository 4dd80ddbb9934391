"""Where losses that were measured at some batches, several times each, come to lie above a margin; and how surely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from disttrain.grads.student import student_quantile

FINE = 256
"""Places between two neighbouring batches at which the interval is asked for."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where the loss has become worse by the margin, as a multiple of the base's batch.

    Attributes:
        where: ``between`` two of the batches; ``below`` all of them; or ``beyond`` the largest, which was still within.
        factor: the place, on a line in the logarithm of the batch; 1 means the base's batch; infinite ``beyond``.
        low, high: the interval, ``low`` at least 1 and ``high`` possibly infinite: nothing bounds it.
    """

    where: Literal["between", "below", "beyond"]
    factor: float
    low: float
    high: float


def crossing(factors: ArrayLike, gaps: ArrayLike, margin: float, confidence: float = 0.95) -> Crossing:
    """Find where the mean gap first exceeds ``margin``, with an interval.

    Between two batches a repeat's gap lies on a line in the logarithm of the batch, and at the base's own batch it is 0. The
    interval is what Student's test does not exclude: the places at which the mean over repeats, plus or minus Student's quantile
    times its standard error, holds the margin (Fieller's idea, for a curve). A place is only one side's end if no such place lies
    further out, so the interval holds whatever lies between. From one repeat nothing is excluded.

    Args:
        factors: (k,) multiples of the base's batch, increasing and above 1.
        gaps: (repeats, k) how much worse the loss is than the base's in the same repeat; infinite where a training diverged.
    """
    worse: NDArray[np.float64] = np.array(gaps, dtype=np.float64)
    steps = np.concatenate([[0.0], np.log(np.asarray(factors, dtype=np.float64))])
    finite = worse[np.isfinite(worse)]
    worse[~np.isfinite(worse)] = 1e6 * (abs(margin) + np.abs(finite).max(initial=1e-300))
    worse = np.concatenate([np.zeros((len(worse), 1)), worse], axis=1)
    places = np.concatenate([np.linspace(a, b, FINE, endpoint=False) for a, b in pairwise(steps)])
    places = np.append(places, steps[-1])
    curves = np.stack([np.interp(places, steps, row) for row in worse])
    mean, low, high = curves.mean(axis=0), 1.0, math.inf
    if len(curves) > 1:
        spread = curves.std(axis=0, ddof=1) / math.sqrt(len(curves))
        reach = student_quantile((1.0 + confidence) / 2.0, len(curves) - 1) * spread
        surely_within = mean + reach < margin
        low = _end(places, int(np.argmin(surely_within)) - 1 if not surely_within.all() else len(places) - 1)
        maybe_within = np.flatnonzero(mean - reach <= margin)
        high = math.inf if maybe_within[-1:] == len(places) - 1 else _end(places, int(maybe_within.max(initial=-1)) + 1)
    above = np.flatnonzero(mean > margin)
    if not above.size:
        return Crossing("beyond", math.inf, low, high)
    factor = math.exp(_between(places, mean - margin, int(above[0])))
    return Crossing("below" if factor < math.exp(steps[1]) else "between", factor, low, high)


def _end(places: NDArray[np.float64], index: int) -> float:
    return math.exp(places[max(index, 0)])


def _between(places: NDArray[np.float64], above: NDArray[np.float64], index: int) -> float:
    """Where the line from the place before ``index`` to it crosses 0."""
    if index == 0:
        return float(places[0])
    a, b = above[index - 1], above[index]
    return float(places[index - 1] + (places[index] - places[index - 1]) * -a / (b - a))
