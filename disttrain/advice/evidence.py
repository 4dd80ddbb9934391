"""What is known of the samples that a target takes at each batch, and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np

from disttrain.advice.draws import Draws

Source = Literal["study", "branches", "noise scale"]


class Cost(Protocol):
    """Samples to the target."""

    def samples(self, batch: float) -> Draws: ...

    def efficiency(self, batch: float) -> Draws:
        """The least samples at any batch over those at this one."""
        ...


@dataclass(frozen=True, slots=True)
class Hyperbola:
    """``E = E_min (1 + B / B_c)`` (McCandlish et al. 2018, arXiv:1812.06162, eq. 2.11).

    Attributes:
        least: E_min, samples of ever smaller batches.
        critical: B_c.
    """

    least: Draws
    critical: Draws

    def samples(self, batch: float) -> Draws:
        return self.least * (1.0 + batch / self.critical)

    def efficiency(self, batch: float) -> Draws:
        return 1.0 / (1.0 + batch / self.critical)

    @staticmethod
    def through(batch: float, samples: Draws | float, critical: Draws) -> Hyperbola:
        """The one that has these samples at this batch."""
        return Hyperbola(samples / (1.0 + batch / critical), critical)


@dataclass(frozen=True, slots=True)
class Between:
    """Batches that follow no hyperbola: straight lines between them, in the logarithms of both.

    Attributes:
        points: batches, rising, and their samples.
    """

    points: tuple[tuple[int, Draws], ...]

    def samples(self, batch: float) -> Draws:
        for (b1, e1), (b2, e2) in pairwise(self.points):
            if b1 <= batch <= b2:
                share = math.log(batch / b1) / math.log(b2 / b1)
                found: Draws = np.exp((1 - share) * np.log(e1) + share * np.log(e2))
                return found
        raise ValueError(f"batch {batch} lies outside {self.points[0][0]} to {self.points[-1][0]}")

    def efficiency(self, batch: float) -> Draws:
        least: Draws = np.min([samples for _, samples in self.points], axis=0) / self.samples(batch)
        return least


@dataclass(frozen=True, slots=True)
class Critical:
    """A critical batch as one source says it; ``high`` is None where nothing bounds it."""

    source: Source
    value: float | None
    low: float
    high: float | None
    words: str

    @property
    def known(self) -> bool:
        return self.value is not None and self.low > 0.0 and self.high is not None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of the statistical side.

    Attributes:
        source: of ``cost``.
        target: what is to be reached, in words.
        cost: None: not known, and ``missing`` says why.
        limits: the batches between which it is relied upon.
        batches: that were trained with.
        train_samples: of the train set; no batch is larger.
        rate: the learning rate at a batch, and why.
        criticals: every source's word on the critical batch, the one that is used first.
        reasons: sentences: what it rests on, and what is to be doubted.
        missing: what would be needed; empty where there is a cost.
        narrower: sentences: what would make the cost more certain.
        scatter: standard deviation of the logarithm of one run's samples over seeds; None: not known.
    """

    source: Source
    target: str
    cost: Cost | None
    limits: tuple[float, float]
    batches: tuple[int, ...]
    train_samples: int
    rate: Callable[[int], tuple[float, str]]
    criticals: tuple[Critical, ...]
    reasons: tuple[str, ...] = ()
    missing: str = ""
    narrower: tuple[str, ...] = ()
    scatter: float | None = None


def disagreements(criticals: Sequence[Critical]) -> list[str]:
    """A sentence on each source that says something else than the one that is used."""
    if not criticals:
        return []
    used, *others = criticals
    found = []
    for other in others:
        apart = other.low > (used.high or math.inf) or (other.high is not None and other.high < used.low)
        verdict = "which disagrees" if apart else "which does not contradict it"
        found.append(f"{other.words}, {verdict}; {used.source} is taken before {other.source}")
    return found
