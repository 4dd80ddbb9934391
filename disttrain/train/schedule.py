"""The learning rate of a recipe as one function of samples seen."""

from __future__ import annotations

from collections.abc import Callable

from disttrain import schedules
from disttrain.config import Recipe
from disttrain.schedules import Schedule
from disttrain.train.lengths import EpochLength


def peak_lr(recipe: Recipe, global_batch: int) -> float:
    """``lr`` at ``reference_batch``, carried to this global batch by ``lr_scaling``."""
    optimizer = recipe.optimizer
    if optimizer.reference_batch is None:
        return optimizer.lr
    rule = schedules.SCALING_RULES[optimizer.lr_scaling]
    return optimizer.lr * rule(global_batch / optimizer.reference_batch)


def warmup_samples(recipe: Recipe, epoch: EpochLength) -> int:
    """Length of the warmup in samples; 0 without one."""
    warmup = recipe.schedule.warmup
    return 0 if warmup is None else epoch.in_samples(warmup)


def lr_schedule(recipe: Recipe, peak: float, total: int, epoch: EpochLength) -> Schedule:
    """Learning rate as a function of samples seen before the update.

    Warmup rises to ``peak``; the decay takes over at its end and, where it has a length of its own, lasts until
    ``total``. Steps and milestones are counted from the start of the run, as papers state them.
    """
    start = warmup_samples(recipe, epoch)
    decay = _decay(recipe, peak, start, total, epoch)
    warmup = recipe.schedule.warmup
    if warmup is None:
        return decay
    ramp = schedules.exponential if warmup.kind == "exponential" else schedules.linear
    return schedules.join([ramp(warmup.start * peak, peak, start), decay], boundaries=[start])


def _decay(recipe: Recipe, peak: float, start: int, total: int, epoch: EpochLength) -> Schedule:
    decay = recipe.schedule.decay
    rest = max(total - start, 0)
    match decay.kind:
        case "constant":
            return schedules.constant(peak)
        case "linear":
            return schedules.linear(peak, decay.end * peak, rest)
        case "cosine":
            return schedules.cosine(peak, decay.end * peak, rest)
        case "polynomial":
            return schedules.polynomial(peak, decay.end * peak, rest, decay.power)
        case "exponential":
            return schedules.exponential(peak, decay.end * peak, rest)
        case "step":
            return _from(start, schedules.step(peak, epoch.in_samples(decay.every), decay.gamma))
        case "multistep":
            return _from(start, schedules.multi_step(peak, milestone_samples(decay.milestones, epoch), decay.gamma))


def milestone_samples(milestones: object, epoch: EpochLength) -> list[int]:
    """Milestones given in epochs, samples or updates, in samples."""
    to_samples: dict[str, Callable[[float], int]] = {
        "epochs": lambda e: round(e * epoch.samples),
        "samples": int,
        "updates": lambda u: epoch.samples_after(int(u)),
    }
    for unit, convert in to_samples.items():
        values = getattr(milestones, unit)
        if values is not None:
            return [convert(value) for value in values]
    return []


def _from(offset: int, schedule: Schedule) -> Schedule:
    """``schedule``, counting from the start of the run although it takes over at ``offset``."""
    return lambda s: schedule(s + offset)
