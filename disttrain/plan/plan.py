"""From a recipe and a number of ranks to every number of a run. Pure: nothing is loaded and nothing is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from disttrain.config import Recipe
from disttrain.config.sections.optimizers import Muon
from disttrain.data.shares import shares
from disttrain.errors import InputError
from disttrain.nn.facts import ModelFacts
from disttrain.plan.adaptive import AdaptivePlan, resolve_adaptive
from disttrain.plan.carry import Carried, carried
from disttrain.plan.growth import instead_of_decay, planned_growth
from disttrain.plan.lengths import EpochLength
from disttrain.plan.noise import Slices, resolve_slices
from disttrain.plan.schedule import batch_factor, decay_schedule, one_cycle, warmed_up, warmup_samples
from disttrain.plan.stages import StagePlan, resolve_stages, staged
from disttrain.plan.whole_batch import check_whole_batch
from disttrain.schedules import Schedule

PLAIN = ModelFacts()
"""Of a model without ghosts."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A recipe, resolved for one number of ranks. Lengths are in samples unless the name says otherwise.

    Attributes:
        world_size: number of ranks.
        global_batch: samples of one update, over all ranks and micro-batches; the first, where the batch grows.
        batch_at: the global batch after so many samples.
        largest_batch: of the run.
        adaptive: how the batch follows what is measured; None: it is as ``batch_at`` says.
        ghost_size: samples that share batch norm's statistics; 1 without ghost batch norm.
        share: smallest and largest number of samples a rank contributes to a full batch.
        micro_batch: most samples that go through the model at once.
        accumulation: micro-batches of the rank with the largest share.
        slices: the updates that are cut in another way, because the noise scale or the optimizer is of slices.
        train_samples, test_samples, validation_samples: trained on, tested on, and validating; 0: the test set decides.
        epoch: how an epoch is cut into updates.
        total_samples, total_updates: length of the run; an adaptive batch makes another number of updates.
        carried: what of the optimizer follows the batch.
        warmup_samples: length of the warmup.
        stages: which parameters are trained when; a single one where the recipe has none.
        lr: learning rate as a function of samples seen before the update.
        momentum: momentum, or beta1, likewise; None: as the optimizer has it.
        evaluate_every: None: never.
        rank_dependent: in words, what makes the result depend on the number of ranks; empty: nothing does.
    """

    world_size: int
    global_batch: int
    batch_at: Callable[[int], int]
    largest_batch: int
    adaptive: AdaptivePlan | None
    ghost_size: int
    share: tuple[int, int]
    micro_batch: int
    accumulation: int
    slices: Slices
    train_samples: int
    test_samples: int
    validation_samples: int
    epoch: EpochLength
    total_samples: int
    total_updates: int
    carried: Carried
    warmup_samples: int
    stages: tuple[StagePlan, ...]
    lr: Schedule
    momentum: Schedule | None
    evaluate_every: int | None
    rank_dependent: tuple[str, ...]

    @property
    def peak_lr(self) -> float:
        """Learning rate at the top of the schedule."""
        return self.carried.lr

    @property
    def updates_in_words(self) -> str:
        """``1,200``; with an adaptive batch an estimate, and said to be."""
        return f"about {self.total_updates:,}" if self.adaptive else f"{self.total_updates:,}"


def resolve_plan(
    recipe: Recipe,
    train_samples: int,
    test_samples: int,
    world_size: int,
    model: ModelFacts = PLAIN,
    *,
    validation_samples: int = 0,
    most: int | None = None,
) -> StepPlan:
    """Derive everything.

    Args:
        train_samples, test_samples, validation_samples: how many are trained on, tested on, and validate.
        world_size: number of ranks, at least 1.
        model: what the model says of itself.
        most: samples that fit through the model at once, where a run has found that out; the recipe may ask for fewer.

    Raises:
        InputError: the numbers do not fit together; the message names them.
    """
    global_batch, least, micro_max = _batch(recipe, world_size, most)
    _check_sizes(global_batch, train_samples, world_size)
    _check_ghosts(model.ghost_size, least, micro_max, world_size)
    smallest, largest = shares(global_batch, world_size, model.ghost_size)
    pieces, fits = _pieces(largest, model.ghost_size, micro_max, growing=recipe.batch.varies)
    epoch = _epoch(recipe, global_batch, train_samples)
    follows, warmup = carried(recipe, global_batch, epoch.in_samples(recipe)), warmup_samples(recipe, epoch)
    decay, epoch = _decay(recipe, follows.lr, warmup, epoch)
    total = epoch.in_samples(recipe)
    adaptive = resolve_adaptive(recipe, model, train_samples)
    largest_batch = adaptive.limits.most if adaptive else epoch.batch_after(max(total - 1, 0))
    _check_sync(model, smallest, pieces, largest_batch > global_batch, epoch.samples % global_batch, world_size)
    check_whole_batch(recipe, model, largest_batch, micro_max or fits, world_size)
    return StepPlan(
        world_size=world_size,
        global_batch=global_batch,
        batch_at=epoch.batch_after,
        largest_batch=largest_batch,
        adaptive=adaptive,
        ghost_size=model.ghost_size,
        share=(smallest, largest),
        micro_batch=fits,
        accumulation=pieces,
        slices=resolve_slices(recipe, model, least, micro_max, world_size),
        train_samples=train_samples,
        test_samples=test_samples,
        validation_samples=validation_samples,
        epoch=epoch,
        total_samples=total,
        total_updates=epoch.updates_after(total),
        carried=follows,
        warmup_samples=warmup,
        stages=(stages := resolve_stages(recipe, epoch)),
        lr=staged(warmed_up(recipe, follows.lr, warmup, decay), stages),
        momentum=one_cycle(recipe, follows.lr, total).momentum if recipe.schedule.decay.kind == "one_cycle" else None,
        evaluate_every=_evaluate_every(recipe, epoch),
        rank_dependent=(*model.rank_dependent, *_rank_dependent(recipe)),
    )


def _rank_dependent(recipe: Recipe) -> list[str]:
    """What of the recipe itself makes its result depend on the number of ranks."""
    found = []
    if recipe.batch.per_rank is not None:
        found.append("batch.per_rank, with which the global batch grows with the ranks")
    if recipe.communication.reduction == "adasum":
        found.append("communication.reduction adasum")
    if recipe.communication.compression != "none":
        found.append(f"communication.compression {recipe.communication.compression}")
    sliced = recipe.noise_scale is not None and recipe.noise_scale.slice is not None
    if recipe.optimizer.lr_scaling == "adascale" and not sliced:
        found.append(
            "optimizer.lr_scaling adascale, which measures between micro-batches (noise_scale.slice makes them alike)"
        )
    if isinstance(recipe.optimizer, Muon) and recipe.optimizer.newton_schulz == "bf16":
        found.append("optimizer.newton_schulz bf16, in which differences of rounding grow to 1 % of an update")
    return found


def _check_sizes(global_batch: int, train_samples: int, world_size: int) -> None:
    if world_size < 1:
        raise InputError(f"world size {world_size}: expected at least 1")
    if global_batch > train_samples:
        raise InputError(
            f"the global batch is {global_batch} samples, but the train set has only {train_samples}: "
            f"choose batch.global <= {train_samples}"
        )


def _epoch(recipe: Recipe, global_batch: int, train_samples: int) -> EpochLength:
    """How an epoch is cut, with the growth that the recipe states."""
    used = train_samples // global_batch * global_batch if recipe.batch.last == "drop" else train_samples
    epoch = EpochLength(used, global_batch, stretch=_stretch(recipe, global_batch))
    return replace(epoch, batch_at=planned_growth(recipe, global_batch, epoch))


def _decay(recipe: Recipe, peak: float, warmup: int, epoch: EpochLength) -> tuple[Schedule, EpochLength]:
    """The decay, and the epoch with the growth that takes its place, if one does."""
    decay = decay_schedule(recipe, peak, warmup, epoch.in_samples(recipe), epoch)
    growth = recipe.batch.growth
    if growth is None or growth.kind != "instead_of_decay":
        return decay, epoch
    batch_at, decay = instead_of_decay(recipe, epoch.batch, warmup, decay, growth.max)
    return decay, replace(epoch, batch_at=batch_at)


def _check_ghosts(ghost: int, global_batch: int, micro_max: int | None, world_size: int) -> None:
    if ghost == 1:
        return
    if micro_max is not None and micro_max < ghost:
        raise InputError(
            f"ghost_size is {ghost}, but only {micro_max} samples go through the model at once "
            f"(batch.per_rank_max or batch.per_rank): choose a ghost_size of at most {micro_max}, or a larger micro-batch"
        )
    ghosts = max(global_batch // ghost, 1)
    if ghosts < world_size:
        raise InputError(
            f"the global batch of {global_batch} has {ghosts} ghosts of {ghost} samples for {world_size} ranks, and a ghost is "
            f"never split: choose a ghost_size of at most {global_batch // world_size}, a global batch of at least "
            f"{ghost * world_size}, or at most {ghosts} ranks"
        )


def _check_sync(model: ModelFacts, smallest: int, pieces: int, growing: bool, short: int, world_size: int) -> None:
    """Every rank takes part in every exchange of statistics, once per update."""
    if not model.sync_norm:
        return
    if pieces > 1 or growing:
        raise InputError(
            "batch_norm.kind sync takes statistics over the ranks' micro-batches of one forward, and this plan accumulates "
            f"{pieces if not growing else 'ever more'} of them: use batch_norm.kind ghost, more ranks, or a larger per_rank_max"
        )
    if smallest == 0 or 0 < short < world_size:
        raise InputError(
            f"batch_norm.kind sync needs a sample on each of {world_size} ranks in every batch, and the "
            f"{'global' if smallest == 0 else 'last'} batch has fewer: use a larger batch"
            + (", or batch.last: drop" if smallest else "")
        )


def _pieces(largest: int, ghost: int, micro_max: int | None, *, growing: bool) -> tuple[int, int]:
    """Micro-batches of the largest share, and the most samples in one. A batch that grows is not cut evenly to begin with:
    later ones take more micro-batches of what fits, and without a limit what fits is the first share."""
    ghosts = max(largest // ghost, 1)
    most = max(micro_max // ghost, 1) if micro_max else ghosts
    pieces = -(-ghosts // most)
    return pieces, (most if growing else -(-ghosts // pieces)) * ghost


def _stretch(recipe: Recipe, global_batch: int) -> float:
    """Regime adaptation: so many times longer (Hoffer et al. 2017, arXiv:1705.08741, section 5)."""
    if not recipe.schedule.regime_adaptation:
        return 1.0
    if recipe.optimizer.reference_batch is None:
        raise InputError("schedule.regime_adaptation needs optimizer.reference_batch: the batch whose updates are kept")
    return batch_factor(recipe, global_batch)


def _evaluate_every(recipe: Recipe, epoch: EpochLength) -> int | None:
    if recipe.evaluate is None:
        return None
    return max(replace(epoch, stretch=1.0).in_samples(recipe.evaluate), 1)


def _batch(recipe: Recipe, world_size: int, most: int | None) -> tuple[int, int, int | None]:
    """The global batch that the run begins with, its smallest, and the most samples a rank may put through the model at once."""
    batch = recipe.batch
    limits = [limit for limit in (batch.per_rank, batch.per_rank_max, most) if isinstance(limit, int)]
    limit = min(limits, default=None)
    if batch.per_rank is not None:
        every = batch.per_rank * batch.accumulation * world_size
        return every, every, limit
    assert batch.global_ is not None
    return batch.global_, batch.least or batch.global_, limit
