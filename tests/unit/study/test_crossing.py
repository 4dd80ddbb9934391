"""Where a mean gap crosses a margin, and how often the interval holds the true place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from disttrain.study.crossing import crossing


def test_the_crossing_lies_on_a_line_in_the_logarithm() -> None:
    found = crossing([2, 4, 8], [[0.0, 0.01, 0.05]] * 3, 0.03)
    assert found.where == "between"
    assert found.factor == pytest.approx(4 * math.sqrt(2))
    assert found.low == pytest.approx(found.factor, rel=0.01)
    assert found.high == pytest.approx(found.factor, rel=0.01)


def test_one_sided_answers() -> None:
    within = crossing([2, 4], [[0.001, -0.002], [-0.001, 0.002], [0.0, 0.0]], 0.03)
    assert (within.where, within.factor, within.low, within.high) == ("beyond", math.inf, pytest.approx(4.0), math.inf)
    worse = crossing([2, 4], [[0.2, 0.4], [0.21, 0.4], [0.19, 0.4]], 0.03)
    assert worse.where == "below"
    assert 1.0 < worse.low < worse.factor < worse.high < 2.0
    once = crossing([2, 4], [[0.01, 0.05]], 0.03)
    assert (once.where, once.low, once.high) == ("between", 1.0, math.inf), "one repeat bounds nothing"
    diverged = crossing([2, 4, 8], [[0.0, 0.01, math.inf]] * 3, 0.03)
    assert diverged.where == "between"
    assert 4.0 <= diverged.factor < 4.1
    once_diverged = crossing([2, 4], [[0.0, 0.0], [0.001, math.inf], [0.0, 0.001]], 0.03)
    assert once_diverged.high == math.inf, "that is not sure of the batch"


@pytest.mark.parametrize("repeats", [3, 6])
def test_the_interval_holds_the_true_place(repeats: int) -> None:
    generator = np.random.default_rng(repeats)
    factors, true = np.array([2, 4, 8, 16]), np.array([0.0, 0.01, 0.03, 0.08])
    place = float(np.exp(np.interp(0.02, true, np.log(factors))))
    held = []
    for _ in range(1000):
        base = generator.normal(size=(repeats, 1))  # what all branches of a repeat share
        gaps = true + 0.004 * (generator.normal(size=(repeats, 4)) + base)
        found = crossing(factors, gaps, 0.02)
        held.append(found.low <= place <= found.high)
    assert 0.93 < np.mean(held) < 0.985
