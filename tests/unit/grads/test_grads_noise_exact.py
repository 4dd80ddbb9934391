"""The noise scale at weights that stand still, against sums over all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from disttrain.grads import scale_of_set, scale_of_wider


def pseudo_values(g: NDArray[np.float64], slice: int) -> NDArray[np.float64]:
    """(n, 2) the jackknife's, of ``|G|^2`` and the trace, by leaving out one gradient after the other."""

    def moments(g: NDArray[np.float64]) -> NDArray[np.float64]:
        products = g @ g.T
        square = products[~np.eye(len(g), dtype=bool)].mean()
        return np.array([square, slice * (np.diag(products).mean() - square)])

    full = moments(g)
    left = [moments(np.delete(g, k, axis=0)) for k in range(len(g))]
    return np.array([len(g) * full - (len(g) - 1) * one for one in left])


def test_of_a_wider_population_all_pairs_count() -> None:
    g = np.random.default_rng(2).normal(size=(20, 6)) + 0.7
    found = scale_of_wider(list((g**2).sum(1)), list(g @ g.mean(0)), slice=8)
    expected = pseudo_values(g, 8)
    assert (found.square_norm, found.trace) == pytest.approx(tuple(expected.mean(0)), rel=1e-12)
    for end in (found.low, found.high):
        rest = expected[:, 1] - end * expected[:, 0]
        assert abs(rest.mean()) == pytest.approx(2.0930 * rest.std(ddof=1) / math.sqrt(20), rel=1e-4)  # Student's t, 19


def test_intervals_hold_where_there_is_little_gradient_too() -> None:
    """Both kinds, at a mean that is large, small and next to none against the noise of a slice."""
    generator = np.random.default_rng(3)
    spread = np.geomspace(3.0, 0.1, 12)
    for mean in (1.0, 0.1, 0.02):
        held = {"set": 0, "wider": 0}
        for _ in range(200):
            samples = generator.normal(size=(400, 12)) * spread + mean
            square, trace = (samples.mean(0) ** 2).sum(), samples.var(0, ddof=1).sum()
            g = samples.reshape(50, 8, 12).mean(1)
            squares = list((g**2).sum(1))
            found = scale_of_set(squares, float(square), 8, 400)
            held["set"] += found.low <= trace / square <= found.high
            found = scale_of_wider(squares, list(g @ g.mean(0)), 8)
            held["wider"] += found.low <= (spread**2).sum() / (12 * mean**2) <= found.high
        assert min(held.values()) >= 180, (mean, held)
