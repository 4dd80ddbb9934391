"""Schedules that rise and fall. ``s`` is the number of samples seen since the piece began."""

from __future__ import annotations

import math
from typing import NamedTuple

from disttrain.schedules.pieces import Schedule, constant, cosine, join

__all__ = ["OneCycle", "cosine_restarts", "one_cycle", "triangular", "triangular2"]


def cosine_restarts(start: float, end: float, period: float, multiplier: float = 1.0) -> Schedule:
    """Half a cosine from ``start`` to ``end`` again and again, each cycle ``multiplier`` times as long as the one
    before (SGDR: Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5).

    Args:
        period: length of the first cycle, in samples.

    Raises:
        ValueError: ``period`` is not positive, or ``multiplier`` is below 1.

    Examples:
        >>> f = cosine_restarts(1.0, 0.0, period=100, multiplier=2)
        >>> f(0), round(f(50), 3), f(100), round(f(200), 3), f(300)
        (1.0, 0.5, 1.0, 0.5, 1.0)
    """
    if period <= 0 or multiplier < 1:
        raise ValueError(f"cosine_restarts: period={period} must be positive and multiplier={multiplier} at least 1")

    def f(s: float) -> float:
        s = max(s, 0.0)
        if multiplier == 1:
            begin, length = math.floor(s / period) * period, period
        else:
            cycle = math.floor(math.log(s / period * (multiplier - 1) + 1, multiplier))
            # The logarithm may be off by one in the last place, exactly where a cycle begins.
            cycle += s >= period * (multiplier ** (cycle + 1) - 1) / (multiplier - 1)
            begin, length = period * (multiplier**cycle - 1) / (multiplier - 1), period * multiplier**cycle
        return end + (start - end) * (1.0 + math.cos(math.pi * (s - begin) / length)) / 2.0

    return f


def triangular(low: float, high: float, half_cycle: float) -> Schedule:
    """Straight up from ``low`` to ``high`` in ``half_cycle`` samples, down in as many, and so on (Smith 2017,
    arXiv:1506.01186, section 3.2).

    Examples:
        >>> f = triangular(0.0, 1.0, half_cycle=10)
        >>> f(0), f(5), f(10), f(15), f(20)
        (0.0, 0.5, 1.0, 0.5, 0.0)
    """
    return _triangles(low, high, half_cycle, shrink=1.0)


def triangular2(low: float, high: float, half_cycle: float) -> Schedule:
    """:func:`triangular` with each further cycle half as high (Smith 2017, arXiv:1506.01186, section 3.2).

    Examples:
        >>> f = triangular2(0.0, 1.0, half_cycle=10)
        >>> f(10), f(30), f(50)
        (1.0, 0.5, 0.25)
    """
    return _triangles(low, high, half_cycle, shrink=0.5)


class OneCycle(NamedTuple):
    """The two schedules of :func:`one_cycle`."""

    lr: Schedule
    momentum: Schedule


def one_cycle(
    peak: float,
    samples: float,
    *,
    rise: float = 0.3,
    start: float | None = None,
    end: float | None = None,
    momentum_high: float = 0.95,
    momentum_low: float = 0.85,
) -> OneCycle:
    """Half a cosine up to ``peak``, half a cosine down to almost nothing, with momentum going the other way (Smith
    2018, arXiv:1803.09820; Smith and Topin 2018, arXiv:1708.07120). The cosines are those of ``torch.optim``'s
    OneCycleLR; the papers use straight lines.

    Args:
        samples: length of the whole.
        rise: share of it that goes up.
        start, end: first and last learning rate; None: ``peak / 25`` and ``peak / 250000``.
        momentum_high, momentum_low: momentum (or Adam's beta1) at the ends and at the peak.
    """
    start = peak / 25.0 if start is None else start
    end = peak / 250_000.0 if end is None else end
    up, down = samples * rise, samples * (1.0 - rise)

    def there_and_back(first: float, middle: float, last: float) -> Schedule:
        return join([cosine(first, middle, up), cosine(middle, last, down)], boundaries=[up])

    momentum = (
        constant(momentum_high)
        if momentum_high == momentum_low
        else there_and_back(momentum_high, momentum_low, momentum_high)
    )
    return OneCycle(there_and_back(start, peak, end), momentum)


def _triangles(low: float, high: float, half_cycle: float, shrink: float) -> Schedule:
    if half_cycle <= 0:
        raise ValueError(f"triangular: half_cycle={half_cycle} must be positive")

    def f(s: float) -> float:
        cycle = math.floor(max(s, 0.0) / (2 * half_cycle))
        height = 1.0 - abs(max(s, 0.0) / half_cycle - 2 * cycle - 1)
        return low + (high - low) * max(height, 0.0) * shrink**cycle

    return f
