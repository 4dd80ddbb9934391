"""From a recipe and a number of ranks to every number of a run. Pure: nothing is loaded and nothing is run."""

from __future__ import annotations

from dataclasses import dataclass

from disttrain.config import Recipe
from disttrain.data.shares import share
from disttrain.errors import InputError
from disttrain.schedules import Schedule
from disttrain.train.lengths import EpochLength
from disttrain.train.schedule import lr_schedule, peak_lr, warmup_samples


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A recipe, resolved for one number of ranks. Lengths are in samples unless the name says otherwise.

    Attributes:
        world_size: number of ranks.
        global_batch: samples of one update, over all ranks and micro-batches.
        share: smallest and largest number of samples a rank contributes to a full batch.
        micro_batch: most samples that go through the model at once.
        accumulation: micro-batches of the rank with the largest share.
        train_samples, test_samples: sizes of the two sets.
        epoch: how an epoch is cut into updates.
        total_samples, total_updates: length of the run.
        peak_lr: learning rate at the top of the schedule.
        warmup_samples: length of the warmup.
        lr: learning rate as a function of samples seen before the update.
        evaluate_every: None: never.
    """

    world_size: int
    global_batch: int
    share: tuple[int, int]
    micro_batch: int
    accumulation: int
    train_samples: int
    test_samples: int
    epoch: EpochLength
    total_samples: int
    total_updates: int
    peak_lr: float
    warmup_samples: int
    lr: Schedule
    evaluate_every: int | None


def resolve_plan(recipe: Recipe, train_samples: int, test_samples: int, world_size: int) -> StepPlan:
    """Derive everything.

    Args:
        train_samples, test_samples: sizes of the task's two sets.
        world_size: number of ranks, at least 1.

    Raises:
        InputError: the numbers do not fit together; the message names them.
    """
    if world_size < 1:
        raise InputError(f"world size {world_size}: expected at least 1")
    global_batch, micro_max = _batch(recipe, world_size)
    if global_batch > train_samples:
        raise InputError(
            f"the global batch is {global_batch} samples, but the train set has only {train_samples}: "
            f"choose batch.global <= {train_samples}"
        )
    shares = [hi - lo for lo, hi in (share(global_batch, rank, world_size) for rank in range(world_size))]
    largest = max(shares)
    accumulation = -(-largest // micro_max) if micro_max else 1
    used = train_samples // global_batch * global_batch if recipe.batch.last == "drop" else train_samples
    epoch = EpochLength(used, global_batch)
    total = epoch.in_samples(recipe)
    peak = peak_lr(recipe, global_batch)
    return StepPlan(
        world_size=world_size,
        global_batch=global_batch,
        share=(min(shares), largest),
        micro_batch=-(-largest // accumulation),
        accumulation=accumulation,
        train_samples=train_samples,
        test_samples=test_samples,
        epoch=epoch,
        total_samples=total,
        total_updates=epoch.updates_after(total),
        peak_lr=peak,
        warmup_samples=warmup_samples(recipe, epoch),
        lr=lr_schedule(recipe, peak, total, epoch),
        evaluate_every=max(epoch.in_samples(recipe.evaluate), 1) if recipe.evaluate is not None else None,
    )


def _batch(recipe: Recipe, world_size: int) -> tuple[int, int | None]:
    """The global batch, and the most samples a rank may put through the model at once."""
    batch = recipe.batch
    if batch.per_rank is not None:
        return batch.per_rank * batch.accumulation * world_size, batch.per_rank
    assert batch.global_ is not None
    return batch.global_, batch.per_rank_max
