"""Which learning rate to try next. Rates are the law's own times 2**k, with k a whole number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DIVERGED, MISSED, REACHED = 2, 1, 0


@dataclass(frozen=True, slots=True, order=True)
class Score:
    """How good a rate is; less is better.

    Attributes:
        kind: reached, missed or diverged.
        value: of one that reached the goal, its samples; of one that missed it, its last reading (less is better).
    """

    kind: int
    value: float


def next_rates(tried: Mapping[int, Score], most: int) -> list[int]:
    """Those to be tried together next: first the law's own, then both neighbours of the best so far. Empty: the best lies between
    two others, or ``most`` have been tried.

    Nothing is tried above a rate that diverged.
    """
    if not tried:
        return [0]
    top = min((k for k, score in tried.items() if score.kind == DIVERGED), default=None)
    best = best_rate(tried)
    wanted = [k for k in (best - 1, best + 1) if k not in tried and (top is None or k < top)]
    return wanted[: most - len(tried)]


def best_rate(tried: Mapping[int, Score]) -> int:
    """The best one tried; of several that are alike the lowest."""
    return min(sorted(tried), key=lambda k: tried[k])


def at_edge(tried: Mapping[int, Score]) -> bool:
    """Whether the best rate has a neighbour that was not tried and might have been better."""
    return bool(next_rates(tried, len(tried) + 2))


def could_be_better(tried: Mapping[int, Score]) -> float:
    """By how much, in logs, the least samples at the best of all rates may lie below those at the best one tried: the parabola
    through it and its neighbours in the logs. 0 where a neighbour did not reach the goal, and nothing is known.

    A parabola's lowest point lies at most an eighth of the neighbours' summed rise below the middle one.
    """
    from math import log

    best = best_rate(tried)
    three = [tried.get(k) for k in (best - 1, best, best + 1)]
    if any(score is None or score.kind != REACHED for score in three):
        return 0.0
    low, middle, high = (log(score.value) for score in three if score is not None)
    bend = low - 2 * middle + high
    return 0.0 if bend <= 0 else (high - low) ** 2 / (8 * bend)
