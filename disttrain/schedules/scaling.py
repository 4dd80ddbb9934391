"""How hyper-parameters follow the global batch. ``factor`` is batch / reference batch.

A rule for the learning rate alone is a function of the factor (:data:`SCALING_RULES`). :func:`scale_adam` also changes
Adam's other parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["SCALING_RULES", "ScaledAdam", "linear_scaling", "no_scaling", "scale_adam", "sqrt_scaling"]

ScalingRule = Callable[[float], float]


def linear_scaling(factor: float) -> float:
    """``factor``: batch times k, learning rate times k (Goyal et al. 2017, arXiv:1706.02677, section 2.1; for SGD).
    It is also the rule of SGD's stochastic differential equation (Malladi et al. 2022, arXiv:2205.10287)."""
    return factor


def sqrt_scaling(factor: float) -> float:
    """``sqrt(factor)``: keeps the covariance of the weight increment (Krizhevsky 2014, arXiv:1404.5997; Hoffer et al.
    2017, arXiv:1705.08741, eq. 7). For Adam it is only the learning rate's part of :func:`scale_adam`."""
    return math.sqrt(factor)


def no_scaling(factor: float) -> float:
    """1: the learning rate is meant for the batch as it is."""
    return 1.0


SCALING_RULES: Mapping[str, ScalingRule] = {
    "linear": linear_scaling,
    "sqrt": sqrt_scaling,
    "none": no_scaling,
    "legw": sqrt_scaling,  # and a warmup so many times longer (You et al. 2019, arXiv:1901.08256)
    "sde": sqrt_scaling,  # and scale_adam's betas and eps
    "adascale": no_scaling,  # its gain is measured during the run
}


class ScaledAdam(NamedTuple):
    """What :func:`scale_adam` makes of Adam's hyper-parameters."""

    lr: float
    betas: tuple[float, float]
    eps: float


def scale_adam(factor: float, *, lr: float, betas: tuple[float, float], eps: float) -> ScaledAdam:
    """The square-root rule of Adam's stochastic differential equation (Malladi et al. 2022,
    arXiv:2205.10287): ``lr * sqrt(k)``, ``1 - k (1 - beta)`` for both betas, ``eps / sqrt(k)``. Valid for Adam, AdamW,
    LAMB and RMSprop.

    Raises:
        ValueError: ``k (1 - beta) >= 1`` for one of the betas: the moments' memory would be shorter than one update.
            The message gives the largest factor that works.

    Examples:
        >>> scaled = scale_adam(4, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
        >>> [round(x, 10) for x in (scaled.lr, *scaled.betas, scaled.eps)]
        [0.002, 0.6, 0.996, 5e-09]
    """
    for beta in betas:
        if factor * (1.0 - beta) >= 1.0:
            raise ValueError(
                f"the batch is {factor:g} times the reference, and for beta {beta:g} the rule works below {1 / (1 - beta):g} "
                "times: use a larger beta at the reference batch, or a larger reference batch"
            )
    first, second = (1.0 - factor * (1.0 - beta) for beta in betas)
    return ScaledAdam(lr * math.sqrt(factor), (first, second), eps / math.sqrt(factor))
