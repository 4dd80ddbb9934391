"""Schedules: pure functions of the number of samples seen.

A schedule is any ``Callable[[float], float]``. It keeps no state, so there is nothing to save, and it means the same at
any batch size, number of ranks and accumulation. ``join`` builds longer ones from pieces. A batch schedule is the
same for the global batch. Scaling rules say how hyper-parameters follow the batch. Nothing here imports torch.
"""

from disttrain.schedules.adascale import adascale_gain, adascale_moments
from disttrain.schedules.batch import BatchSchedule, constant_batch, grow_instead_of_decay, linear_batch, staged_batch
from disttrain.schedules.cycles import OneCycle, cosine_restarts, one_cycle, triangular, triangular2
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
from disttrain.schedules.scaling import (
    SCALING_RULES,
    ScaledAdam,
    adapt_regime,
    legw,
    linear_scaling,
    no_scaling,
    scale_adam,
    sqrt_scaling,
)

__all__ = [
    "SCALING_RULES",
    "BatchSchedule",
    "OneCycle",
    "ScaledAdam",
    "Schedule",
    "adapt_regime",
    "adascale_gain",
    "adascale_moments",
    "constant",
    "constant_batch",
    "cosine",
    "cosine_restarts",
    "exponential",
    "grow_instead_of_decay",
    "join",
    "legw",
    "linear",
    "linear_batch",
    "linear_scaling",
    "multi_step",
    "no_scaling",
    "one_cycle",
    "polynomial",
    "scale_adam",
    "sqrt_scaling",
    "staged_batch",
    "step",
    "triangular",
    "triangular2",
]
