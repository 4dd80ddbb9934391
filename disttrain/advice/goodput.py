"""Time and price of every (ranks, batch): statistical times system efficiency (Qiao et al. 2021, arXiv:2008.12260).

Goodput is throughput times the least samples over the samples at this batch, so the time to the target is the least samples over
goodput.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disttrain.advice.draws import Draws
from disttrain.advice.evidence import Evidence
from disttrain.advice.speed import Origin, Speeds
from disttrain.study.fit import LEVEL


@dataclass(frozen=True, slots=True)
class Option:
    """One way to train.

    Attributes:
        rate, why_rate: the peak learning rate.
        samples: to the target.
        efficiency: statistical, a part of 1.
        throughput: samples a second.
        origin: of the throughput.
        seconds: to the target.
    """

    ranks: int
    batch: int
    rate: float
    why_rate: str
    samples: Draws
    efficiency: Draws
    throughput: Draws
    origin: Origin
    seconds: Draws

    @property
    def name(self) -> str:
        return f"batch {self.batch:,} on {self.ranks:,} rank{'s' * (self.ranks > 1)}"

    @property
    def updates(self) -> Draws:
        return self.samples / self.batch

    @property
    def goodput(self) -> Draws:
        """Samples a second, counted as ever smaller batches would use them."""
        return self.throughput * self.efficiency

    @property
    def rank_seconds(self) -> Draws:
        return self.ranks * self.seconds

    @property
    def both(self) -> Draws:
        """The logarithm of time times cost."""
        found: Draws = np.log(self.seconds) + np.log(self.rank_seconds)
        return found


def options(evidence: Evidence, speeds: Speeds, ranks: Sequence[int], batches: Sequence[int]) -> list[Option]:
    """Every pair that both sides know."""
    found: list[Option] = []
    assert evidence.cost is not None
    for batch in batches:
        if not allowed(evidence, batch):
            continue
        samples, efficiency = evidence.cost.samples(batch), evidence.cost.efficiency(batch)
        rate, why = evidence.rate(batch)
        for number in ranks:
            known = speeds.samples_per_second(number, batch)
            if known is not None and number <= batch:
                throughput, origin = known
                found.append(
                    Option(number, batch, rate, why, samples, efficiency, throughput, origin, samples / throughput)
                )
    return found


def allowed(evidence: Evidence, batch: int) -> bool:
    """Whether the cost of a batch is known."""
    low, high = evidence.limits
    return low <= batch <= min(high, evidence.train_samples)


def candidates(evidence: Evidence, speeds: Speeds) -> list[int]:
    """Batches to compare where none were named: those that were measured on either side, and powers of 2 times them."""
    low, high = evidence.limits
    near = {round(batch * 2.0**k) for batch in evidence.batches for k in range(-4, 5) if batch * 2.0**k >= 1} | set(
        speeds.batches
    )
    return sorted(batch for batch in near if low <= batch <= high and allowed(evidence, batch))


def front(found: Sequence[Option]) -> list[Option]:
    """Those than which none is both faster and cheaper, by the estimates; the cheapest first."""
    kept: list[Option] = []
    for option in sorted(found, key=lambda o: (o.rank_seconds[0], o.seconds[0])):
        if not kept or option.seconds[0] < kept[-1].seconds[0]:
            kept.append(option)
    return kept


@dataclass(frozen=True, slots=True)
class Choice:
    """What is recommended.

    Attributes:
        share: of the draws in which it is the best.
        rival: the one that is the best in most of the others; None: there is none.
        regret: in 95 % of the draws its time, at equal cost, is at most so many times that of the best.
    """

    option: Option
    share: float
    rival: Option | None
    regret: float


def best(found: Sequence[Option]) -> Choice:
    """The least time times cost: there a per cent of time still costs a per cent of money, and beyond it more. On ranks that
    scale without loss that is the critical batch, where samples times updates are least."""
    both = np.array([option.both for option in found])
    chosen = int(both[:, 0].argmin())
    winners = both[:, 1:].argmin(axis=0)
    wins = np.bincount(winners, minlength=len(found))
    others = [(int(count), i) for i, count in enumerate(wins) if i != chosen and count]
    above = (both[chosen, 1:] - both[:, 1:].min(axis=0)) / 2  # time and cost each have half of it
    return Choice(
        found[chosen],
        float(wins[chosen]) / len(winners),
        found[max(others)[1]] if others else None,
        float(np.exp(np.quantile(above, LEVEL))),
    )
