r"""The hyperbola of updates and samples to a target (McCandlish et al. 2018, arXiv:1812.06162, equation 2.11).

.. math:: (S / S_\min - 1) (E / E_\min - 1) = 1, \qquad E = E_\min (1 + B / B_c), \qquad S = E / B, \qquad B_c = E_\min / S_\min

``S`` updates and ``E`` samples reach the target at batch ``B``; at the critical batch ``B_c`` both are twice their least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BEYOND = 30.0
"""How many times outside the batches that were run a critical batch is still told apart from none: there the samples differ by a
thirtieth of themselves from a straight line."""
DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its interval of 95 %; an end that the data do not give is None."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Fit:
    """Of samples to target over batches.

    Attributes:
        critical_batch, least_samples, least_updates: the three numbers of the hyperbola.
        scatter: standard deviation of the samples of one run, in parts of their mean: over seeds, all batches together.
        p_value: the share of data that follow the hyperbola and lie farther from it than these; None: two points always fit.
        band: batch, and the lower and upper end of the samples there.
    """

    critical_batch: Interval
    least_samples: Interval
    least_updates: Interval
    scatter: float
    p_value: float | None
    band: tuple[tuple[float, float, float], ...]

    @property
    def fits(self) -> bool:
        return self.p_value is None or self.p_value >= 0.05

    def samples(self, batch: float) -> float:
        return self.least_samples.value * (1.0 + batch / self.critical_batch.value)


@dataclass(frozen=True, slots=True)
class Curves:
    """Hyperbolas: the fitted one, and those of the bootstrap, all with a least number of samples and a critical batch.

    Attributes:
        least, critical: ``(1 + DRAWS,)``, the fitted one first; ``least`` is the logarithm.
        ends: critical batches between which they were searched; one at an end may lie anywhere beyond.
        scatter: standard deviation of the logarithm of one run's samples.
        p_value: see :class:`Fit`.
    """

    least: Floats
    critical: Floats
    ends: tuple[float, float]
    scatter: float
    p_value: float | None


def fit_hyperbola(batches: Sequence[int], samples: Sequence[Sequence[float]], better: Sequence[float]) -> Fit | None:
    """Fit two or more batches with the samples of several runs each; see :func:`curves`."""
    found = curves(batches, samples, better)
    if found is None:
        return None
    least, critical, ends = found.least[0], found.critical[0], found.ends
    leasts, criticals = found.least[1:], found.critical[1:]
    along = np.exp(np.linspace(np.log(min(batches)), np.log(max(batches)), 60))
    band = np.quantile(leasts[:, None] + np.log1p(along / criticals[:, None]), [0.025, 0.975], axis=0)
    centre = least + np.log1p(along / critical)
    return Fit(
        critical_batch=_interval(critical, criticals, ends),
        least_samples=_interval(np.exp(least), np.exp(leasts), None, unknown=criticals <= ends[0] * 1.01),
        least_updates=_interval(
            np.exp(least) / critical, np.exp(leasts) / criticals, None, unknown=criticals >= ends[1] / 1.01
        ),
        scatter=found.scatter,
        p_value=found.p_value,
        band=tuple(
            (float(x), float(np.exp(min(low, mid))), float(np.exp(max(high, mid))))
            for x, low, mid, high in zip(along, band[0], centre, band[1], strict=True)
        ),
    )


def curves(batches: Sequence[int], samples: Sequence[Sequence[float]], better: Sequence[float]) -> Curves | None:
    """Fit two or more batches with the samples of several runs each.

    Least squares in logs; a batch's variance is that over its seeds, pooled over batches (they are few), and what the search
    of its rate may have missed. Intervals and the word on the fit are from a parametric bootstrap: data drawn from the fitted
    curve with these variances, fitted again. Where the points lie farther from the curve than seeds explain, the variances grow
    to what the points show.

    Args:
        samples: of each batch, its runs'.
        better: of each batch, :func:`disttrain.study.search.could_be_better`.

    Returns:
        None for fewer than two batches, or without two runs of any batch, which leaves nothing to say how sure it is.
    """
    logs = [np.log(np.asarray(runs, dtype=np.float64)) for runs in samples]
    freedom = sum(len(runs) - 1 for runs in logs)
    if len(logs) < 2 or freedom < 1:
        return None
    b, counts = np.asarray(batches, dtype=np.float64), np.asarray([len(runs) for runs in logs], dtype=np.float64)
    pooled = max(sum(float(((x - x.mean()) ** 2).sum()) for x in logs) / freedom, 1e-8)
    missed = np.asarray(better, dtype=np.float64)
    y = np.asarray([x.mean() for x in logs]) - missed / 2
    grid = np.exp(np.linspace(np.log(b.min() / BEYOND), np.log(b.max() * BEYOND), 600))
    variance = pooled / counts + missed**2 / 12
    least, critical, misfit = _fitted(grid, b, y[None], variance[None])
    curve = least[0] + np.log1p(b / critical[0])
    random = np.random.default_rng(0)
    drawn = pooled * random.chisquare(freedom, DRAWS) / freedom
    variances = drawn[:, None] / counts + missed**2 / 12
    noise = random.normal(size=(DRAWS, len(b))) * np.sqrt(pooled / counts)
    noise += random.uniform(-0.5, 0.5, size=(DRAWS, len(b))) * missed
    expected = _fitted(grid, b, curve + noise, variances)
    p_value = None if len(b) == 2 else float(np.mean(expected[2] >= misfit[0]))
    wider = max(1.0, float(np.sqrt(misfit[0] / max(len(b) - 2, 1)))) if len(b) > 2 else 1.0
    # Student's t in place of the normal: the variance is estimated too.
    spread = np.sqrt(pooled / drawn)[:, None] * noise * wider
    leasts, criticals, _ = _fitted(grid, b, curve + spread, np.broadcast_to(variance, noise.shape))
    return Curves(
        least=np.concatenate([least, leasts]),
        critical=np.concatenate([critical, criticals]),
        ends=(float(grid[0]), float(grid[-1])),
        scatter=float(np.sqrt(pooled)),
        p_value=p_value,
    )


def _fitted(grid: Floats, b: Floats, y: Floats, variance: Floats) -> tuple[Floats, Floats, Floats]:
    """Of each row of ``y``: the log of the least samples, the critical batch, and the weighted squares that are left.

    For a given critical batch the least samples are a weighted mean, so one number is searched, on a grid and then by the
    parabola through the best three.
    """
    middle_y = y.mean(axis=1)  # taken away meanwhile: the squares below are differences of sums
    y = y - middle_y[:, None]
    weight = 1.0 / variance
    total = weight.sum(axis=1)
    bends = np.log1p(b[None] / grid[:, None])  # (grid, batches)
    # Weighted squares about the weighted mean of (y - bend), multiplied out.
    first = (weight * y) @ np.ones(len(b))
    mean = (first[:, None] - weight @ bends.T) / total[:, None]
    squares = (weight * y**2).sum(axis=1)[:, None] - 2 * (weight * y) @ bends.T + weight @ (bends**2).T
    left = squares - mean**2 * total[:, None]
    at = left.argmin(axis=1)
    rows, inner = np.arange(len(y)), np.clip(at, 1, len(grid) - 2)
    low, middle, high = (left[rows, inner + i] for i in (-1, 0, 1))
    bend = low - 2 * middle + high
    shift = np.where((bend > 1e-12) & (at == inner), 0.5 * (low - high) / np.where(bend > 1e-12, bend, 1.0), 0.0)
    step = np.log(grid[1] / grid[0])
    critical = grid[at] * np.exp(np.clip(shift, -1, 1) * step)
    exact = np.log1p(b[None] / critical[:, None])
    least = (weight * (y - exact)).sum(axis=1) / total
    return least + middle_y, critical, (weight * (y - exact - least[:, None]) ** 2).sum(axis=1)


def _interval(
    value: float, drawn: Floats, ends: tuple[float, float] | None, unknown: NDArray[np.bool_] | None = None
) -> Interval:
    """The bootstrap's percentiles. An end beyond what can be told apart is None."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    found = [float(low), float(high)]
    given = [True, True]
    if ends is not None:
        given = [found[0] > ends[0] * 1.01, found[1] < ends[1] / 1.01]
    elif unknown is not None and unknown.mean() > (1 - LEVEL) / 2:
        given = [False, True]
    return Interval(float(value), *(end if there else None for end, there in zip(found, given, strict=True)))
