"""Where a mean gap crosses a margin, and how often the interval holds the true place."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from disttrain.study.branch import Answer, Question
from disttrain.study.branch_report import as_json, in_words, rows
from disttrain.study.crossing import crossing


def test_the_crossing_lies_on_a_line_in_the_logarithm() -> None:
    found = crossing([2, 4, 8], [[0.0, 0.01, 0.05]] * 3, 0.03)
    assert found.where == "between"
    assert found.factor == pytest.approx(4 * math.sqrt(2))
    assert (found.held, found.above, found.low, found.high, found.near) == (4, 8, 4, 8, True)


def test_nothing_is_said_of_what_lies_between_batches_that_are_far_apart() -> None:
    """However little the repeats scatter: a line over three decades is no measurement."""
    wide = crossing([1000], [[2.0], [2.1], [1.9]], 0.01)
    assert (wide.where, wide.low, wide.high, wide.near) == ("below", 1.0, 1000.0, False)
    gap = crossing([2, 1000], [[0.0, 2.0], [0.001, 2.1], [0.0, 1.9]], 0.01)
    assert (gap.where, gap.held, gap.above, gap.low, gap.high, gap.near) == ("between", 2, 1000, 2, 1000, False)
    answer = Answer(8, 128, 64, 16, "train", (2, 1000), {1: [0.5] * 3, 2: [0.5] * 3, 1000: [2.5] * 3}, gap)
    words = in_words(answer, 0.01)
    assert "critical batch somewhere between 32 (2x the run's) and 16,000 (1000x), too far apart to say where" in words
    assert words.endswith("95 % interval 32 to 16,000")
    assert rows([answer])[0][-2:] == ("32 to 16,000", "32 to 16,000")
    assert json.loads(as_json([answer], Question((2, 1000))))["points"][0]["crossing"]["batch"] is None


def test_one_sided_answers() -> None:
    within = crossing([2, 4], [[0.001, -0.002], [-0.001, 0.002], [0.0, 0.0]], 0.03)
    assert (within.where, within.factor, within.low, within.high) == ("beyond", math.inf, 4.0, math.inf)
    worse = crossing([2, 4], [[0.2, 0.4], [0.21, 0.4], [0.19, 0.4]], 0.03)
    assert worse.where == "below"
    assert (worse.low, worse.high) == (1.0, 2.0)
    assert 1.0 < worse.factor < 2.0
    once = crossing([2, 4], [[0.01, 0.05]], 0.03)
    assert (once.where, once.low, once.high) == ("between", 1.0, math.inf), "one repeat bounds nothing"
    diverged = crossing([2, 4, 8], [[0.0, 0.01, math.inf]] * 3, 0.03)
    assert (diverged.where, diverged.low, diverged.high) == ("between", 4.0, 8.0)
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
    assert np.mean(held) > 0.95
