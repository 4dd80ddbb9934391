"""How the peak learning rate follows the global batch. ``factor`` is batch / reference batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

ScalingRule = Callable[[float], float]


def linear_scaling(factor: float) -> float:
    """``factor``: batch times k, learning rate times k (Goyal et al. 2017, arXiv:1706.02677, section 2.1; for SGD)."""
    return factor


def sqrt_scaling(factor: float) -> float:
    """``sqrt(factor)``: keeps the covariance of the weight increment (Krizhevsky 2014, arXiv:1404.5997; Hoffer et al.
    2017, arXiv:1705.08741, eq. 7)."""
    return math.sqrt(factor)


def no_scaling(factor: float) -> float:
    """1: the learning rate is meant for the batch as it is."""
    return 1.0


SCALING_RULES: Mapping[str, ScalingRule] = {
    "linear": linear_scaling,
    "sqrt": sqrt_scaling,
    "none": no_scaling,
}
