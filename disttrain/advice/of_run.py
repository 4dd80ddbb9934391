"""What runs know of the samples that a target takes: their own, and their noise scale or their branches."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from disttrain.advice.draws import Draws, drawn, figure, of_values
from disttrain.advice.evidence import Critical, Evidence, Hyperbola, disagreements
from disttrain.advice.rates import rate_of
from disttrain.advice.trained import TrainedRun
from disttrain.config import saved_recipe
from disttrain.errors import InputError
from disttrain.plan.noise import guide_only
from disttrain.study.branch_report import RESULTS
from disttrain.study.fit import DRAWS
from disttrain.study.goal import Goal, reached_at
from disttrain.study.words import number

FARTHEST = 8.0
"""Times the run's batch, up or down, beyond which a single run is not relied upon: the law of its rate may break there."""
WITHIN = 0.1
"""Half-width of the samples' interval, as a part of them, that is asked for when it is to be narrowed."""


def evidence(
    runs: Sequence[TrainedRun],
    target: tuple[str, float] | None,
    law: str,
    random: np.random.Generator,
    *,
    trust: bool,
) -> Evidence:
    """From branches if they tell, or else from the noise scale.

    Args:
        runs: of one recipe with other seeds; see :func:`disttrain.advice.trained.check_alike`.
        target: a metric of the validation set and its value; None: where the runs came at their end.
        law: of the rate, see :func:`disttrain.advice.rates.rate_of`.
        trust: whether a task of somebody's own may be made, to ask it which way its metric is better.

    Raises:
        InputError: a run has no such metric, or has not reached the target.
    """
    first = runs[0]
    if target is None:
        samples, reached = [float(run.outcome.samples) for run in runs], f"where {first.path} came at its end"
    else:
        goal = _goal(first, *target, trust=trust)
        samples, reached = [_samples_to(run, goal) for run in runs], str(goal)
    pairs = list(zip(runs, samples, strict=True))
    found = [
        _together([_branches(*pair) for pair in pairs], random),
        _together([_noise(*pair) for pair in pairs], random),
    ]
    said = sorted((each for each in found if each is not None), key=lambda each: not each[0].known)
    took = of_values(samples, random) if len(set(samples)) > 1 else np.full(1 + DRAWS, samples[0])
    criticals = tuple(critical for critical, _ in said)
    base = Evidence(
        source=criticals[0].source if said else "noise scale",
        target=reached,
        cost=None,
        limits=(first.batch / FARTHEST, first.batch * FARTHEST),
        batches=(first.batch,),
        train_samples=first.train_samples,
        rate=rate_of(first.recipe, first.batch, first.peak_lr, first.outcome.samples, law),
        criticals=criticals,
        reasons=(_took(runs, took, target is not None), *(c.words for c in criticals[:1]), *disagreements(criticals)),
        missing="the noise scale was not measured: train with noise_scale={every_steps: 10}, or run disttrain branch",
    )
    if not said:
        return base
    used, draws = said[0]
    if draws is None:
        missing = f"{used.words}; an interval without an upper end gives no cost"
        return replace(base, missing=missing, narrower=(_longer(first, used),))
    note = guide_only(first.recipe) if used.source == "noise scale" else ""
    return replace(
        base,
        cost=Hyperbola.through(first.batch, took, draws),
        reasons=(*base.reasons, *([f"the noise scale is a guide only: {note}"] if note else [])),
        missing="",
        narrower=tuple(_narrower(first, used, samples[0])),
    )


def _took(runs: Sequence[TrainedRun], samples: Draws, goal: bool) -> str:
    batch, whose = runs[0].batch, f"{runs[0].path}" if len(runs) == 1 else f"{len(runs)} runs such as {runs[0].path}"
    took, seeds = figure(samples), "it is one run, so how runs scatter over seeds is in no interval below"
    if len(runs) > 1:
        seeds = "they end after equally many samples, so how they scatter is in no interval below"
    if took.low == took.high or took.low is None:
        return f"{whose} took {number(took.value)} samples, {number(took.value / batch)} updates of {batch:,}; {seeds}"
    return f"{whose} took {number(took.value)} ({number(took.low)} to {number(took.high)}) samples of batch {batch:,}"


def _together(found: Sequence[Critical | None], random: np.random.Generator) -> tuple[Critical, Draws | None] | None:
    """The geometric mean of what the runs say, of those that do; None: none says anything."""
    given = [critical for critical in found if critical is not None]
    known = [(c, drawn(c.value, c.low, c.high, random)) for c in given if c.known and c.value and c.high]
    if not known:
        return (given[0], None) if given else None
    draws: Draws = np.exp(np.mean([np.log(each) for _, each in known], axis=0))
    if len(known) == 1:
        return known[0][0], draws
    mean, source = figure(draws), known[0][0].source
    words = f"{source} {number(mean.value)} ({number(mean.low)} to {number(mean.high)}), the mean of {len(known)} runs"
    return Critical(source, mean.value, mean.low or 0.0, mean.high, words), draws


def _goal(run: TrainedRun, metric: str, value: float, *, trust: bool) -> Goal:
    names = dict.fromkeys(
        name for reading in run.outcome.readings if reading.split == "validation" for name in reading.metrics
    )
    if not names:
        raise InputError(f"{run.path} has no validation set, so --target says nothing of it: leave it out")
    if metric not in names:
        raise InputError(f"--target: the run has no validation {metric}; there are {', '.join(names)}")
    if metric == "loss":
        return Goal(metric, value, higher=False)
    from disttrain.tasks.make import make_task

    return Goal(metric, value, make_task(saved_recipe(run.path, trust=trust)).higher_is_better(metric))


def _samples_to(run: TrainedRun, goal: Goal) -> float:
    curve = run.outcome.curve("validation", goal.metric)
    samples = reached_at(curve, goal)
    if samples is None:
        best = (max if goal.higher else min)(value for _, value in curve)
        raise InputError(
            f"{run.path} has not reached {goal} (its best of {len(curve)} evaluations is {best:.5g}, and two of three have to be "
            "there): give an easier --target"
        )
    return samples


def _noise(run: TrainedRun, samples: float) -> Critical | None:
    """By the last training line until then."""
    lines = [line for line in run.lines if "noise_scale_low" in line and line["samples"] <= samples]
    if not lines:
        return None
    line = lines[-1]
    value, low, high = line.get("noise_scale"), float(line["noise_scale_low"]), line.get("noise_scale_high")
    at = f"at update {line['step']:,}"
    if value is None or high is None or low <= 0.0:
        known = f"noise scale at least {number(low)}" if low > 0.0 else "noise scale not known"
        return Critical("noise scale", value, low, None, f"{known} {at}: {line.get('noise_scale_reason', '')}")
    words = f"noise scale {number(value)} ({number(low)} to {number(high)}) {at}"
    return Critical("noise scale", value, low, high, words)


def _branches(run: TrainedRun, samples: float) -> Critical | None:
    """By the branches from the last checkpoint until then, or from the first after it.

    Raises:
        InputError: the file is not what ``disttrain branch`` writes.
    """
    path = run.path / "branches" / RESULTS
    if not path.is_file():
        return None
    try:
        points: Sequence[Any] = sorted(json.loads(path.read_text(encoding="utf-8"))["points"], key=lambda p: p["start"])
        point = ([p for p in points if p["start"] <= samples] or points[:1])[-1]
        found, step = point["crossing"], int(point["step"])
        value, high, low = found["batch"], found["high"], float(found["low"] or 0.0)
        where = str(found["where"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        raise InputError(
            f"{path}: cannot be read as what disttrain branch writes: run that again, or move it away"
        ) from None
    spoken = f"{number(value)} ({number(low)} to {'?' if high is None else number(high)})" if value else "not known"
    words = f"branches from update {step:,}: critical batch {spoken}, by their margin and their law of the rate"
    at_an_end = where != "between" or high is None or low <= run.batch
    return Critical("branches", value, low, None if at_an_end else high, words)


def _narrower(run: TrainedRun, used: Critical, samples: float) -> list[str]:
    """What makes the samples at the ends of the batches more certain."""
    assert used.high is not None
    batch, far = run.batch, run.batch * FARTHEST
    ends = [(1 + far / c) / (1 + batch / c) for c in (used.low, used.high)]
    half = (ends[0] - ends[1]) / (ends[0] + ends[1])
    study = f"a study at {', '.join(str(b) for b in _study_batches(run, used))}: it trains to the target, over several seeds"
    if half <= WITHIN:
        return [study]
    if used.source == "branches":
        return ["more --repeats of the branches", study]
    every = run.recipe.noise_scale.every_steps if run.recipe.noise_scale is not None else 1
    readings = samples / run.batch / every
    more = readings * ((half / WITHIN) ** 2 - 1)
    return [
        f"another {number(max(more, 1.0))} measured updates (noise_scale.every_steps is {every}): samples at batch {far:,.0f} "
        f"are uncertain by {half:.0%} for the noise scale, and would be by {WITHIN:.0%}",
        study,
    ]


def _study_batches(run: TrainedRun, used: Critical) -> list[int]:
    """Three on both sides of the critical batch, as far as powers of 2 from the run's own go."""
    assert used.value is not None
    middle = round(math.log2(used.value / run.batch))
    batches = {max(round(run.batch * 2.0**k), 1) for k in (middle - 2, middle, middle + 2)}
    return sorted(b for b in batches if b <= run.train_samples)


def _longer(run: TrainedRun, noise: Critical) -> str:
    every = run.recipe.noise_scale.every_steps if run.recipe.noise_scale is not None else 1
    said = f"more measured updates ({noise.words})"
    return f"{said}: a smaller noise_scale.every_steps than {every}" if every > 1 else f"{said}: a longer run"
