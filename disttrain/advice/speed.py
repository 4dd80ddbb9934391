"""Samples a second for ranks and batch, from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from disttrain.advice.draws import Draws, drawn, of_values
from disttrain.advice.of_study import ReadStudy
from disttrain.advice.trained import TrainedRun
from disttrain.scaling.record import Interval, ScaledRun, Scaling

FARTHEST = 4.0
"""Times the batches of a number of ranks beyond which the line through their steps is not followed."""
BLOCKS = 8
"""Into which a run's lines are cut: neighbouring ones are not independent."""
Origin = Literal["measured", "between", "forecast"]


@dataclass(frozen=True, slots=True)
class Step:
    """An update of ``batch`` samples.

    Attributes:
        seconds: of it.
        fixed: the share of it that does not follow the batch; None: not known.
    """

    batch: int
    seconds: Draws
    fixed: float | None


@dataclass(frozen=True, slots=True)
class Speeds:
    """What is known of the system side.

    Attributes:
        steps: by the number of ranks, by rising batch.
        forecast: the numbers of ranks that nothing was measured on.
        why: where it comes from, and what is left out.
    """

    steps: dict[int, list[Step]] = field(default_factory=dict)
    forecast: frozenset[int] = frozenset()
    why: tuple[str, ...] = ()

    def samples_per_second(self, ranks: int, batch: int) -> tuple[Draws, Origin] | None:
        """None: not known. A step takes time for itself and for each sample: between two batches it lies on the line through
        both, and up to 4 times beyond on the one that the nearest one's split gives."""
        steps = self.steps.get(ranks, [])
        if not steps or not steps[0].batch / FARTHEST <= batch <= steps[-1].batch * FARTHEST:
            return None
        for step in steps:
            if step.batch == batch:
                return batch / step.seconds, "forecast" if ranks in self.forecast else "measured"
        found = _on_line(steps, batch)
        return None if found is None else (batch / found, "forecast" if ranks in self.forecast else "between")

    @property
    def batches(self) -> list[int]:
        return sorted({step.batch for steps in self.steps.values() for step in steps})


def _on_line(steps: Sequence[Step], batch: int) -> Draws | None:
    """Between two steps by both, and beyond them by the split of the nearest, which two noisy ones far off tell less well."""
    for low, high in pairwise(steps):
        if low.batch <= batch <= high.batch:
            share = (batch - low.batch) / (high.batch - low.batch)
            return low.seconds + share * (high.seconds - low.seconds)
    nearest = steps[0] if batch < steps[0].batch else steps[-1]
    if nearest.fixed is None:
        return None
    return nearest.seconds * (nearest.fixed + (1.0 - nearest.fixed) * batch / nearest.batch)


def of_scaling(scaling: Scaling, random: np.random.Generator) -> Speeds:
    """Measured runs, and forecasts for the numbers of ranks that were not measured. Runs with fewer cores than ranks are left
    out: there ranks take turns, which says nothing of ranks with a device each."""
    usable = [run for run in scaling.runs if run.cores is None or run.cores >= run.ranks]
    turns = sorted({run.ranks for run in scaling.runs} - {run.ranks for run in usable})
    found: dict[tuple[int, int], Step] = {}
    engine = next((run.engine for run in usable if run.ranks > 1), "")
    for run in sorted(usable, key=lambda run: run.hosts):
        if run.ranks == 1 or run.engine == engine:
            found.setdefault((run.ranks, run.global_batch), _step(run, random))
    measured = {ranks for ranks, _ in found}
    for each in scaling.forecast:
        if each.ranks not in measured:
            speed = _drawn(each.samples_per_second, random)
            found[each.ranks, each.global_batch] = Step(each.global_batch, each.global_batch / speed, None)
    steps: dict[int, list[Step]] = {}
    for ranks, batch in sorted(found):
        steps.setdefault(ranks, []).append(found[ranks, batch])
    why = [f"throughput: {scaling.name}, measured on {_listed(measured)} ranks"]
    if ahead := steps.keys() - measured:
        why.append(f"throughput on {_listed(ahead)} ranks is a forecast, which was not measured")
    if turns:
        why.append(f"left out: {_listed(turns)} ranks, which had fewer cores than ranks")
    return Speeds(steps, frozenset(steps.keys() - measured), tuple(why))


def _step(run: ScaledRun, random: np.random.Generator) -> Step:
    fixed = None
    if run.split is not None and run.split.step > 0:
        follows = run.split.compute + run.split.data
        fixed = min(max(1.0 - follows / run.split.step, 0.0), 1.0)
    return Step(run.global_batch, run.global_batch / _drawn(run.samples_per_second, random), fixed)


def _drawn(interval: Interval, random: np.random.Generator) -> Draws:
    return drawn(interval.median, interval.low, interval.high, random)


def of_study(study: ReadStudy, random: np.random.Generator) -> Speeds:
    """Of its own runs, on as many ranks as they had."""
    steps = [
        Step(point.batch, point.batch / of_values(point.speeds, random), None)
        for point in study.points
        if len(point.speeds) > 1
    ]
    beside = f", with {study.jobs} runs at once" if study.jobs > 1 else ""
    why = f"throughput: the study's own runs, on {study.ranks} rank{'s' * (study.ranks > 1)}{beside}"
    return Speeds({study.ranks: sorted(steps, key=lambda step: step.batch)} if steps else {}, why=(why,))


def of_runs(runs: Sequence[TrainedRun], random: np.random.Generator) -> Speeds:
    """At their own batch, on the ranks of the first."""
    ranks, batch = runs[0].ranks, runs[0].batch
    means = [_mean(run.speeds) for run in runs if run.ranks == ranks and len(run.speeds) > 1]
    if len(means) == 1:  # of one run, its parts
        (speeds,) = (np.asarray(run.speeds) for run in runs if run.ranks == ranks and len(run.speeds) > 1)
        means = [_mean(block) for block in np.array_split(speeds, min(BLOCKS, len(speeds)))]
    if not means:
        return Speeds(why=("throughput: too few training lines to say it",))
    why = f"throughput: {runs[0].path} itself, at batch {batch:,} on {ranks} rank{'s' * (ranks > 1)} alone"
    return Speeds({ranks: [Step(batch, batch / of_values(means, random), None)]}, why=(why,))


def _mean(speeds: Sequence[float] | Draws) -> float:
    """Of lines over equally many samples: what is averaged is their time."""
    return 1.0 / float(np.mean(1.0 / np.asarray(speeds)))


def _listed(numbers: set[int] | Sequence[int] | frozenset[int]) -> str:
    return ", ".join(f"{n:,}" for n in sorted(numbers))
