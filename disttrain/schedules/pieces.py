"""The pieces schedules are made of. ``s`` is always the number of samples seen since the piece began; before 0 and
after ``samples`` a piece holds its end values."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "COOLDOWNS",
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "join",
    "linear",
    "multi_step",
    "one_minus_sqrt",
    "polynomial",
    "step",
    "wsd",
]

Schedule = Callable[[float], float]


def constant(value: float) -> Schedule:
    """``f(s) = value``."""
    return lambda s: value


def linear(start: float, end: float, samples: float) -> Schedule:
    """``f(s) = start + (end - start) * s / samples``: a warmup when rising, a decay when falling.

    Args:
        samples: length of the ramp, in samples; at 0 the end value holds at once.

    Examples:
        >>> f = linear(0.0, 0.4, samples=1000)
        >>> f(0), f(500), f(1000), f(5000)
        (0.0, 0.2, 0.4, 0.4)
    """
    return polynomial(start, end, samples, power=1.0)


def polynomial(start: float, end: float, samples: float, power: float) -> Schedule:
    """``f(s) = end + (start - end) * (1 - s / samples) ** power``. LARS uses power 2 (You et al. 2017,
    arXiv:1708.03888), BERT with LAMB power 1 (You et al. 2020, arXiv:1904.00962)."""

    def f(s: float) -> float:
        return float(end + (start - end) * (1.0 - _fraction(s, samples)) ** power)

    return f


def cosine(start: float, end: float, samples: float) -> Schedule:
    """``f(s) = end + (start - end) * (1 + cos(pi * s / samples)) / 2`` (Loshchilov and Hutter 2017, arXiv:1608.03983,
    eq. 5, one cycle)."""

    def f(s: float) -> float:
        return end + (start - end) * (1.0 + math.cos(math.pi * _fraction(s, samples))) / 2.0

    return f


def one_minus_sqrt(start: float, end: float, samples: float) -> Schedule:
    """``f(s) = end + (start - end) * (1 - sqrt(s / samples))``: steep at first (Haegele et al. 2024, arXiv:2405.18392, who
    find it better than a straight line at the end of a constant learning rate)."""
    return lambda s: end + (start - end) * (1.0 - math.sqrt(_fraction(s, samples)))


def exponential(start: float, end: float, samples: float) -> Schedule:
    """``f(s) = start * (end / start) ** (s / samples)``: a straight line on a logarithmic scale.

    Raises:
        ValueError: an end of the ramp is not positive.
    """
    if start <= 0.0 or end <= 0.0:
        raise ValueError(f"exponential: start={start} and end={end} must both be positive")

    def f(s: float) -> float:
        return float(start * (end / start) ** _fraction(s, samples))

    return f


COOLDOWNS: Mapping[str, Callable[[float, float, float], Schedule]] = {
    "linear": linear,
    "sqrt": one_minus_sqrt,
    "cosine": cosine,
    "exponential": exponential,
}
"""The shapes of :func:`wsd`'s decay."""


def wsd(peak: float, end: float, samples: float, decay: float, shape: str = "linear") -> Schedule:
    """``peak`` until the last ``decay`` of ``samples`` samples, then down to ``end``: the stable and the decaying part of
    warmup-stable-decay (Hu et al. 2024, arXiv:2404.06395, section 4; cooldowns: Haegele et al. 2024, arXiv:2405.18392). What
    comes before the decay does not depend on the length of the run, so one run serves for several lengths.

    Args:
        samples: length of the whole.
        decay: length of the decay, at its end.
        shape: one of :data:`COOLDOWNS`.

    Raises:
        ValueError: ``decay`` is longer than ``samples``, or ``shape`` is exponential and ``end`` not positive.

    Examples:
        >>> f = wsd(1.0, 0.0, samples=100, decay=20)
        >>> f(0), f(80), f(90), f(100)
        (1.0, 1.0, 0.5, 0.0)
    """
    if decay > samples:
        raise ValueError(f"wsd: decay={decay} is longer than samples={samples}")
    return join([constant(peak), COOLDOWNS[shape](peak, end, decay)], boundaries=[samples - decay])


def step(value: float, every: float, gamma: float) -> Schedule:
    """``f(s) = value * gamma ** floor(s / every)``.

    Examples:
        >>> f = step(1.0, every=100, gamma=0.1)
        >>> f(99), f(100)
        (1.0, 0.1)
    """
    if every <= 0:
        raise ValueError(f"step: every={every} must be positive")
    return lambda s: value * gamma ** math.floor(max(s, 0.0) / every)


def multi_step(value: float, milestones: Sequence[float], gamma: float) -> Schedule:
    """``f(s) = value * gamma ** #{milestones <= s}``; milestones in samples, increasing.

    Examples:
        >>> f = multi_step(0.1, milestones=[30, 60], gamma=0.5)
        >>> f(29), f(30), f(60)
        (0.1, 0.05, 0.025)
    """
    ordered = list(milestones)
    if ordered != sorted(ordered):
        raise ValueError(f"multi_step: milestones {ordered} must increase")
    return lambda s: value * gamma ** bisect.bisect_right(ordered, s)


def join(pieces: Sequence[Schedule], boundaries: Sequence[float]) -> Schedule:
    """Piece ``i`` from boundary ``i - 1`` to boundary ``i``, each counting its own samples from its own beginning.

    Args:
        pieces: one more than ``boundaries``.
        boundaries: in samples from the start of the whole, increasing.

    Examples:
        >>> warmup_then_cosine = join([linear(0.0, 1.0, 10), cosine(1.0, 0.0, 90)], boundaries=[10])
        >>> warmup_then_cosine(5), warmup_then_cosine(10), round(warmup_then_cosine(55), 3)
        (0.5, 1.0, 0.5)
    """
    starts = [0.0, *boundaries]
    if len(pieces) != len(starts) or starts != sorted(starts):
        raise ValueError(f"join: {len(pieces)} pieces need {len(pieces) - 1} increasing boundaries, got {boundaries}")

    def f(s: float) -> float:
        i = bisect.bisect_right(starts, s, lo=1) - 1
        return pieces[i](s - starts[i])

    return f


def _fraction(s: float, samples: float) -> float:
    return min(max(s / samples, 0.0), 1.0) if samples > 0 else 1.0
