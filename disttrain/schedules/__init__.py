"""Schedules: pure functions of the number of samples seen.

A schedule is any ``Callable[[float], float]``. It keeps no state, so there is nothing to save, and it means the same at
any batch size, number of ranks and accumulation. ``join`` builds longer ones from pieces.
"""

from disttrain.schedules.pieces import (
    Schedule,
    constant,
    cosine,
    exponential,
    join,
    linear,
    multi_step,
    polynomial,
    step,
)
from disttrain.schedules.scaling import SCALING_RULES, linear_scaling, no_scaling, sqrt_scaling

__all__ = [
    "SCALING_RULES",
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "join",
    "linear",
    "linear_scaling",
    "multi_step",
    "no_scaling",
    "polynomial",
    "sqrt_scaling",
    "step",
]
