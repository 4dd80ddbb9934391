"""How each hyper-parameter is carried from the batch that it was tuned at to another one, at equal samples.

``factor`` is how much larger a share of the run one update is: batch / reference batch and, where the length changes too,
divided by length / reference length. What is kept is a length in samples, or the same stochastic differential equation.
"""

from __future__ import annotations

import math

__all__ = ["keep_half_life", "keep_timescale", "saturating_scaling", "surge_scaling"]


def keep_half_life(beta: float, factor: float) -> float:
    """``beta ** factor``: a mean with this decay forgets half of what it holds over the same number of samples (Marek et al.
    2025, arXiv:2507.07101, section 4.3). To first order it is Malladi's ``1 - factor (1 - beta)`` (see
    :func:`disttrain.schedules.scale_adam`), and it has no largest factor.

    Examples:
        >>> round(keep_half_life(0.9, 4), 4)
        0.6561
    """
    return math.pow(beta, factor)


def keep_timescale(weight_decay: float, factor: float, rate: float) -> float:
    """``weight_decay * factor / rate``, where the learning rate is ``rate`` times the reference's.

    AdamW's weights are a moving average of its updates over ``1 / (lr * weight_decay)`` of them (Wang and Aitchison 2024,
    arXiv:2405.13698), which is ``batch / (lr * weight_decay * samples)`` of the run: that is kept (Bergsma et al. 2025,
    arXiv:2505.13738).

    Examples:
        >>> keep_timescale(0.1, 4, 2.0)
        0.2
    """
    return weight_decay * factor / rate


def surge_scaling(batch: float, reference: float, noise: float) -> float:
    """How the best rate of Adam, taken as the sign of its gradient, goes from batch ``reference`` to ``batch``: it rises like
    the root, is largest at the noise scale ``noise``, and falls beyond it (Li et al. 2024, arXiv:2405.14578, eq. 13:
    ``lr = 2 lr_max / (sqrt(noise / batch) + sqrt(batch / noise))``).

    Examples:
        >>> round(surge_scaling(400, 100, 1e12), 6), surge_scaling(1600, 100, 400)
        (2.0, 1.0)
    """

    def peaked(at: float) -> float:
        return 1.0 / (math.sqrt(noise / at) + math.sqrt(at / noise))

    return round(peaked(batch) / peaked(reference), 12)


def saturating_scaling(batch: float, reference: float, noise: float) -> float:
    """The same of SGD: linear, until it saturates at the noise scale (McCandlish et al. 2018, arXiv:1812.06162, eq. 2.6:
    ``lr = lr_max / (1 + noise / batch)``).

    Examples:
        >>> saturating_scaling(400, 100, 100)
        1.6
    """
    return (1.0 + noise / reference) / (1.0 + noise / batch)
