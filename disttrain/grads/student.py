"""Quantiles of Student's t distribution, without a statistics library."""

from __future__ import annotations

import math
from functools import lru_cache

__all__ = ["student_quantile"]


@lru_cache(maxsize=512)
def student_quantile(probability: float, freedom: int) -> float:
    """The t that a variable with ``freedom`` degrees of freedom stays below with ``probability``.

    The distribution function is a finite sum for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4); it is
    inverted by bisection of the angle ``atan(t / sqrt(freedom))``, exact to rounding.

    Args:
        probability: in [0.5, 1).
        freedom: at least 1.

    Examples:
        >>> round(student_quantile(0.975, 10), 4)
        2.2281
    """
    if not 0.5 <= probability < 1.0 or freedom < 1:
        raise ValueError(f"student_quantile: probability={probability} in [0.5, 1), freedom={freedom} at least 1")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _central(middle, freedom) < 2.0 * probability - 1.0:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _central(angle: float, freedom: int) -> float:
    """P(|t| < sqrt(freedom) tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for i in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * i / (i + 1)
    return 2.0 / math.pi * (angle + sine * total) if odd else sine * total
