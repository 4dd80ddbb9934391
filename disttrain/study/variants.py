"""The recipes of a study's trials: one recipe at other batches, rates and seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from disttrain.config import Recipe
from disttrain.config.reading.load import check_recipe
from disttrain.config.sections.hooks import CallbackEntry
from disttrain.config.sections.recipe import CheckpointSettings, Evaluate
from disttrain.errors import InputError
from disttrain.methods.model import facts_of
from disttrain.plan.carry import carried
from disttrain.plan.plan import StepPlan, resolve_plan
from disttrain.study.goal import Goal
from disttrain.study.settings import RUNS, Settings
from disttrain.study.trials import Trial
from disttrain.study.watch import NAME
from disttrain.tasks.base import unknown_metric
from disttrain.tasks.make import make_task, stated_sizes

Kind = Literal["own", "search", "result"]
FEWEST = 3
"""Evaluations with which a run can have reached a target."""
CHECKPOINTS = 8
"""Of a trial, so that one that was killed loses an eighth at most."""


@dataclass(frozen=True, slots=True)
class Base:
    """The recipe of a study, and what follows from it.

    Attributes:
        batch: its own global batch.
        length: its own length in samples.
        budget, every: in samples; see :class:`disttrain.study.settings.Settings`.
        higher: whether more of the target's metric is better.
        notes: in words, what a reader has to know.
    """

    recipe: Recipe
    batch: int
    length: int
    budget: int
    every: int
    higher: bool
    notes: tuple[str, ...]

    def peak(self, batch: int, exponent: int = 0) -> float:
        """The learning rate at the top of the schedule."""
        return carried(self.recipe, batch, self.budget).lr * 2.0**exponent

    def trial(
        self,
        place: Path,
        kind: Kind,
        metric: str,
        goal: Goal | None,
        *,
        batch: int,
        exponent: int,
        seed: int,
        most: int,
    ) -> Trial:
        """One training.

        Args:
            kind: ``own``: of the recipe as it is; ``search``: of a rate; ``result``: at the best one, with train metrics, and
                never given less than the recipe's length.
            exponent: the rate is the law's times two to its power.
            most: samples after which it is given up.
        """
        recipe, name = self.recipe, f"{kind}-b{batch}-x{exponent}-s{seed}"
        least = min(self.length, self.budget) if kind == "result" else 0
        watch = {"metric": metric, "higher": self.higher, "least": least, "most": min(most, self.budget)}
        changes = {
            "name": name,
            "batch": recipe.batch.model_copy(update={"global_": batch, "per_rank": None, "accumulation": 1}),
            "optimizer": recipe.optimizer.model_copy(update={"lr": recipe.optimizer.lr * 2.0**exponent}),
            "epochs": None,
            "updates": None,
            "samples": max(self.budget, batch),
            "seed": seed,
            "evaluate": Evaluate(
                samples=self.every, batch=recipe.evaluated_at_once, train=kind == "result", test=False
            ),
            "early_stopping": None,
            "noise_scale": None,  # nobody reads it here, and the seconds to the target are not to have its cost
            "checkpoint": CheckpointSettings(
                every_steps=_steps(self.budget // batch // CHECKPOINTS), keep=1, best=False
            ),
            "callbacks": [
                *recipe.callbacks,
                CallbackEntry(name=NAME, **watch, value=None if goal is None else goal.value),
            ],
            "log": recipe.log.model_copy(update={"sinks": [], "every_steps": _steps(self.every // batch)}),
        }
        return Trial(recipe.model_copy(update=changes), place / RUNS / name)


def make_base(given: Recipe, settings: Settings) -> Base:
    """Read the task's sizes, apply the law, and refuse what no study could be made of.

    Raises:
        InputError: the recipe has no validation set, changes its batch itself, or cannot have one of the batches, or none of its
            runs could ever reach a target.
    """
    task = make_task(given)
    facts, sizes = facts_of(given, task), stated_sizes(given)
    if task.metric_names and settings.metric not in task.metric_names:
        raise unknown_metric(settings.metric, given.task.name, task.metric_names, "--target")
    if not sizes.validation:
        raise InputError(
            "a study looks at a validation set, and this recipe has none: add data.validation={fraction: 0.1}; the test set "
            "is for the end"
        )
    for key in ("growth", "adaptive"):
        if getattr(given.batch, key) is not None:
            raise InputError(f"batch.{key} changes the batch, and so does the study: set batch.{key} to null")
    if given.optimizer.lr_scaling == "adascale":
        raise InputError(
            "optimizer.lr_scaling: adascale counts updates of its own: a study needs another rule, or none"
        )

    def plan(recipe: Recipe, ranks: int = 1) -> StepPlan:
        return resolve_plan(recipe, sizes.train, sizes.test, ranks, facts, validation_samples=sizes.validation)

    own = plan(given)
    recipe = _with_law(given, settings.law, own)
    budget = settings.budget if settings.budget is not None else 4 * own.total_samples
    every = settings.every if settings.every is not None else max(own.total_samples // 40, 1)
    base = Base(
        recipe=recipe,
        batch=own.global_batch,
        length=own.total_samples,
        budget=budget,
        every=every,
        higher=task.higher_is_better(settings.metric),
        notes=() if given.schedule.decay.kind == "constant" else (SCHEDULE,),
    )
    for batch in settings.batches:
        trial = base.trial(Path(), "result", settings.metric, None, batch=batch, exponent=0, seed=0, most=0)
        try:
            _refuse_too_few(plan(trial.recipe, settings.ranks), base)
        except (InputError, ValueError) as error:
            raise InputError(f"--batches {batch}: {error}") from None
    if settings.value is None and budget < base.length // 2:
        raise InputError(
            f"--budget {budget}: without --target the recipe gives one after half of its length, {base.length // 2:,} samples: "
            "give a --target, or a larger --budget"
        )
    return base


def _refuse_too_few(plan: StepPlan, base: Base) -> None:
    """One run has to be evaluated often enough to reach a target at all; see :func:`disttrain.study.goal.reached_at`."""
    seen = list[int]()
    while len(seen) < FEWEST:
        due = (seen[-1] // base.every + 1) * base.every if seen else base.every
        seen.append(plan.epoch.samples_after(plan.epoch.updates_after(due)))
    fit = next((number for number, samples in enumerate(seen, 1) if samples >= base.budget), FEWEST)
    if fit < FEWEST:
        often = max(base.every, plan.global_batch)
        smaller = "a smaller --every" if base.budget > 2 * plan.global_batch else "smaller --batches"
        raise InputError(
            f"evaluated every {often:,} samples (--every, or every update), a run of {base.budget:,} (--budget) has {fit} "
            f"evaluation{'s' * (fit > 1)}, and a target takes {FEWEST}: give a --budget of {seen[-1]:,} or more, or {smaller}"
        )


SCHEDULE = (
    "the learning rate decays over the budget, so a run that reaches the target has not seen the end of its schedule: the "
    "figures say as much of the schedule as of the batch; schedule.decay.kind=constant measures the batch alone"
)


def _with_law(given: Recipe, law: str, own: StepPlan) -> Recipe:
    """The recipe with its rate as a law of the batch: what it says at its own batch stays.

    Raises:
        InputError: the optimizer does not have this law.
    """
    optimizer, batch = given.optimizer, own.global_batch
    if law == "auto":
        # Without a reference the recipe's rule was never used. Of somebody's own optimizer nobody knows; a search comes after.
        stated = optimizer.lr_scaling if optimizer.reference_batch is not None else "none"
        law = stated if stated != "none" else optimizer.law or "sqrt"
    changes: dict[str, Any] = {"reference_batch": optimizer.reference_batch or batch}
    if law != optimizer.lr_scaling:
        changes = {"lr_scaling": law, "lr": own.peak_lr, "reference_batch": batch}
        changes |= {"carry": None} if "carry" in type(optimizer).model_fields else {}
    plain = given.model_dump(by_alias=True)
    return check_recipe({**plain, "optimizer": {**plain["optimizer"], **changes}})


def _steps(wanted: int) -> int:
    """As near to it as a recipe can say."""
    return min(max(wanted, 1), 10**9)
