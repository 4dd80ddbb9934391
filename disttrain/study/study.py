"""A study: the batches of a recipe compared by what a target costs, each at its own best rate.

First the recipe as it is gives the target, unless one was given: what its own batch and rate reach after half of its length,
the mean over the result seeds. Then each batch searches its rate with one seed: the law's own rate, both neighbours at a
factor of 2, and on while the best one lies at the edge. Then it runs with other seeds at the best rate, and these are the
results. A run ends when it has reached the target (a result not before the recipe's length, so that accuracies are
compared after equally many samples), or at 1.5 times (a result: 3 times) the least samples with which its batch has
reached it by then, or with the budget. One that ended without the target never counts as having reached it.

What is run next depends only on outcomes, and outcomes are in the run directories: a study that was killed goes on by asking
again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from disttrain.config import Recipe
from disttrain.errors import InputError
from disttrain.study.fit import Fit, fit_hyperbola
from disttrain.study.goal import Goal, at_samples, reached_at, reached_at_once, smoothed
from disttrain.study.minima import NO_MINIMA, Minima
from disttrain.study.pool import Done, Pool
from disttrain.study.search import DIVERGED, MISSED, REACHED, Score, at_edge, best_rate, could_be_better, next_rates
from disttrain.study.settings import Settings, open_study
from disttrain.study.trials import Outcome, Trial
from disttrain.study.variants import Base, Kind, make_base
from disttrain.study.watch import NO_METRIC

SEARCH_PATIENCE, RESULT_PATIENCE = 1.5, 3.0
"""Times the least samples to the target so far, after which a run of the search, or a result, is given up."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A result.

    Attributes:
        run_dir: its name below ``runs/``.
        samples: to the target; None: not reached.
        seconds_per_sample: of training; None without lines.
        final: validation and train metrics after the recipe's length, by ``SPLIT_NAME``.
        curve: samples and the target's metric on the validation set.
        why: how it ended.
    """

    run_dir: str
    seed: int
    samples: float | None
    seconds_per_sample: float | None
    final: dict[str, float]
    curve: list[tuple[int, float]]
    why: str


@dataclass(frozen=True, slots=True)
class Point:
    """A batch.

    Attributes:
        rate: peak learning rate of its results.
        searched: each rate that was tried, what it came to (``reached``, ``missed`` or ``diverged``), and the samples to the
            target or the last reading.
        edge: whether a better rate may lie beyond those.
        better: see :func:`disttrain.study.search.could_be_better`.
    """

    batch: int
    rate: float
    searched: tuple[tuple[float, str, float], ...]
    edge: bool
    better: float
    runs: tuple[Run, ...]

    @property
    def samples(self) -> list[float]:
        """To the target, of each run; empty unless all have reached it."""
        found = [run.samples for run in self.runs if run.samples is not None]
        return found if len(found) == len(self.runs) else []

    @property
    def seconds(self) -> float | None:
        """To the target: the mean samples at the median speed."""
        speeds = [run.seconds_per_sample for run in self.runs if run.seconds_per_sample is not None]
        return statistics.fmean(self.samples) * statistics.median(speeds) if self.samples and speeds else None

    def final(self, name: str) -> list[float]:
        """A metric after the recipe's length, of each run that has it."""
        return [run.final[name] for run in self.runs if name in run.final]

    @property
    def gaps(self) -> list[float]:
        """Train minus validation accuracy then, of each run that has both."""
        pair = ("train_accuracy", "validation_accuracy")
        return [run.final[pair[0]] - run.final[pair[1]] for run in self.runs if run.final.keys() >= set(pair)]


@dataclass(frozen=True, slots=True)
class Found:
    """What a study has found.

    Attributes:
        target_from: where the target comes from, in words.
        fit: None where fewer than two batches reached the target.
        minima: none unless they were asked for.
    """

    settings: Settings
    base: Base
    goal: Goal
    target_from: str
    points: tuple[Point, ...]
    fit: Fit | None
    minima: Minima = NO_MINIMA


def study(recipe: Recipe, settings: Settings, directory: Path, *, done: Done, say: Say) -> Found:
    """Run what has not been run, and sum up.

    Args:
        directory: of the study; trials are below ``runs/`` there.
        done: called after each trial.
        say: called with a line about what comes next.

    Raises:
        InputError: this is no study, or the directory holds another one or is in use, or no run reached the target, each did at
            once or all diverged.
        StopRequested: asked to stop; the same call goes on.
        DisttrainError: a trial cannot be trained.
    """
    base = make_base(recipe, settings)
    with (
        open_study(directory, recipe, settings),
        Pool(settings.jobs, ranks=settings.ranks, engine=settings.engine) as pool,
    ):
        at_work = _Work(base, settings, directory, pool, done)
        goal, origin = at_work.goal(say)
        say(f"target: {goal} ({origin})")
        say(f"searching the rate of batches {', '.join(map(str, settings.batches))} with seed {recipe.seed}")
        tried = at_work.search(goal)
        say(f"results with seeds {', '.join(map(str, at_work.seeds))}")
        points = at_work.results(goal, tried)
    found = [point for point in points if point.samples]
    if not found:
        best = "; ".join(f"{p.batch}: {_closest(p, goal)}" for p in points)
        raise InputError(
            f"no batch has reached {goal} with every seed within {base.budget:,} samples (closest, {best}): choose a target that "
            "they reach, or a larger --budget, with another --out; the runs are kept"
        )
    fit = fit_hyperbola([p.batch for p in found], [p.samples for p in found], [p.better for p in found])
    return Found(settings, base, goal, origin, tuple(points), fit)


class _Work:
    """The three parts of a study, as trials."""

    def __init__(self, base: Base, settings: Settings, directory: Path, pool: Pool, done: Done) -> None:
        self._base, self._settings, self._directory, self._pool, self._done = base, settings, directory, pool, done
        self.seeds = [_seed(base, i) for i in range(settings.seeds)]

    def goal(self, say: Say) -> tuple[Goal, str]:
        """The target that was given, or what the recipe as it is reaches after half of its length."""
        settings, base = self._settings, self._base
        if settings.value is not None:
            return Goal(settings.metric, settings.value, base.higher), "given"
        say(f"the recipe as it is, batch {base.batch}, for the target")
        # Two seeds more or fewer must not move the target of a study that is under way.
        trials = [self._trial("own", None, base.batch, 0, _seed(base, i), base.length) for i in range(3)]
        values, diverged = [], False
        for outcome in self._run(trials):
            diverged |= outcome.state == "diverged"
            curve = outcome.curve("validation", settings.metric)
            smooth = list(zip((samples for samples, _ in curve), smoothed([v for _, v in curve]), strict=True))
            values.append(at_samples(smooth, base.length // 2))
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            what = "diverges" if diverged else f"has no finite validation {settings.metric} after half of its length"
            raise InputError(
                f"the recipe as it is {what}, so it gives no target: lower optimizer.lr, or give --target, with another "
                "--out; the runs are kept"
            )
        value = float(f"{statistics.fmean(known):.6g}")
        origin = f"the mean of 3 runs of the recipe as it is after half of its length, {base.length // 2:,} samples"
        return Goal(settings.metric, value, base.higher), origin

    def search(self, goal: Goal) -> dict[int, dict[int, Score]]:
        """What each rate of each batch came to.

        Raises:
            InputError: every batch has some rate that reached the goal before it was first looked at, or all rates diverged.
        """
        tried: dict[int, dict[int, Score]] = {batch: {} for batch in self._settings.batches}
        at_once: set[int] = set()
        while wanted := [(b, k) for b, scores in tried.items() for k in next_rates(scores, self._settings.rates)]:
            trials = [
                self._trial("search", goal, b, k, self._base.recipe.seed, self._most(tried[b], SEARCH_PATIENCE))
                for b, k in wanted
            ]
            for (b, k), outcome in zip(wanted, self._run(trials), strict=True):
                tried[b][k] = self._score(outcome, goal)
                if reached_at_once(outcome.curve("validation", goal.metric), goal):
                    at_once.add(b)
            if len(at_once) == len(tried):
                raise InputError(
                    f"every batch has reached {goal} at its first evaluation: when, there is no telling, so this says nothing of "
                    "batches; choose a harder --target, or a smaller --every, with another --out; the runs are kept"
                )
        if all(score.kind == DIVERGED for scores in tried.values() for score in scores.values()):
            lowest = "; ".join(f"{b}: {self._base.peak(b, min(scores)):.3g}" for b, scores in tried.items())
            raise InputError(
                f"every rate that was tried diverged, at every batch (the lowest of batch {lowest}): lower optimizer.lr, with "
                "another --out; the runs are kept"
            )
        return tried

    def results(self, goal: Goal, tried: dict[int, dict[int, Score]]) -> list[Point]:
        """Every batch at its best rate."""
        trials = [
            self._trial("result", goal, b, best_rate(scores), seed, self._most(scores, RESULT_PATIENCE))
            for b, scores in tried.items()
            for seed in self.seeds
        ]
        outcomes = self._run(trials)
        runs = [self._result(t, o, goal) for t, o in zip(trials, outcomes, strict=True)]
        count = len(self.seeds)
        return [
            self._point(b, scores, runs[i * count : (i + 1) * count]) for i, (b, scores) in enumerate(tried.items())
        ]

    def _point(self, batch: int, scores: dict[int, Score], runs: list[Run]) -> Point:
        kinds = {REACHED: "reached", MISSED: "missed", DIVERGED: "diverged"}
        return Point(
            batch=batch,
            rate=self._base.peak(batch, best_rate(scores)),
            searched=tuple((self._base.peak(batch, k), kinds[s.kind], s.value) for k, s in sorted(scores.items())),
            edge=at_edge(scores),
            better=could_be_better(scores),
            runs=tuple(runs),
        )

    def _trial(self, kind: Kind, goal: Goal | None, batch: int, exponent: int, seed: int, most: float) -> Trial:
        metric, samples = self._settings.metric, int(min(most, self._base.budget))
        return self._base.trial(
            self._directory, kind, metric, goal, batch=batch, exponent=exponent, seed=seed, most=samples
        )

    def _run(self, trials: list[Trial]) -> list[Outcome]:
        found = self._pool.run(trials, self._done)
        for outcome in found:
            if outcome.why.startswith(NO_METRIC):
                raise InputError(f"--target: {outcome.why}: ask for one of these, with another --out")
        return found

    def _most(self, scores: dict[int, Score], patience: float) -> float:
        least = min((s.value for s in scores.values() if s.kind == REACHED), default=math.inf)
        return patience * least + 2 * self._base.every

    def _score(self, outcome: Outcome, goal: Goal) -> Score:
        curve = outcome.curve("validation", goal.metric)
        samples = reached_at(curve, goal)
        if samples is not None:
            return Score(REACHED, samples)
        if outcome.state == "diverged" or not curve or not math.isfinite(curve[-1][1]):
            return Score(DIVERGED, 0.0)
        return Score(MISSED, -curve[-1][1] if goal.higher else curve[-1][1])

    def _result(self, trial: Trial, outcome: Outcome, goal: Goal) -> Run:
        length = min(self._base.length, self._base.budget)
        metrics = dict.fromkeys((r.split, name) for r in outcome.readings if r.split != "test" for name in r.metrics)
        final = {f"{split}_{name}": at_samples(outcome.curve(split, name), length) for split, name in metrics}
        curve = outcome.curve("validation", goal.metric)
        return Run(
            run_dir=trial.run_dir.name,
            seed=trial.recipe.seed,
            samples=reached_at(curve, goal),
            seconds_per_sample=outcome.seconds_per_sample,
            final={name: value for name, value in final.items() if value is not None},
            curve=curve,
            why=outcome.why,
        )


def _seed(base: Base, i: int) -> int:
    """Of the i-th run that counts; the search has the recipe's own."""
    return (base.recipe.seed + 1 + i) % 2**63


def _closest(point: Point, goal: Goal) -> str:
    values = [value for run in point.runs for _, value in run.curve if math.isfinite(value)]
    return f"{(max if goal.higher else min)(values):.5g}" if values else "diverged"
