"""From sums over blocks of readings to a noise scale with an interval (Fieller 1954, "Some problems in interval estimation")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from disttrain.grads.noise_blocks import Block
from disttrain.grads.student import student_quantile

__all__ = ["NoiseEstimate"]

FEWEST = 8
"""Clusters below which no interval is given."""


@dataclass(frozen=True, slots=True)
class NoiseEstimate:
    """A noise scale, in samples, and how well it is known.

    Attributes:
        value: ``trace / square_norm``; None where it cannot be told.
        low: lower end of the interval; 0.0 where nothing is known.
        high: upper end; infinite where there is none.
        square_norm: average ``|G|^2``.
        trace: average ``tr(Sigma)``.
        readings: how many they are averages over.
        level: share of such intervals that hold the true value, all reports together.
        reason: why there is no value or no upper end, in words; empty where there are both.
    """

    value: float | None
    low: float
    high: float
    square_norm: float
    trace: float
    readings: int
    level: float
    reason: str


def noise_estimate(clusters: Sequence[Block], level: float) -> NoiseEstimate:
    """The ratio of the averages over all clusters, with Fieller's interval.

    For ``x = |G|^2 / tr(Sigma)`` the sum of ``square - x trace`` over clusters has mean 0, and its variance follows from how
    clusters differ; the interval is every x at which the sum is within Student's quantile, ``len(clusters) - 1`` degrees of
    freedom. The noise scale is ``1 / x``, so where the interval of x reaches 0 there is only a lower end.

    The lower end of such a one-sided interval has the tail ``(1 - level) / 3``, where a two-sided one has ``(1 - level) / 2``.
    With the same tail, all reports together would hold the true value at ``level``, but not those that come out one-sided: these
    are the ones with a small ``|G|^2`` and so have all the misses at that end. With a third, they are right at ``level`` by
    themselves wherever at least a third of all reports come out one-sided, and all together more often, by at most
    ``(1 - level) / 6``.

    Args:
        clusters: taken for independent.
        level: between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level} must lie between 0 and 1")
    readings, weight = sum(c.readings for c in clusters), sum(c.weight for c in clusters)
    if not readings:
        return NoiseEstimate(None, 0.0, math.inf, 0.0, 0.0, 0, level, "there are no readings yet")
    square, trace = sum(c.square for c in clusters) / weight, sum(c.trace for c in clusters) / weight
    value = trace / square if square > 0.0 and trace > 0.0 else None

    def found(low: float, high: float, reason: str) -> NoiseEstimate:
        return NoiseEstimate(value, low, high, square, trace, readings, level, reason)

    if len(clusters) < FEWEST:
        return found(0.0, math.inf, f"an interval needs {FEWEST} readings, and there are {len(clusters)}")
    least, most = _inverse_interval(clusters, square, trace, (1.0 + level) / 2.0)
    if most == math.inf:
        return found(0.0, math.inf, f"{readings} readings do not tell the noise from none")
    if least > 0.0:
        return found(1.0 / most, 1.0 / least, "")
    # Where not even the upper end of |G|^2 is positive: what could still be read where it is 0.
    _, most = _inverse_interval(clusters, square if most > 0.0 else 0.0, trace, (2.0 + level) / 3.0)
    return found(1.0 / most, math.inf, f"{readings} readings do not tell the mean gradient from none")


def _inverse_interval(
    clusters: Sequence[Block], square: float, trace: float, probability: float
) -> tuple[float, float]:
    """Both ends of the interval of ``square / trace``, which may be negative; infinite ones where trace may be 0."""
    weight, count = sum(c.weight for c in clusters), len(clusters)
    rest = [(c.square - c.weight * square, c.trace - c.weight * trace) for c in clusters]
    factor = student_quantile(probability, count - 1) ** 2 * count / (count - 1) / weight**2
    a = square**2 - factor * sum(s * s for s, _ in rest)
    b = square * trace - factor * sum(s * t for s, t in rest)
    c = trace**2 - factor * sum(t * t for _, t in rest)
    if c <= 0.0 or trace <= 0.0:
        return -math.inf, math.inf
    root = math.sqrt(max(b * b - a * c, 0.0))
    return (b - root) / c, (b + root) / c
