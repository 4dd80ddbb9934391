"""Batches that follow a measured noise scale: one decision, as a pure function of the batch and the reading."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["BatchLimits", "by_noise_scale", "by_norm_test"]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a batch may be, all in samples.

    Attributes:
        least, most: smallest and largest.
        unit: batches are multiples of it; so are ``least`` and ``most``.
        factor: what a decision multiplies a batch with at most, or divides it by; a single unit more or less is always allowed.
    """

    least: int
    most: int
    unit: int = 1
    factor: float = 2.0

    def holds(self, batch: int) -> bool:
        """Whether it is one of them."""
        return self.least <= batch <= self.most and batch % self.unit == 0

    def larger(self, batch: int, wanted: float = math.inf) -> int:
        """The batch to follow: ``factor`` times ``batch``, rounded down, or ``wanted`` samples, rounded up, if fewer."""
        allowed = math.floor(batch * self.factor / self.unit + 1e-9) * self.unit
        enough = math.ceil(min(wanted, self.most) / self.unit - 1e-9) * self.unit
        return min(max(min(allowed, enough), batch + self.unit), self.most)

    def smaller(self, batch: int) -> int:
        """The batch to follow ``batch``: the ``factor``-th part, rounded up."""
        units = math.ceil(batch / self.factor / self.unit - 1e-9)
        return max(min(units * self.unit, batch - self.unit), self.least)

    @property
    def largest_step(self) -> float:
        """What a decision multiplies a batch with at most: ``factor``, or a unit more than the least."""
        return max(self.factor, min(self.least + self.unit, self.most) / self.least)


def by_noise_scale(
    batch: int, low: float, high: float, limits: BatchLimits, *, grow_above: float = 2.0, shrink_below: float = 0.5
) -> tuple[int, str]:
    """The next batch and why: larger where the noise scale surely is above ``grow_above`` times the batch, smaller where it
    surely is below ``shrink_below`` times.

    At a batch equal to the noise scale a target takes twice the fewest possible updates and twice the fewest possible samples
    (McCandlish et al. 2018, arXiv:1812.06162, section 2.3).

    Args:
        low, high: the interval of the noise scale, in samples; 0 and infinity where an end is not known.

    Examples:
        >>> by_noise_scale(512, 2100.0, math.inf, BatchLimits(64, 4096))
        (1024, 'noise scale at least 2,100, more than 2 x 512')
        >>> by_noise_scale(512, 100.0, 2000.0, BatchLimits(64, 4096))
        (512, '')
    """
    if low > grow_above * batch:
        return limits.larger(batch), f"noise scale at least {low:,.0f}, more than {grow_above:g} x {batch:,}"
    if high < shrink_below * batch:
        return limits.smaller(batch), f"noise scale at most {high:,.0f}, less than {shrink_below:g} x {batch:,}"
    return batch, ""


def by_norm_test(
    batch: int, trace: float, square_norm: float, limits: BatchLimits, *, theta: float = 1.0
) -> tuple[int, str]:
    """The next batch and why: where ``trace / batch > theta^2 square_norm`` the smallest that passes, ``trace / (theta^2
    square_norm)`` (Byrd et al. 2012, "Sample size selection in optimization methods for machine learning", Mathematical
    Programming 134, section 3; for SGD De et al. 2016, arXiv:1610.05792; for data parallel training Lau et al. 2024,
    arXiv:2412.21124, who take the variance between workers).

    The papers put the squared norm of the batch's own gradient on the right, which is too large by ``trace / batch``. Where the
    unbiased one is not positive, every batch fails.

    Args:
        trace: average ``tr(Sigma)`` of single samples' gradients.
        square_norm: average ``|G|^2`` of the mean gradient.

    Examples:
        >>> by_norm_test(512, 900.0, 1.0, BatchLimits(512, 4096))
        (900, 'norm test: noise / batch is 1.76, more than 1 x the squared gradient 1')
    """
    allowed = theta**2 * square_norm
    if trace <= 0.0 or trace / batch <= allowed:
        return batch, ""
    wanted = trace / allowed if allowed > 0.0 else math.inf
    why = f"norm test: noise / batch is {trace / batch:.3g}, more than {theta**2:g} x the squared gradient {square_norm:.3g}"
    return limits.larger(batch, wanted), why
