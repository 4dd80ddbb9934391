"""What would make advice more certain, by what its uncertainty comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from disttrain.advice.draws import Draws
from disttrain.advice.evidence import Evidence, Hyperbola
from disttrain.advice.goodput import Choice, Option

ENOUGH = 0.05
"""Half-width of the time's interval, as a part of it, below which nothing is to be narrowed."""
SEEDS = 3


def narrower(evidence: Evidence, choice: Choice, found: Sequence[Option]) -> list[str]:
    """Sentences, what matters most first: to the time of what was chosen, or to the choice between it and its rival."""
    chosen = choice.option
    rival = chosen if choice.rival is None else choice.rival
    statistical, system = (
        max(_uncertain(mine), _uncertain(mine / others))
        for mine, others in ((chosen.samples, rival.samples), (chosen.throughput, rival.throughput))
    )
    of_cost = list(evidence.narrower) or _batches_to_study(evidence, chosen)
    of_speed = []
    if chosen.origin != "measured":
        of_speed.append(f"disttrain scale with {chosen.name}, whose throughput was not measured")
    elif system > ENOUGH:
        of_speed.append(f"throughput by disttrain scale, for longer: it is uncertain by {system:.0%}")
    parts = [(statistical, of_cost), (system, of_speed)]
    parts.sort(key=lambda part: -part[0])
    said = [sentence for share, sentences in parts if share > ENOUGH for sentence in sentences]
    if chosen.origin != "measured" and not any(sentence in said for sentence in of_speed):
        said += of_speed
    most = max(option.ranks for option in found)
    if chosen.ranks == most and len({option.ranks for option in found}) > 1:
        said.append(f"disttrain scale on {2 * most} ranks: the best of those known is the largest")
    return said


def _uncertain(draws: Draws) -> float:
    """Half-width of an interval of 95 % in the logarithm."""
    return 1.96 * float(np.log(draws[1:]).std())


def _batches_to_study(evidence: Evidence, chosen: Option) -> list[str]:
    """The two batches whose own runs would tell most of the samples at the one that was chosen.

    Where figures are normal, measuring one with variance v takes ``cov^2 / (var + v)`` from the variance of another.
    """
    cost = evidence.cost
    if not isinstance(cost, Hyperbola) or evidence.scatter is None:
        return []
    low, high = evidence.limits
    asked = [
        round(low * 2.0**k)
        for k in range(30)
        if low * 2.0**k <= min(high, evidence.train_samples) and low * 2.0**k >= 1
    ]
    wanted = np.log(cost.samples(chosen.batch)[1:])
    gains = []
    for batch in asked:
        told = np.log(cost.samples(batch)[1:])
        covariance = np.cov(wanted, told)
        gains.append((float(covariance[0, 1] ** 2 / (covariance[1, 1] + evidence.scatter**2 / SEEDS)), batch))
    first, second = sorted(gains, reverse=True)[:2]
    left = 1.0 - first[0] / float(wanted.var())
    pair = sorted({first[1], second[1]})
    return [
        f"{SEEDS} more seeds of the study at batch {' or '.join(f'{b:,}' for b in pair)}: the samples' interval would be about "
        f"{1 - max(left, 0.0) ** 0.5:.0%} narrower"
    ]
