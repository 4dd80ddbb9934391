"""What a run knows: the samples that it took itself, its noise scale, its branches, and how fast it was."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disttrain.advice.draws import drawn
from disttrain.advice.evidence import Critical, Evidence, Hyperbola, disagreements
from disttrain.advice.rates import rate_of
from disttrain.config import Recipe, load_recipe, saved_recipe
from disttrain.errors import InputError
from disttrain.plan.noise import guide_only
from disttrain.rundir.rundir import METRICS, RECIPE
from disttrain.study.branch_report import RESULTS
from disttrain.study.goal import Goal, reached_at
from disttrain.study.trials import Outcome, read_outcome
from disttrain.study.words import number
from disttrain.telemetry.jsonl import read_records

FARTHEST = 8.0
"""Times the run's batch, up or down, beyond which a single run is not relied upon: the law of its rate may break there."""
WITHIN = 0.1
"""Half-width of the samples' interval, as a part of them, that is asked for when it is to be narrowed."""


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run directory whose run has ended.

    Attributes:
        ranks, batch, peak_lr: of its last start.
        train_samples: of the train set.
        lines: its training lines, all of them.
        speeds: samples per second of the lines since the last start, but for the first.
    """

    path: Path
    recipe: Recipe
    outcome: Outcome
    ranks: int
    batch: int
    peak_lr: float
    train_samples: int
    lines: tuple[Mapping[str, Any], ...]
    speeds: tuple[float, ...]


def read_run(run_dir: Path) -> TrainedRun:
    """Read a run; nothing in the directory is changed, and nothing that its recipe names is run.

    Raises:
        InputError: it holds no run, one that has not ended or whose numbers are not finite, one of another version, or one
            without a single batch.
    """
    if not (run_dir / RECIPE).is_file():
        raise InputError(f"{run_dir} holds no run: {RECIPE} is missing")
    recipe = load_recipe(run_dir / RECIPE)
    if recipe.batch.varies or recipe.stages or recipe.optimizer.lr_scaling == "adascale":
        raise InputError(
            f"{run_dir}: its batch, its stages or adascale's rate change during the run, so it says nothing of one batch: plan "
            "from a run without them"
        )
    records, outcome = read_records(run_dir / METRICS), read_outcome(run_dir)
    if outcome is None:
        raise InputError(f"{run_dir}: its run has not ended: wait for it, or go on with it (train --resume)")
    losses = [reading.metrics.get("loss", 0.0) for reading in outcome.readings]
    if outcome.state == "diverged" or not all(map(math.isfinite, losses)):
        raise InputError(f"{run_dir}: its numbers are not finite, so it came nowhere: plan from a run that did")
    starts = [i for i, record in enumerate(records) if record.get("event") in ("start", "resume")]
    try:
        start = records[starts[-1]]
        ranks, batch, peak = int(start["ranks"]), int(start["global_batch"]), float(start["peak_lr"])
        train_samples = int(_plan(run_dir)["train_samples"])
    except (IndexError, KeyError, TypeError, ValueError):
        raise InputError(
            f"{run_dir}: {METRICS} and environment.jsonl do not say ranks, batch and rate: another version wrote them"
        ) from None
    lines = [_line(record) for record in records if "event" not in record and "split" not in record]
    since = [_line(record) for record in records[starts[-1] :] if "event" not in record and "split" not in record]
    speeds = [line["samples_per_second"] for line in since[1:] if line.get("samples_per_second")]
    return TrainedRun(run_dir, recipe, outcome, ranks, batch, peak, train_samples, tuple(lines), tuple(speeds))


def _line(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: value for key, value in record.items() if isinstance(value, int | float | str)}


def _plan(run_dir: Path) -> Mapping[str, Any]:
    from disttrain.rundir.environment import read_starts

    return read_starts(run_dir)[-1]["plan"]


def evidence(
    run: TrainedRun, target: tuple[str, float] | None, law: str, random: np.random.Generator, *, trust: bool
) -> Evidence:
    """From its branches if they tell, or else from its noise scale.

    Args:
        target: a metric of the validation set and its value; None: where the run came at its end.
        law: of the rate, see :func:`disttrain.advice.rates.rate_of`.
        trust: whether a task of somebody's own may be made, to ask it which way its metric is better.

    Raises:
        InputError: the run has no such metric, or has not reached the target.
    """
    if target is None:
        samples, reached = float(run.outcome.samples), f"where {run.path} came at its end"
    else:
        goal = _goal(run, *target, trust=trust)
        samples, reached = _samples_to(run, goal), str(goal)
    noise = _noise(run, samples)
    branches = _branches(run, samples)
    criticals = [c for c in (branches, noise) if c is not None]
    criticals.sort(key=lambda c: not c.known)  # what is known comes first, branches before the noise scale
    used = criticals[0] if criticals else None
    own = (
        f"{run.path} took {number(samples)} samples, {number(samples / run.batch)} updates of {run.batch:,}, to {reached}"
        if target is not None
        else f"{run.path} took {number(samples)} samples, {number(samples / run.batch)} updates of {run.batch:,}"
    )
    reasons = [own + "; it is one run, so how runs scatter over seeds is in no interval below"]
    cost, missing, narrower = None, "", []
    if used is None:
        missing = "its noise scale was not measured: train with noise_scale={every_steps: 10}, or run disttrain branch"
    elif used.value is None or not used.known or used.high is None:
        missing = f"{used.words}; an interval without an upper end gives no cost"
        narrower = [_longer(run, noise)] if noise is not None else []
    else:
        critical = drawn(used.value, used.low, used.high, random)
        cost = Hyperbola.through(run.batch, samples, critical)
        reasons.append(used.words)
        narrower = _narrower(run, used, samples)
    if used is not None and used.source == "noise scale" and (note := guide_only(run.recipe)):
        reasons.append(f"the noise scale is a guide only: {note}")
    return Evidence(
        source=used.source if used is not None else "noise scale",
        target=reached,
        cost=cost,
        limits=(run.batch / FARTHEST, run.batch * FARTHEST),
        batches=(run.batch,),
        train_samples=run.train_samples,
        rate=rate_of(run.recipe, run.batch, run.peak_lr, run.outcome.samples, law),
        criticals=tuple(criticals),
        reasons=(*reasons, *disagreements(criticals)),
        missing=missing,
        narrower=tuple(narrower),
    )


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
