"""The recipe of a branch: that of the run at another batch, everything else the same as a function of the samples seen."""

from __future__ import annotations

from typing import Any

from disttrain.config import Recipe
from disttrain.config.reading.load import check_recipe
from disttrain.errors import InputError
from disttrain.methods.model import facts_of
from disttrain.plan.lengths import EpochLength
from disttrain.plan.plan import StepPlan, resolve_plan
from disttrain.schedules import SCALING_RULES
from disttrain.tasks.make import make_task, stated_sizes

UNTIL = "disttrain.study.until:Until"
_NO_END = ("constant", "step", "multistep", "cosine_restarts", "triangular", "triangular2")
"""Decays that do not know how long the run is."""


def law_of(recipe: Recipe, law: str) -> str:
    """The rate's law: ``auto`` is the optimizer's own.

    Raises:
        InputError: the optimizer is somebody's own, and ``auto`` knows nothing of it.
    """
    if law != "auto":
        return law
    if (own := recipe.optimizer.law) is None:
        raise InputError(
            f"the optimizer is {recipe.optimizer.name}, whose law is yours to say: --law sqrt, linear or none"
        )
    return own


def plan_of(recipe: Recipe) -> StepPlan:
    """The run's plan, on one rank: of its lengths no other number depends on the ranks.

    Raises:
        InputError: the run has no one batch that could be multiplied, or its data is not as the recipe says.
    """
    batch, said = recipe.batch, ""
    if batch.global_ is None:
        said = "batch.per_rank, with which the batch follows the ranks"
    elif batch.growth is not None or batch.adaptive is not None:
        said = "a batch that changes during the run"
    elif batch.last != "keep":
        said = "batch.last: drop, which leaves out other samples at another batch"
    elif recipe.stages:
        said = "stages, each with an optimizer of its own"
    elif recipe.optimizer.lr_scaling == "adascale":
        said = "optimizer.lr_scaling: adascale, which sets the rate by what it measures at this batch"
    if said:
        raise InputError(f"the run has {said}: branches at multiples of one batch say nothing of it")
    task, sizes = make_task(recipe), stated_sizes(recipe)
    found = facts_of(recipe, task)
    return resolve_plan(recipe, sizes.train, sizes.test, 1, found, validation_samples=sizes.validation)


def branch_recipe(recipe: Recipe, plan: StepPlan, factor: int, law: str, repeat: int, start: int, end: int) -> Recipe:
    """The recipe of the branch at ``factor`` times the batch, from ``start`` to ``end`` samples.

    Lengths in updates become the samples that they are at the run's own batch; ``reference_batch`` grows with the batch, so that
    whatever follows from the two (the peak of the rate, a warmup, betas) stays the run's, and the rate changes by ``law`` alone.
    The order of the samples is that of a seed which all branches of a ``repeat`` share.

    Raises:
        InputError: the run is over before ``end``, and its schedule is made for its length.
    """
    given = _in_samples(recipe.model_dump(by_alias=True), plan.epoch)
    assert recipe.batch.global_ is not None
    optimizer: dict[str, Any] = {**given["optimizer"], "lr": recipe.optimizer.lr * SCALING_RULES[law](factor)}
    if recipe.optimizer.reference_batch is not None:
        optimizer["reference_batch"] = recipe.optimizer.reference_batch * factor
    if end > plan.total_samples and recipe.schedule.decay.kind not in _NO_END:
        left = max(plan.total_samples - start, 0)
        raise InputError(
            f"the checkpoint after {start:,} samples leaves {left:,} of the run's {plan.total_samples:,}, and "
            f"branches take {end - start:,}: say a shorter --length, or branch from an earlier checkpoint with --at "
            "(checkpoint.every_steps and keep say which there are)"
        )
    total = max(end, plan.total_samples)
    validates = plan.validation_samples > 0
    changed: dict[str, Any] = {
        "optimizer": optimizer,
        "batch": {**given["batch"], "global": recipe.batch.global_ * factor},
        **({} if total == plan.total_samples else {"epochs": None, "samples": _unstretched(total, plan.epoch)}),
        # Of what validates, once, at the end: the test set is never looked at.
        "evaluate": {
            "batch": recipe.evaluated_at_once,
            "train": False,
            "test": False,
            "samples": 10**15,
        }
        if validates
        else None,
        "early_stopping": None,
        "start_from": None,
        "callbacks": [{"name": UNTIL, "samples": end}],
        "checkpoint": {"keep": 1, "best": False},
        "log": {"every_steps": 50 if validates else 1, "sinks": []},
        "seed": (recipe.seed + 1 + repeat) % 2**63,
    }
    return check_recipe({**given, **changed})


def _in_samples(section: Any, epoch: EpochLength) -> Any:
    """The recipe's data with every length that is in updates in samples."""
    if isinstance(section, list):
        return [_in_samples(each, epoch) for each in section]
    if not isinstance(section, dict):
        return section
    found = {key: _in_samples(value, epoch) for key, value in section.items()}
    updates = section.get("updates")
    if updates is None or "samples" not in section:
        return found
    each = updates if isinstance(updates, list) else [updates]
    samples = [_unstretched(epoch.samples_after(count), epoch) for count in each]
    return {**found, "updates": None, "samples": samples if isinstance(updates, list) else samples[0]}


def _unstretched(samples: int, epoch: EpochLength) -> int:
    """What a recipe has to say for so many samples, where regime adaptation makes its lengths longer."""
    return round(samples / epoch.stretch)
