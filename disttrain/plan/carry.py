"""What of the optimizer follows the batch, by the rule that the recipe names in ``optimizer.lr_scaling``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from disttrain import schedules
from disttrain.config import Recipe
from disttrain.config.sections.carry import LEFT, Carry
from disttrain.errors import InputError
from disttrain.plan.schedule import batch_factor


class Change(NamedTuple):
    """An argument of the optimizer, at the reference batch and here, and the reason."""

    key: str
    before: Any
    after: Any
    why: str


@dataclass(frozen=True, slots=True)
class Carried:
    """The optimizer's numbers at this batch.

    Attributes:
        lr: the peak learning rate.
        arguments: of the optimizer, in the place of the recipe's.
        decay_factor: what every weight decay of the recipe is times.
        changes: the same, one by one, with reasons; the learning rate is not among them.
        why: where ``lr`` comes from.
    """

    lr: float
    arguments: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    decay_factor: float = 1.0
    changes: tuple[Change, ...] = ()
    why: str = "optimizer.lr; no reference_batch, so it is taken as it is"


def carried(recipe: Recipe, global_batch: int, samples: int) -> Carried:
    """By the recipe's rule.

    Args:
        samples: length of the run.

    Raises:
        InputError: the rule does not reach to this batch, or does not go with the rest of the recipe.
    """
    section = recipe.optimizer
    reference = section.reference_batch
    if reference is None:
        return Carried(section.lr)
    if section.lr_scaling == "carry":
        return _carry(recipe, global_batch, samples)
    factor = batch_factor(recipe, global_batch)
    lr = section.lr * schedules.SCALING_RULES[section.lr_scaling](factor)
    why = f"{section.lr:g} at batch {reference}, {section.lr_scaling} scaling over {factor:g} x the batch"
    return _sde(recipe, factor, why) if section.lr_scaling == "sde" else Carried(lr, why=why)


def _sde(recipe: Recipe, factor: float, why: str) -> Carried:
    given = recipe.optimizer.model_dump(include={"betas", "eps"})
    try:
        scaled = schedules.scale_adam(factor, lr=recipe.optimizer.lr, **given)
    except ValueError as error:
        raise InputError(f"optimizer.lr_scaling sde: {error}") from None
    betas = Change("betas", given["betas"], scaled.betas, f"1 - beta times {factor:g}")
    eps = Change("eps", given["eps"], scaled.eps, f"over the root of {factor:g}")
    return Carried(scaled.lr, {"betas": scaled.betas, "eps": scaled.eps}, changes=(betas, eps), why=why)


class _Laws(NamedTuple):
    """Of one optimizer."""

    rate: Callable[[float], float]
    up_to_noise: Callable[[float, float, float], float]
    """The same with a peak: of batch, reference batch and noise scale."""
    adds_up: str | None = None
    """The mean that is a sum, ``m = beta m + g``, which makes an update ``1 / (1 - beta)`` times as large."""


_CARRIED = {"betas", "momentum", "alpha", "eps"}


def _laws(section: Any) -> _Laws:
    rate = schedules.SCALING_RULES[section.law]
    if section.name == "sgd":
        return _Laws(rate, schedules.saturating_scaling, "momentum")
    adds_up = {"rmsprop": "momentum", "novograd": "betas"}.get(section.name)
    means = getattr(section, "grad_averaging", False)
    return _Laws(rate, schedules.surge_scaling, None if means else adds_up)


def _carry(recipe: Recipe, batch: int, samples: int) -> Carried:
    section: Any = recipe.optimizer
    carry, laws, left = section.carry or Carry(), _laws(section), LEFT[section.name]
    _check(recipe, carry)
    factor, longer = batch_factor(recipe, batch), samples / (carry.reference_samples or samples)
    share = factor / longer
    given = section.model_dump(include=_CARRIED)
    rate, why = _rate(section, carry, laws, batch, longer)
    arguments: dict[str, Any] = {}
    changes, summed, decay = [], 1.0, 1.0
    for key in [key for key in given if any(_forgets(key, carry))]:
        arguments[key] = _forget(given[key], _forgets(key, carry), share)
        changes.append(Change(key, given[key], arguments[key], _KEPT.format("the half-life") + _of_run(longer)))
    if laws.adds_up in arguments:
        before, after = (_first(values[laws.adds_up]) for values in (given, arguments))
        summed = (1.0 - after) / (1.0 - before)
        why += f", x {summed:.4g}, because an update adds up fewer gradients" if summed != 1.0 else ""
    if "eps" in given and carry.eps is not False and "eps" not in left:
        arguments["eps"] = given["eps"] / math.sqrt(factor)
        changes.append(
            Change("eps", given["eps"], arguments["eps"], "as the noise beside it: by the root of the batch")
        )
    if carry.weight_decay is not False and "weight_decay" not in left:
        decay = schedules.keep_timescale(1.0, share, rate)
    if section.weight_decay:
        reason = left.get("weight_decay", _KEPT.format("the time over which weights forget") + _of_run(longer))
        reason = "carry.weight_decay: false" if carry.weight_decay is False else reason
        changes.append(Change("weight_decay", section.weight_decay, section.weight_decay * decay, reason))
    why = f"{section.lr:g} at batch {section.reference_batch}, {why}"
    return Carried(section.lr * rate * summed, arguments, decay, tuple(changes), why)


_KEPT = "{} in samples is kept"


def _of_run(longer: float) -> str:
    return f", in a run {longer:.4g} x as long" if longer != 1.0 else ""


def _rate(section: Any, carry: Carry, laws: _Laws, batch: int, longer: float) -> tuple[float, str]:
    """The factor of the rate of an update that is a mean, and why."""
    if not carry.rate:
        return 1.0, "carry.rate: false"
    reference = section.reference_batch
    if carry.noise_batch is None:
        rate, why = laws.rate(batch / reference), f"carried to {batch / reference:g} x the batch"
    else:
        rate = laws.up_to_noise(batch, reference, carry.noise_batch)
        why = f"carried to {batch / reference:g} x the batch at a noise scale of {carry.noise_batch:,}"
    return rate / math.sqrt(longer), why + _of_run(longer)


def _forgets(key: str, carry: Carry) -> tuple[bool, ...]:
    """Which of the decays of an argument are carried; none if it has none."""
    return {
        "momentum": (carry.momentum,),
        "alpha": (carry.second_moment,),
        "betas": (carry.momentum, carry.second_moment),
    }.get(key, ())


def _forget(value: Any, which: tuple[bool, ...], share: float) -> Any:
    if not isinstance(value, tuple):
        return schedules.keep_half_life(value, share)
    pairs = zip(value, which, strict=True)
    return tuple(schedules.keep_half_life(beta, share) if wanted else beta for beta, wanted in pairs)


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, tuple) else value)


def _check(recipe: Recipe, carry: Carry) -> None:
    """What else of the recipe would not be the same at another batch.

    Raises:
        InputError: naming the key.
    """
    schedule, updates = recipe.schedule, {"schedule.warmup": recipe.schedule.warmup}
    updates |= {f"average.{key}": getattr(recipe.average, key, None) for key in ("half_life", "start", "every")}
    why = {
        "batch.growth and batch.adaptive, under which there is no one batch": recipe.batch.varies,
        "schedule.regime_adaptation, which keeps the number of updates": schedule.regime_adaptation,
        "schedule.decay of kind one_cycle, which sets the momentum": carry.momentum
        and schedule.decay.kind == "one_cycle",
        **{
            f"{key} in updates: give epochs or samples": length is not None and length.updates is not None
            for key, length in updates.items()
        },
    }
    if found := [text for text, holds in why.items() if holds]:
        raise InputError(f"optimizer.lr_scaling: carry keeps what it can in samples; it does not go with {found[0]}")
