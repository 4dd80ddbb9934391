"""The noise scale at weights that stand still, from the gradients of slices of a whole set."""

from __future__ import annotations

from collections.abc import Sequence

from disttrain.grads.noise_blocks import INDEPENDENT, Block
from disttrain.grads.noise_interval import NoiseEstimate, noise_estimate

__all__ = ["scale_of_set", "scale_of_wider"]


def scale_of_set(
    squares: Sequence[float], mean_square: float, slice: int, population: int, level: float = 0.95
) -> NoiseEstimate:
    """Of the set itself: ``|G_N|^2`` is exact, and only the trace is estimated.

    Slices are taken for independent; their squared norms vary less than that in sum, since each sample is in one of them, so the
    interval is rather too wide.

    Args:
        squares: squared norms of the mean gradients of disjoint random slices.
        mean_square: squared norm of the mean gradient of all samples.
        slice: samples of each.
        population: of the set, more than ``slice``.
    """
    unit = 1.0 / slice - 1.0 / population
    rows = [(mean_square, (square - mean_square) / unit) for square in squares]
    return _estimate(rows, level)


def scale_of_wider(
    squares: Sequence[float], products: Sequence[float], slice: int, level: float = 0.95
) -> NoiseEstimate:
    """Of the population that the samples were drawn from independently: ``|G|^2`` is the mean of the products of different
    slices' gradients, which is unbiased, where the squared norm of their mean is not.

    The interval is Fieller's with the jackknife's pseudo-values of both moments (Arvesen 1969, "Jackknifing U-statistics"): where
    G is next to nothing they vary more than the estimate does, and the interval is rather too wide.

    Args:
        squares: ``|g|^2`` of the mean gradients g of disjoint slices, at least 3.
        products: ``g . G`` with the mean G of all slices' gradients.
        slice: samples of each.
    """
    count, total = len(squares), sum(squares)
    cross = count * sum(products) - total

    def moments(slices: int, cross: float, total: float) -> tuple[float, float]:
        square = cross / (slices * (slices - 1))
        return square, slice * (total / slices - square)

    full = moments(count, cross, total)
    rows = []
    for square, product in zip(squares, products, strict=True):
        without = moments(count - 1, cross - 2.0 * (count * product - square), total - square)
        rows.append((count * full[0] - (count - 1) * without[0], count * full[1] - (count - 1) * without[1]))
    return _estimate(rows, level)


def _estimate(rows: Sequence[tuple[float, float]], level: float) -> NoiseEstimate:
    return noise_estimate([Block(1, 1.0, square, trace, INDEPENDENT, INDEPENDENT) for square, trace in rows], level)
