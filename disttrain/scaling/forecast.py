"""What more ranks would give. A forecast: nothing here was measured.

A step of ``p`` ranks takes as long as its parts. Computation is that of a rank's share of the batch, measured; waiting for
data goes with it. Optimizer and interpreter stay. The exchange follows the ring (:mod:`disttrain.scaling.exchange`): its last
bucket is always waited for, the others hide behind a part of the computation that is fitted, and a factor takes what is left
between model and measurement. Stragglers grow as the slowest of ``p`` does: somewhere between the largest of so many normal
numbers and that of so many exponential ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from disttrain.scaling.exchange import Ring
from disttrain.scaling.record import Split

HIDING = tuple(i / 20 for i in range(21))
"""Parts of the computation behind which buckets may hide, of which the best is taken."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Runs of one mode on no more ranks than cores, as one draw has them.

    Attributes:
        splits: of a step, by ranks; the largest number is what a forecast goes on from.
        buckets: bytes, in the order in which they are exchanged.
        shares: samples of a rank, by ranks, those of the forecast too.
        passes: seconds of forward and backward passes of so many samples; empty where a rank's share stays.
        link: bits per second between hosts, None where the ring has it in beta.
    """

    splits: Mapping[int, Split]
    buckets: Sequence[int]
    shares: Mapping[int, int]
    passes: Mapping[int, float]
    ring: Ring
    link: float | None

    @property
    def most(self) -> int:
        return max(self.splits)


@dataclass(frozen=True, slots=True)
class Unknown:
    """What no measurement says, drawn anew for each forecast.

    Attributes:
        tail: 0: the slowest rank is that of normal numbers; 1: of exponential ones.
        drift: standard normal, of how far the ring is off for each doubling of the ranks.
    """

    tail: float = 0.5
    drift: float = 0.0


def seconds(known: Measured, ranks: int, unknown: Unknown) -> float:
    """Of a step on so many ranks."""
    split, most = known.splits[known.most], known.most
    ratio = _pass(known, known.shares[ranks]) / _pass(known, known.shares[most])
    compute = split.compute * ratio
    hiding, factor = _calibrated(known)
    exchange = factor * exposed(known, ranks, compute, hiding)
    exchange *= math.exp(unknown.drift * known.ring.error * math.sqrt(max(math.log2(ranks / most), 0.0)))
    stragglers = split.stragglers * ratio * _slowest(ranks, unknown.tail) / _slowest(most, unknown.tail)
    return (
        compute + split.data * ratio + exchange + stragglers + split.optimizer + split.interpreter + split.unexplained
    )


def exposed(known: Measured, ranks: int, compute: float, hiding: float) -> float:
    """Seconds of the exchange that computation does not hide, where it hides so much of its own length."""
    *hidden, last = (known.ring.seconds(size, ranks, known.link) for size in known.buckets)
    return last + max(sum(hidden) - hiding * compute, 0.0)


def _calibrated(known: Measured) -> tuple[float, float]:
    """How much of the computation hides buckets, and the factor that is left then: the nearest to 1."""
    pairs = [(ranks, split) for ranks, split in known.splits.items() if ranks > 1]
    if not any(split.exchange > 0 for _, split in pairs):
        return HIDING[-1], 0.0

    def factor(hiding: float) -> float:
        modelled = sum(exposed(known, ranks, split.compute, hiding) for ranks, split in pairs)
        return max(sum(split.exchange for _, split in pairs), 0.0) / modelled

    best = min(HIDING, key=lambda hiding: abs(math.log(max(factor(hiding), 1e-9))))
    return best, factor(best)


def _pass(known: Measured, share: int) -> float:
    """Seconds of passes of so many samples; 1 where every rank's share is the same."""
    if not known.passes:
        return 1.0
    sizes = sorted(known.passes)
    return float(np.interp(share, sizes, [known.passes[size] for size in sizes]))


def _slowest(ranks: int, tail: float) -> float:
    """How far the slowest of so many is from the mean, in units that cancel."""
    normal = NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25)) / NormalDist().inv_cdf(1.625 / 2.25)
    exponential = (sum(1 / k for k in range(1, ranks + 1)) - 1) / 0.5
    return (1 - tail) * normal + tail * exponential
