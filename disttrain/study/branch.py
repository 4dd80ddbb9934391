"""The critical batch by experiment: from a run's checkpoint, short trainings at multiples of its batch.

Merrill et al. 2025 (arXiv:2505.23971): the largest batch whose loss, after the same samples and with the rate moved by a law, is
within a margin of the loss at the run's own batch. Every branch goes on with all of the run's state. Branches are repeated
with other orders of the samples; those of one repeat share theirs, and are compared with the branch at the run's own batch
among them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from disttrain.checkpoint import run_lock, verify_checkpoint
from disttrain.checkpoint.format import checkpoints_directory
from disttrain.config import saved_recipe
from disttrain.errors import InputError, as_input
from disttrain.plan.plan import StepPlan
from disttrain.rundir.rundir import METRICS, check_place, replace_file, write_recipe
from disttrain.study.asked import check_asked
from disttrain.study.branch_points import Point, find_points, length_of, parse_at
from disttrain.study.branch_recipe import branch_recipe, law_of, plan_of
from disttrain.study.branch_settings import SETTINGS, check_out, identity
from disttrain.study.crossing import Crossing, crossing
from disttrain.study.pool import Pool
from disttrain.study.trials import Outcome, Trial
from disttrain.telemetry.jsonl import read_records

LAST = 0.25
"""Share of a branch over which the training loss is averaged, where nothing validates."""
BUSY = "is running branches there; wait for it, stop it, or choose another --out"
Said = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a run.

    Attributes:
        factors: multiples of its batch, increasing and above 1.
        at: ``newest``, ``best``, ``all``, or updates, comma-separated: the checkpoints.
        length: of a branch: ``samples=N``, ``0.1epochs``, ``500updates`` of the run's batch; None: a twentieth of the run.
        law: of the rate; see :func:`disttrain.study.branch_recipe.law_of`.
        margin: how much worse a loss still counts as no worse, in the loss's own unit.
        repeats: of each branch.
        ranks, engine, jobs: how they are run; see :class:`disttrain.study.pool.Pool`.
    """

    factors: tuple[int, ...] = (2, 4, 8)
    at: str = "newest"
    length: str | None = None
    law: str = "auto"
    margin: float = 0.01
    repeats: int = 3
    ranks: int = 1
    engine: str = "ddp"
    jobs: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of the branches from one checkpoint.

    Attributes:
        start: samples that the run had seen at ``step``; ``samples``: of each branch.
        batch: the run's.
        split: whose loss is compared: ``validation``, or the last part of ``train`` where nothing validates.
        losses: by multiple (1 for the base), one for each repeat; infinite where it diverged.
        crossing: of the margin.
    """

    step: int
    start: int
    samples: int
    batch: int
    split: str
    factors: tuple[int, ...]
    losses: dict[int, list[float]]
    crossing: Crossing


def branch(
    run_dir: Path, question: Question, out: Path | None = None, *, trust: bool = False, said: Said = lambda line: None
) -> list[Answer]:
    """Run what has not been run yet, and answer for each checkpoint.

    Args:
        out: where the branches live, and are found again; None: ``branches`` in the run directory.
        trust: see :func:`disttrain.config.saved_recipe`.
        said: told of each branch that has ended.

    Raises:
        InputError: nothing was changed; the message says what is in the way.
        StopRequested: on request; the same call goes on.
        DisttrainError: a branch cannot be trained.
    """
    out = run_dir / "branches" if out is None else out
    _check(question)
    which = parse_at(question.at)
    recipe = saved_recipe(run_dir, trust=trust)
    plan, law = plan_of(recipe), law_of(recipe, question.law)
    largest = plan.global_batch * question.factors[-1]
    if largest > plan.train_samples:
        raise InputError(
            f"{question.factors[-1]} times the run's batch of {plan.global_batch} is {largest}, and the train set has "
            f"{plan.train_samples} samples: choose smaller --batches"
        )
    check_place(out, "--out")
    length = length_of(question.length, plan)
    asked = identity(recipe, question, law)
    check_out(out, asked)
    with as_input():
        points = find_points(run_dir, which, length, plan, question.factors[-1])
    trials = {
        (point.step, factor, repeat): Trial(
            branch_recipe(recipe, plan, factor, law, repeat, point.start, point.end),
            out / f"step-{point.step:08d}" / f"{factor}x-{repeat}",
        )
        for point in points
        for repeat in range(question.repeats)
        for factor in (1, *question.factors)
    }
    with as_input(), run_lock(run_dir):  # writes who holds it, and so comes after all that may be refused
        for point in points:
            verify_checkpoint(point.path)  # nobody removes it from here on, and nobody has since it was read
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / SETTINGS, json.dumps(asked, indent=1) + "\n")
        for point in points:
            for (step, _, _), trial in trials.items():
                if step == point.step:
                    _prepare(trial, point)
    with run_lock(out, BUSY), Pool(question.jobs, ranks=question.ranks, engine=question.engine) as pool:
        outcomes = pool.run(list(trials.values()), lambda trial, outcome: _done(trial, outcome, said))
    found = dict(zip(trials, outcomes, strict=True))
    return [_answer(point, question, plan, trials, found) for point in points]


def _check(question: Question) -> None:
    if not question.factors or min(question.factors) < 2 or list(question.factors) != sorted(set(question.factors)):
        given = ",".join(f"{factor}x" for factor in question.factors)
        raise InputError(f"--batches {given}: expected increasing multiples of the run's batch, from 2x on")
    if not (math.isfinite(question.margin) and question.margin >= 0.0):
        raise InputError(f"--margin {question.margin}: expected a difference of losses, 0 or more")
    counts = {name: (getattr(question, name), 1) for name in ("repeats", "ranks", "jobs")}
    check_asked(law=question.law, engine=question.engine, **counts)


def _prepare(trial: Trial, point: Point) -> None:
    """A run directory that stands at the checkpoint; it appears under its name when it is complete."""
    if trial.run_dir.exists():
        return
    start = trial.run_dir.with_name("start") / point.path.name
    if not start.exists():
        _appear(start.parent, lambda making: shutil.copytree(point.path, making / start.name))

    def make(making: Path) -> None:
        shutil.copytree(start, checkpoints_directory(making) / start.name, copy_function=_link)
        write_recipe(making, trial.recipe)

    _appear(trial.run_dir, make)


def _appear(path: Path, make: Callable[[Path], object]) -> None:
    making = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    make(making)
    os.replace(making, path)


def _link(source: str, target: str) -> None:
    """All branches begin with the same files, which nobody changes."""
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def _done(trial: Trial, outcome: Outcome, said: Said) -> None:
    """Of a branch that has ended, what it found is enough."""
    shutil.rmtree(checkpoints_directory(trial.run_dir), ignore_errors=True)
    step, (factor, repeat) = int(trial.run_dir.parent.name.rpartition("-")[2]), trial.run_dir.name.split("-")
    how = "diverged" if outcome.state == "diverged" else "done"
    said(f"update {step}, batch {factor}, repeat {int(repeat) + 1}: {how} after {outcome.updates - step} updates")


def _answer(
    point: Point,
    question: Question,
    plan: StepPlan,
    trials: dict[tuple[int, int, int], Trial],
    outcomes: dict[tuple[int, int, int], Outcome],
) -> Answer:
    split = "validation" if plan.validation_samples else "train"
    losses: dict[int, list[float]] = {}
    for factor in (1, *question.factors):
        keys = [(point.step, factor, repeat) for repeat in range(question.repeats)]
        losses[factor] = [_loss(trials[key], outcomes[key], split, point) for key in keys]
    if not all(math.isfinite(loss) for loss in losses[1]):
        raise InputError(
            f"from update {point.step}, the run's own batch and rate do not lead to a finite loss: there is nothing that larger "
            "batches could be compared with"
        )
    gaps = [[losses[factor][r] - losses[1][r] for factor in question.factors] for r in range(question.repeats)]
    found = crossing(question.factors, gaps, question.margin)
    return Answer(
        point.step, point.start, point.end - point.start, plan.global_batch, split, question.factors, losses, found
    )


def _loss(trial: Trial, outcome: Outcome, split: str, point: Point) -> float:
    """That counts, infinite if it is no number."""
    if outcome.state == "diverged":
        return math.inf
    if split == "validation":
        curve = outcome.curve("validation", "loss")
        loss = curve[-1][1] if curve else math.nan
    else:
        loss = _training_loss(trial.run_dir, point)
    return loss if math.isfinite(loss) else math.inf


def _training_loss(run_dir: Path, point: Point) -> float:
    """The mean over the samples of the last part of a branch."""
    total, count, before = 0.0, 0, point.start
    for line in read_records(run_dir / METRICS):
        if "event" in line or "split" in line:
            continue
        size, before = int(line["samples"]) - before, int(line["samples"])
        if line["samples"] > point.end - LAST * (point.end - point.start):
            loss = line.get("loss")
            total += size * (math.nan if loss is None else float(loss))
            count += size
    return total / count if count else math.nan
