"""Batch schedules: the global batch as a pure function of samples seen, a peer of the learning rate's.

An update's batch is decided by the samples seen when it begins, so a run that stops in the middle and goes on elsewhere
cuts the same batches.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from itertools import pairwise

from disttrain.schedules.pieces import Schedule

__all__ = ["BatchSchedule", "grow_instead_of_decay", "linear_batch", "staged_batch"]

BatchSchedule = Callable[[float], int]


def staged_batch(stages: Sequence[tuple[float, int]]) -> BatchSchedule:
    """``batch`` of the last stage whose beginning was reached.

    Args:
        stages: ``(samples, batch)``: where each begins, increasing from 0.

    Raises:
        ValueError: no stage begins at 0, or they do not increase.

    Examples:
        >>> batch = staged_batch([(0, 64), (1000, 256)])
        >>> batch(0), batch(999), batch(1000)
        (64, 64, 256)
    """
    begins, batches = [s for s, _ in stages], [b for _, b in stages]
    if not begins or begins[0] != 0 or any(a >= b for a, b in pairwise(begins)):
        raise ValueError(f"staged_batch: stages {list(stages)} must begin at 0 and increase")
    return lambda s: batches[max(bisect.bisect_right(begins, s) - 1, 0)]


def linear_batch(start: int, end: int, samples: float, multiple_of: int = 1) -> BatchSchedule:
    """A straight line from ``start`` to ``end`` over ``samples`` samples, rounded down to a multiple of
    ``multiple_of`` but never below ``start``.

    Examples:
        >>> batch = linear_batch(100, 200, samples=1000, multiple_of=32)
        >>> batch(0), batch(300), batch(1000)
        (100, 128, 200)
    """

    def batch(s: float) -> int:
        if s >= samples:
            return end
        grown = start + (end - start) * max(s, 0.0) / samples
        return max(start, int(grown) // multiple_of * multiple_of)

    return batch


def grow_instead_of_decay(
    decay: Schedule, batch: int, max_batch: int, power: float = 1.0
) -> tuple[BatchSchedule, Schedule]:
    """Grow the batch where the learning rate would have fallen, as much as it would have fallen. Beyond ``max_batch`` the
    learning rate does the rest. At all times ``lr(s) / batch(s) ** power == decay(s) / batch ** power``, exactly: what
    rounding the batch leaves over goes into the learning rate.

    With ``power`` 1 the noise scale of SGD, learning rate over batch, falls as ``decay`` says, and the learning rate stays
    where it is (Smith et al. 2018, arXiv:1711.00489, section 4). With 1/2 the same holds of normalized SGD, the stand-in for
    Adam in Seesaw (Meterez et al. 2025, arXiv:2510.14717): where ``decay`` halves the learning rate, the batch is doubled and
    the learning rate multiplied by ``1 / sqrt(2)``.

    Args:
        decay: a learning rate that never rises.
        batch: the global batch at the start.
        max_batch: the cap. Smith et al.'s rule of thumb is a tenth of the train set.
        power: of the batch, in what is kept.

    Returns:
        The batch schedule and what remains of the learning rate schedule.

    Raises:
        ValueError: ``max_batch`` is below ``batch``.

    Examples:
        >>> from disttrain.schedules.pieces import multi_step
        >>> size, lr = grow_instead_of_decay(multi_step(0.4, [100, 200], gamma=0.1), batch=32, max_batch=640)
        >>> [(size(s), round(lr(s), 6)) for s in (0, 100, 200)]
        [(32, 0.4), (320, 0.4), (640, 0.08)]
    """
    if max_batch < batch:
        raise ValueError(f"grow_instead_of_decay: max_batch={max_batch} is below batch={batch}")
    peak = decay(0.0)

    def grown(s: float) -> int:
        rate = decay(s)
        # A tiny surplus, so that a factor such as 1 / 0.1 is not rounded down to 9.
        return max_batch if rate * max_batch <= peak * batch else max(batch, int(batch * peak / rate * (1 + 1e-9)))

    return grown, lambda s: decay(s) * (grown(s) / batch) ** power
