"""``batch.adaptive``, resolved: what the batch may be, and how the learning rate follows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import lcm

from disttrain.config import Recipe
from disttrain.config.sections.base import Section
from disttrain.errors import InputError
from disttrain.nn.facts import ModelFacts
from disttrain.schedules import SCALING_RULES, BatchLimits

FEWEST = 8
"""Readings that a decision needs."""
ONLY_THE_RATE = "betas, momentum and weight decay stay, so they remember more samples at a larger batch"
"""What ``show`` says of a batch that changes."""
DELAY = 4
"""Whole updates between a decision and the first one of the new batch: a change is announced before it comes."""


@dataclass(frozen=True, slots=True)
class AdaptivePlan:
    """A batch that follows the noise scale.

    Attributes:
        limits: what the batch may be.
        law: ``linear``, ``sqrt`` or ``none``.
        why: where that comes from.
    """

    limits: BatchLimits
    law: str
    why: str

    @property
    def rate(self) -> Callable[[float], float]:
        """The factor of the learning rate where the batch is so many times ``batch.global``."""
        return SCALING_RULES[self.law]


def resolve_adaptive(recipe: Recipe, model: ModelFacts, train_samples: int) -> AdaptivePlan | None:
    """From the recipe's ``batch.adaptive``; None without it.

    Raises:
        InputError: something else in the recipe, or the numbers, do not go with it.
    """
    adaptive, least, batch = recipe.batch.adaptive, recipe.batch.least, recipe.batch.global_
    if adaptive is None or least is None or batch is None:
        return None
    for problem in _problems(recipe, model):
        raise InputError(f"batch.adaptive: {problem}")
    assert recipe.noise_scale is not None
    assert recipe.noise_scale.slice is not None
    unit = lcm(model.ghost_size, recipe.noise_scale.slice)
    for key, value in (("min", least), ("global", batch), ("max", adaptive.max)):
        if value % unit:
            below = max(value // unit * unit, unit)
            raise InputError(
                f"batch.adaptive: {key} is {value}, and batches are multiples of {unit} (noise_scale.slice and whole ghosts): "
                f"choose {below} or {below + unit}"
            )
    if adaptive.max > train_samples:
        raise InputError(
            f"batch.adaptive.max is {adaptive.max} samples, but the train set has only {train_samples}: choose one of at most "
            f"{train_samples // unit * unit}"
        )
    limits = BatchLimits(least, adaptive.max, unit, adaptive.factor)
    if adaptive.policy == "noise_scale" and adaptive.shrink_below * limits.largest_step > adaptive.grow_above * (
        1 + 1e-9
    ):
        raise InputError(
            f"batch.adaptive: batches are multiples of {unit} (noise_scale.slice and whole ghosts), so one of {least} grows to "
            f"{least + unit} and could shrink by the same reading: expected grow_above of at least "
            f"{adaptive.shrink_below * limits.largest_step:g}, a smaller shrink_below or a larger min"
        )
    return AdaptivePlan(limits, *_law(recipe))


def explain_adaptive(recipe: Recipe, plan: AdaptivePlan | None) -> Iterator[tuple[str, str, str]]:
    """Lines for ``disttrain show``."""
    adaptive = recipe.batch.adaptive
    if plan is None or adaptive is None:
        return
    limits = plan.limits
    if adaptive.policy == "noise_scale":
        how = (
            f"grows where the noise scale surely ({adaptive.level:.0%}) is above {adaptive.grow_above:g} x the batch, shrinks "
            f"where it surely is below {adaptive.shrink_below:g} x"
        )
    else:
        how = f"grows where trace / batch > {adaptive.theta**2:g} x |G|^2, as far as that asks for"
    span = f"{limits.least:,} to {limits.most:,}, by {limits.largest_step:g} x at most"
    yield "adaptive batch", span, f"{how}; multiples of {limits.unit}"
    yield (
        "decided",
        f"every {adaptive.every:,} updates",
        f"takes effect {DELAY + 1} updates later, on any cluster; updates and evaluations are then others than planned here",
    )
    yield "rate and batch", plan.law, f"{plan.why}; {ONLY_THE_RATE}"


def _law(recipe: Recipe) -> tuple[str, str]:
    assert recipe.batch.adaptive is not None
    law, name = recipe.batch.adaptive.law, recipe.optimizer.name
    if law != "auto":
        return law, "batch.adaptive.law"
    if (own := recipe.optimizer.law) is None:
        raise InputError(
            f"batch.adaptive.law: how the learning rate of {name} follows the batch is not known; name a law"
        )
    by = {"linear": "what the batch is", "sqrt": "the root of what the batch is"}[own]
    return own, f"the learning rate is multiplied by {by}, {name}'s law"


def _problems(recipe: Recipe, model: ModelFacts) -> Iterator[str]:
    """What does not go with it, in words."""
    adaptive, measured = recipe.batch.adaptive, recipe.noise_scale
    assert adaptive is not None
    if measured is None or measured.slice is None:
        yield (
            "decides by the noise scale, which has to be the same on any cluster: add noise_scale: {every_steps: 1, slice: N}, "
            "where N divides the batch"
        )
    elif adaptive.every < FEWEST * measured.every_steps:
        yield (
            f"every is {adaptive.every}, and a decision needs {FEWEST} readings, one every {measured.every_steps} updates: "
            f"expected at least {FEWEST * measured.every_steps}"
        )
    if recipe.optimizer.lr_scaling == "adascale":
        yield "optimizer.lr_scaling: adascale follows the noise scale by itself; leave one of the two out"
    if recipe.stages:
        yield "stages measure the noise scale anew and begin where a plan says; leave one of the two out"
    if model.sync_norm:
        yield "batch_norm.kind sync cannot accumulate, which a batch that grows does: use batch_norm.kind ghost"
    if found := list(_in_updates(recipe)):
        yield (
            f"{', '.join(found)}: given in updates, and how many updates there are follows from what is measured; give epochs or "
            "samples"
        )


def _in_updates(section: Section, prefix: str = "") -> Iterator[str]:
    """Keys of lengths in updates."""
    for name, value in section:
        if name == "updates" and value is not None:
            yield f"{prefix}updates"
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Section):
                yield from _in_updates(inner, f"{prefix}{name}.")
