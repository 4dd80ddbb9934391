"""What would make advice more certain, by what its uncertainty comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from disttrain.advice.evidence import Evidence, Hyperbola
from disttrain.advice.goodput import Option
from disttrain.advice.speed import Speeds

ENOUGH = 0.05
"""Half-width of the time's interval, as a part of it, below which nothing is to be narrowed."""
SEEDS = 3


def narrower(evidence: Evidence, speeds: Speeds, chosen: Option, found: Sequence[Option]) -> list[str]:
    """Sentences, what matters most first."""
    statistical, system = (float(np.log(draws[1:]).std()) for draws in (chosen.samples, chosen.throughput))
    of_cost = list(evidence.narrower) or _batches_to_study(evidence, chosen)
    of_speed = []
    if chosen.origin != "measured":
        of_speed.append(
            f"disttrain scale on {chosen.ranks} ranks at batch {chosen.batch:,}, whose throughput was not measured"
        )
    elif system > ENOUGH / 2:
        of_speed.append(f"a longer disttrain scale: throughput is uncertain by {1.96 * system:.0%}")
    parts = (
        [(statistical, of_cost), (system, of_speed)]
        if statistical >= system
        else [(system, of_speed), (statistical, of_cost)]
    )
    said = [sentence for share, sentences in parts if 1.96 * share > ENOUGH for sentence in sentences]
    if chosen.origin != "measured" and not any(sentence in said for sentence in of_speed):
        said += of_speed
    most = max(option.ranks for option in found)
    if chosen.ranks == most and len({option.ranks for option in found}) > 1:
        said.append(f"disttrain scale on {2 * most} ranks: the best of those known is the largest")
    return said


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
    first, second = sorted(gains, reverse=True)[:2] if len(gains) > 1 else (gains * 2)
    left = 1.0 - first[0] / float(wanted.var())
    pair = sorted({first[1], second[1]})
    return [
        f"{SEEDS} more seeds of the study at batch {' or '.join(f'{b:,}' for b in pair)}: the samples' interval would be about "
        f"{1 - max(left, 0.0) ** 0.5:.0%} narrower"
    ]
