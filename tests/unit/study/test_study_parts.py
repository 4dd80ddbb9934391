"""Goal, search and fit of a study, against curves whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from disttrain.config import Recipe
from disttrain.errors import InputError
from disttrain.study.fit import Fit, Interval, fit_hyperbola
from disttrain.study.goal import Goal, at_samples, parse_target, reached_at, reached_at_once, smoothed
from disttrain.study.minima import Minima, Minimum
from disttrain.study.search import DIVERGED, MISSED, REACHED, Score, at_edge, best_rate, could_be_better, next_rates
from disttrain.study.settings import Settings
from disttrain.study.sharpness import Eigenvalue
from disttrain.study.study import Found, Point, Run
from disttrain.study.trials import Trial
from disttrain.study.variants import Base
from disttrain.study.words import of_trial, sentences, without_fit

LOSS = Goal("loss", 0.5, higher=False)


def test_when_a_goal_was_reached() -> None:
    straight = [(100, 0.9), (200, 0.7), (300, 0.4), (400, 0.3)]
    assert reached_at(straight, LOSS) == pytest.approx(200 + 100 * 0.2 / 0.3)
    assert reached_at([(s, -v) for s, v in straight], Goal("accuracy", -0.5, higher=True)) == reached_at(straight, LOSS)
    assert reached_at(straight[:3], LOSS) is None, "one reading is not enough"
    assert reached_at([(100, 0.9), (200, 0.4), (300, 0.7), (400, 0.6)], LOSS) is None, "a single dip is not enough"
    assert reached_at([(100, 0.9), (200, math.nan), (300, 0.7), (400, 0.6)], LOSS) is None
    assert reached_at([(100, 0.4), (200, 0.3), (300, 0.2)], LOSS) == 200
    assert [reached_at_once([(100, first), (200, 0.3), (300, 0.2)], LOSS) for first in (0.4, 0.6)] == [True, False]
    assert smoothed([3.0, 1.0, 2.0]) == [3.0, 2.0, 2.0]
    assert at_samples(straight, 250) == 0.4
    assert at_samples(straight, 500) is None
    assert parse_target("loss=0.45") == ("loss", 0.45)
    for wrong in ("loss", "=3", "loss=nan", "loss=much"):
        with pytest.raises(InputError, match="expected METRIC=VALUE"):
            parse_target(wrong)


def searched(best: float, diverges_from: int, most: int = 9) -> dict[int, Score]:
    """The search on samples that are a parabola in the log of the rate."""
    tried: dict[int, Score] = {}
    while wanted := next_rates(tried, most):
        for k in wanted:
            tried[k] = (
                Score(DIVERGED, 0.0) if k >= diverges_from else Score(REACHED, 1000 * 2 ** (0.1 * (k - best) ** 2))
            )
    return tried


def test_the_search_climbs_to_the_best_rate() -> None:
    assert next_rates({}, 5) == [0]
    assert (sorted(searched(0.2, 9)), best_rate(searched(0.2, 9))) == ([-1, 0, 1], 0)
    assert (sorted(searched(2.9, 9)), best_rate(searched(2.9, 9))) == ([-1, 0, 1, 2, 3, 4], 3)
    assert (sorted(searched(2.9, 2)), best_rate(searched(2.9, 2))) == ([-1, 0, 1, 2], 1)
    assert (sorted(searched(-1.8, 0)), best_rate(searched(-1.8, 0))) == ([-3, -2, -1, 0], -2)
    assert not at_edge(searched(2.9, 2))
    assert at_edge(searched(8.0, 99, most=4))
    assert len(searched(8.0, 99, most=4)) == 4
    missed = {0: Score(MISSED, 0.6), 1: Score(MISSED, 0.5)}
    assert next_rates(missed, 5) == [2]
    found = searched(0.2, 9)
    assert could_be_better(found) == pytest.approx(math.log(2) * 0.1 * 0.04)
    assert could_be_better(missed) == 0.0


def runs(critical: float, batches: list[int], scatter: float, seed: int, bend: float = 1.0) -> list[list[float]]:
    random = np.random.default_rng(seed)
    return [
        [1e5 * (1 + (b / critical) ** bend) * math.exp(scatter * random.normal()) for _ in range(3)] for b in batches
    ]


def test_the_fit_finds_the_curve_and_its_interval_covers() -> None:
    batches = [32, 128, 512, 2048, 8192]
    exact = fit_hyperbola(batches, runs(700, batches, 1e-6, 0), [0.0] * 5)
    assert exact is not None
    assert exact.critical_batch.value == pytest.approx(700, rel=1e-3)
    assert exact.least_samples.value == pytest.approx(1e5, rel=1e-3)
    assert exact.least_updates.value == pytest.approx(1e5 / 700, rel=1e-3)
    covered, fitting, width = 0, 0, []
    for seed in range(40):
        fit = fit_hyperbola(batches, runs(700, batches, 0.05, seed), [0.0] * 5)
        assert fit is not None
        low, high = fit.critical_batch.low, fit.critical_batch.high
        assert low is not None
        assert high is not None
        covered += low <= 700 <= high
        fitting += fit.fits
        width.append(high / low)
    assert covered >= 35
    assert fitting >= 35
    assert float(np.median(width)) < 1.4


def test_what_the_data_do_not_say_has_no_end() -> None:
    flat, steep = [8, 16, 32], [20000, 40000, 80000]
    for seed in range(5):
        low = fit_hyperbola(flat, runs(700, flat, 0.05, seed), [0.0] * 3)
        high = fit_hyperbola(steep, runs(700, steep, 0.05, seed), [0.0] * 3)
        assert low is not None
        assert high is not None
        assert low.critical_batch.high is None
        assert high.critical_batch.low is None
        assert high.least_samples.low is None
        assert high.least_updates.low is not None
    bent = fit_hyperbola(
        [32, 128, 512, 2048, 8192], runs(700, [32, 128, 512, 2048, 8192], 0.02, 0, bend=2.0), [0.0] * 5
    )
    assert bent is not None
    assert not bent.fits
    assert fit_hyperbola([32], runs(700, [32], 0.1, 0), [0.0]) is None
    two = fit_hyperbola([32, 4096], runs(700, [32, 4096], 0.02, 0), [0.0, 0.0])
    assert two is not None
    assert two.p_value is None
    assert two.critical_batch.value == pytest.approx(700, rel=0.1)
    sure, unsure = (fit_hyperbola([32, 512, 8192], runs(700, [32, 512, 8192], 0.02, 1), [m] * 3) for m in (0.0, 0.2))
    assert sure is not None
    assert unsure is not None
    ends = [(f.critical_batch.high or 0) / (f.critical_batch.low or 1) for f in (sure, unsure)]
    assert all(a < b for a, b in pairwise(ends)), "what a search may have missed widens the interval"


def test_more_samples_at_a_smaller_batch_are_said_only_where_they_are_more_than_scatter() -> None:
    def said(smallest: float, scatter: float) -> str:
        return " ".join(without_fit([point(16, smallest), point(64, 1000.0), point(256, 4000.0)], scatter))

    assert "which no hyperbola does" in said(2000.0, 0.1)
    assert "which no hyperbola does" not in said(1020.0, 0.1)
    assert "and twice that at batch 128" in said(1020.0, 0.1)


def point(batch: int, samples: float) -> Point:
    runs = tuple(Run(f"{factor}", 1, factor * samples, None, {}, [], "") for factor in (0.9, 1.1))
    return Point(batch, 0.1, (), edge=False, better=0.0, runs=runs)


def test_batches_that_do_not_tell_say_no_more_than_that() -> None:
    points = [point(16, 1000.0), point(32, 1500.0)]
    told, untold = (
        sentences(study_of(points, Interval(400.0, low, 500.0 if low else None)))[0] for low in (300.0, None)
    )
    assert told.startswith("critical batch 400 (300 to 500): there the target costs twice")
    assert untold.startswith(
        "these batches do not tell the critical batch; the least samples, of ever smaller batches, are at most 9,"
    )


def test_that_the_target_has_delayed_a_run_is_said_where_it_has() -> None:
    length = 2300
    for seen, delayed in (([2280, 2304], False), ([2280, 2304, 2348], True)):
        runs = (Run("a", 1, 900.0, None, {}, [(samples, 0.1) for samples in seen], ""),)
        at = Point(16, 0.1, (), edge=False, better=0.0, runs=runs)
        eigenvalue = Eigenvalue(1.0, 1e-6, converged=True, products=9, samples=1024)
        minima = tuple(Minimum(name, 16, 1, last, eigenvalue) for name, last in (("a", seen[-1]), ("b", length)))
        words = next(w for w in sentences(replace(study_of([at], LONG), minima=Minima(minima))) if "Hessian" in w)
        assert f"after 2,300 to {seen[-1]:,} samples" in words
        assert ("goes on past the recipe's length" in words) == delayed


RECIPE = Recipe.model_validate(
    {
        "task": {"name": "digits"},
        "batch": {"global": 1024},
        "epochs": 1,
        "optimizer": {"name": "sgd", "lr": 1},
        "seed": 3,
    }
)
LONG = Interval(400.0, 300.0, 500.0)


def study_of(points: list[Point], critical: Interval) -> Found:
    fit = Fit(critical, Interval(7.0, None, 9.0), Interval(7.0, None, 9.0), 0.1, None, ())
    base = Base(RECIPE, 1024, 2300, 9200, 57, False, ())
    return Found(Settings((16, 32)), base, LOSS, "given", tuple(points), fit)


def test_a_training_is_named_for_people() -> None:
    assert of_trial(Trial(RECIPE, Path("search-b1024-x-1-s3"))) == "batch 1,024, rate x 0.5, seed 3"
