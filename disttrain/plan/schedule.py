"""The learning rate of a recipe as one function of samples seen."""

from __future__ import annotations

from collections.abc import Callable

from disttrain import schedules
from disttrain.config import Recipe
from disttrain.config.sections.schedules import Wsd
from disttrain.errors import InputError
from disttrain.plan.lengths import EpochLength
from disttrain.schedules import Schedule


def batch_factor(recipe: Recipe, global_batch: int) -> float:
    """The global batch over the reference batch; 1 without one."""
    reference = recipe.optimizer.reference_batch
    return 1.0 if reference is None else global_batch / reference


def warmup_samples(recipe: Recipe, epoch: EpochLength) -> int:
    """Length of the warmup in samples; 0 without one. LEGW (You et al. 2019, arXiv:1901.08256) makes it as many times
    longer as the batch is larger."""
    warmup = recipe.schedule.warmup
    if warmup is None:
        return 0
    factor = batch_factor(recipe, epoch.batch) if recipe.optimizer.lr_scaling == "legw" else 1.0
    return round(epoch.in_samples(warmup) * factor)


def warmed_up(recipe: Recipe, peak: float, samples: int, decay: Schedule) -> Schedule:
    """The warmup, then ``decay``, which counts its samples from the warmup's end."""
    warmup = recipe.schedule.warmup
    if warmup is None:
        return decay
    match warmup.kind:
        case "linear":
            ramp = schedules.linear(warmup.start * peak, peak, samples)
        case "exponential":
            ramp = schedules.exponential(warmup.start * peak, peak, samples)
        case "gradual":
            ramp = schedules.linear(recipe.optimizer.lr, peak, samples)
    return schedules.join([ramp, decay], boundaries=[samples])


def decay_schedule(recipe: Recipe, peak: float, start: int, total: int, epoch: EpochLength) -> Schedule:
    """The learning rate from the end of the warmup, at ``start`` samples, on; it counts its samples from there.

    A decay without a length of its own lasts until ``total``. Steps and milestones are counted from the start of the
    run, as papers state them.

    Raises:
        InputError: the decay of wsd is longer than what is left.
    """
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
        case "wsd":
            if (length := cooldown(decay, total, epoch)) > rest:
                raise InputError(
                    f"schedule.decay: a decay of {length:,} samples does not fit into the {rest:,} that the run of {total:,} has "
                    "after its warmup: give a smaller share or length"
                )
            return schedules.wsd(peak, decay.end * peak, rest, length, decay.shape)
        case "step":
            return _from(start, schedules.step(peak, epoch.in_samples(decay.every), decay.gamma))
        case "multistep":
            return _from(start, schedules.multi_step(peak, milestone_samples(decay.milestones, epoch), decay.gamma))
        case "cosine_restarts":
            return schedules.cosine_restarts(peak, decay.end * peak, epoch.in_samples(decay.period), decay.multiplier)
        case "triangular":
            return schedules.triangular(decay.low * peak, peak, epoch.in_samples(decay.half_cycle))
        case "triangular2":
            return schedules.triangular2(decay.low * peak, peak, epoch.in_samples(decay.half_cycle))
        case "one_cycle":
            return one_cycle(recipe, peak, total).lr


def cooldown(decay: Wsd, total: int, epoch: EpochLength) -> int:
    """Samples of the decay at the end of a run of ``total`` samples; updates are its last ones."""
    if decay.length is None:
        return round(decay.share * total)
    if decay.length.updates is None:
        return epoch.in_samples(decay.length)
    return total - epoch.samples_after(max(epoch.updates_after(total) - decay.length.updates, 0))


def one_cycle(recipe: Recipe, peak: float, total: int) -> schedules.OneCycle:
    """Learning rate and momentum of ``schedule.decay`` of kind one_cycle."""
    decay = recipe.schedule.decay
    assert decay.kind == "one_cycle"
    return schedules.one_cycle(
        peak,
        total,
        rise=decay.rise,
        start=decay.start * peak,
        end=decay.end * peak,
        momentum_high=decay.momentum_high,
        momentum_low=decay.momentum_low,
    )


def milestone_samples(milestones: object, epoch: EpochLength) -> list[int]:
    """Milestones given in epochs, samples or updates, in samples."""
    to_samples: dict[str, Callable[[float], int]] = {
        "epochs": lambda e: round(e * epoch.stretch * epoch.samples),
        "samples": lambda s: round(s * epoch.stretch),
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
