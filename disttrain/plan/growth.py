"""The global batch of a recipe as one function of samples seen."""

from __future__ import annotations

from collections.abc import Callable

from disttrain import schedules
from disttrain.config import Recipe
from disttrain.config.sections.methods import LateSwitch
from disttrain.errors import InputError
from disttrain.plan.lengths import Duration, EpochLength
from disttrain.schedules import Schedule

BatchSchedule = Callable[[int], int]
_POWERS = {"lr_over_batch": 1.0, "lr_over_sqrt_batch": 0.5}
_FALLING = ("linear", "cosine", "polynomial", "exponential", "wsd", "step", "multistep")


def planned_growth(recipe: Recipe, batch: int, epoch: EpochLength) -> BatchSchedule | None:
    """The global batch where the recipe states its growth; None where it is constant or follows the learning rate.
    An adaptive batch, which nobody knows yet, counts as it begins.

    Raises:
        InputError: a length is in updates that must not be, or a batch is smaller than the one before.
    """
    growth = recipe.batch.growth
    if recipe.batch.adaptive is not None:
        return lambda samples: batch
    if growth is None:
        return None
    if growth.kind == "linear":
        samples = _in_samples(growth, epoch, "batch.growth")
        if growth.end < batch:
            raise InputError(f"batch.growth.end is {growth.end}, smaller than batch.global {batch}; a batch only grows")
        return schedules.linear_batch(batch, growth.end, samples, multiple_of=growth.multiple_of)
    if growth.kind == "stages":
        stages = [(0, batch)]
        for i, stage in enumerate(growth.stages):
            begin = _in_samples(stage, epoch, f"batch.growth.stages[{i}]")
            if begin <= stages[-1][0] or stage.batch < stages[-1][1]:
                raise InputError(
                    f"batch.growth.stages[{i}]: batch {stage.batch} from {begin} samples on follows batch "
                    f"{stages[-1][1]} from {stages[-1][0]} samples on; stages and batches must increase"
                )
            stages.append((begin, stage.batch))
        return schedules.staged_batch(stages)
    if growth.kind == "late":
        return _late(recipe, growth, batch, epoch)
    return None


def _late(recipe: Recipe, late: LateSwitch, batch: int, epoch: EpochLength) -> BatchSchedule:
    if recipe.updates is not None:
        raise InputError(
            "batch.growth.kind late: the batch depends on the length of the run and the length, in updates, on the batch; give "
            "the run's length in epochs or samples"
        )
    if late.batch < batch:
        raise InputError(f"batch.growth.batch is {late.batch}, smaller than batch.global {batch}; a batch only grows")
    total = epoch.in_samples(recipe)
    return schedules.staged_batch([(0, batch), (max(total - round(late.share * total), 1), late.batch)])


def instead_of_decay(
    recipe: Recipe, batch: int, warmup: int, decay: Schedule, most: int
) -> tuple[BatchSchedule, Schedule]:
    """The batch that grows where ``decay`` falls, and what is left for the learning rate.

    Raises:
        InputError: this decay rises too, or the cap is below the batch.
    """
    if recipe.schedule.decay.kind not in _FALLING:
        raise InputError(
            f"batch.growth.kind instead_of_decay goes with schedule.decay.kind {', '.join(_FALLING)}, "
            f"not with {recipe.schedule.decay.kind}"
        )
    if recipe.updates is not None and recipe.schedule.decay.kind not in ("step", "multistep"):
        raise InputError(
            f"batch.growth.kind instead_of_decay with schedule.decay.kind {recipe.schedule.decay.kind}: the batch depends on "
            "the length of the run and the length, in updates, on the batch; give the run's length in epochs or samples"
        )
    if most < batch:
        raise InputError(f"batch.growth.max is {most}, smaller than batch.global {batch}; a batch only grows")
    assert recipe.batch.growth is not None
    assert recipe.batch.growth.kind == "instead_of_decay"
    grown, left = schedules.grow_instead_of_decay(decay, batch, most, _POWERS[recipe.batch.growth.keep])
    return (lambda s: batch if s < warmup else grown(s - warmup)), left


def _in_samples(length: Duration, epoch: EpochLength, where: str) -> int:
    if length.updates is not None:
        raise InputError(f"{where}.updates: a growing batch changes what an update is; give epochs or samples")
    return epoch.in_samples(length)
