"""Where losses that were measured at some batches, several times each, come to lie above a margin; and how surely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from disttrain.grads.student import student_quantile

APART = 4.0
"""Times as large as the other, beyond which two batches say nothing of where between them something happens."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where the loss has become worse by the margin, in multiples of the base's batch.

    Attributes:
        where: ``between`` two of the batches; ``below`` all of them; or ``beyond`` the largest, which was still within.
        held: the largest batch up to which the mean was within the margin everywhere; 1, the base's own, ``below`` all.
        above: the next, whose mean was above it; infinite ``beyond`` the largest.
        factor: between those two, on a line in the logarithm of the batch: an estimate only where they are near to each other
            (:attr:`near`); infinite ``beyond``.
        low, high: the interval: the largest batch up to which every one was surely within, at least 1, and the smallest from
            which on every one was surely above, infinite where there is none. Both are batches that were tried (or the base).
    """

    where: Literal["between", "below", "beyond"]
    held: float
    above: float
    factor: float
    low: float
    high: float

    @property
    def near(self) -> bool:
        """Whether ``factor`` is worth saying: it is between two batches that were tried, at most :data:`APART` times apart."""
        return self.where == "between" and self.above <= APART * self.held


def crossing(factors: ArrayLike, gaps: ArrayLike, margin: float, confidence: float = 0.95) -> Crossing:
    """Find where the mean gap first exceeds ``margin``, with an interval.

    A batch is surely within, or surely above, where Student's test over the repeats excludes the margin. Nothing was measured
    between two batches, and the loss need not rise there along any line: so the interval ends at batches that were tried, and
    assumes only that a loss which has risen above the margin does not come back. From one repeat nothing is excluded.

    Args:
        factors: (k,) multiples of the base's batch, increasing and above 1.
        gaps: (repeats, k) how much worse the loss is than the base's in the same repeat; infinite where a training diverged.
    """
    worse: NDArray[np.float64] = np.array(gaps, dtype=np.float64)
    finite = worse[np.isfinite(worse)]
    worse[~np.isfinite(worse)] = 1e6 * (abs(margin) + np.abs(finite).max(initial=1e-300))
    tried = np.concatenate([[1.0], np.asarray(factors, dtype=np.float64), [math.inf]])
    mean = worse.mean(axis=0)
    reach = np.full(len(mean), math.inf)
    if len(worse) > 1:
        error = worse.std(axis=0, ddof=1) / math.sqrt(len(worse))
        reach = student_quantile((1.0 + confidence) / 2.0, len(worse) - 1) * error
    low = float(tried[_leading(mean + reach < margin)])
    high = float(tried[-1 - _leading((mean - reach > margin)[::-1])])
    index = _leading(mean <= margin)
    if index == len(mean):
        return Crossing("beyond", float(tried[index]), math.inf, math.inf, low, high)
    before, after = (0.0 if index == 0 else float(mean[index - 1])), float(mean[index])
    share = (margin - before) / (after - before)
    held, above = float(tried[index]), float(tried[index + 1])
    return Crossing("between" if index else "below", held, above, held * (above / held) ** share, low, high)


def _leading(true: NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return len(true) if true.all() else int(np.argmin(true))
