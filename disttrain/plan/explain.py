"""The resolved plan in words: every derived number with its reason."""

from __future__ import annotations

from collections.abc import Iterator

from disttrain.config import Recipe
from disttrain.config.sections.base import UNITS
from disttrain.config.sections.methods import CLIPS
from disttrain.plan.adaptive import ONLY_THE_RATE, explain_adaptive
from disttrain.plan.noise import explain_noise, never_decided
from disttrain.plan.plan import StepPlan
from disttrain.plan.schedule import cooldown
from disttrain.plan.stages import unreached

Line = tuple[str, str, str]
"""What, its value, and why."""


def explain(recipe: Recipe, plan: StepPlan) -> list[Line]:
    """Lines for ``disttrain show``, in the order in which the numbers follow from each other."""
    return [
        ("ranks", str(plan.world_size), "--world-size, or what the launcher starts"),
        *_data(recipe, plan),
        *_batch(recipe, plan),
        *explain_adaptive(recipe, plan.adaptive),
        *_never(recipe, plan),
        *_length(recipe, plan),
        *_lr(recipe, plan),
        *_stages(recipe, plan),
        *explain_noise(recipe, plan.slices, plan.total_updates),
        *_rest(recipe, plan),
    ]


def _data(recipe: Recipe, plan: StepPlan) -> Iterator[Line]:
    order = recipe.data.order
    parts = f" in {recipe.data.parts or plan.world_size} parts" if order == "partition" else ""
    reasons = {
        "global_shuffle": "one permutation of the whole set per epoch, a function of (seed, epoch)",
        "partition": "shuffled once and split; every worker reads its own part, later reshuffled within it",
        "replacement": "each sample drawn from the whole set, a function of (seed, epoch, position)",
    }
    validation, exact = recipe.data.validation, "each sample exactly once, whatever the number of ranks"
    yield "train set", f"{plan.train_samples:,} samples", f"task {recipe.task.name}"
    if plan.validation_samples:
        whence = f"{validation.fraction:g} of the train set, never trained on" if validation else "the task's own"
        yield (
            "validation set",
            f"{plan.validation_samples:,} samples",
            f"{whence}; decides which checkpoint is the best",
        )
        exact += "; read once, at the end"
    yield "test set", f"{plan.test_samples:,} samples", exact
    yield "order", f"{order}{parts}", reasons[order]


def _batch(recipe: Recipe, plan: StepPlan) -> Iterator[Line]:
    batch = recipe.batch
    low, high = plan.share
    size, why = f"{plan.global_batch:,} samples", "batch.global: the same for any number of ranks"
    if batch.per_rank is not None:
        why = f"weak scaling: {batch.per_rank} per rank x {batch.accumulation} x {plan.world_size} ranks"
    if batch.growth is not None:
        size = f"{plan.global_batch:,} growing to {plan.largest_batch:,} samples"
        if batch.growth.kind == "instead_of_decay":
            why = f"grows where the learning rate would decay, and keeps {batch.growth.keep} as it would have been without growth"
        else:
            along = {
                "linear": "along a straight line",
                "stages": "in stages",
                "late": "at once, late in the run: a function",
            }[batch.growth.kind]
            why = f"batch.growth: {along} of samples seen"
        why += f"; {ONLY_THE_RATE}"
    yield "global batch", size, why
    uneven = "" if low == high else " does not divide; sums over the global count stay exact"
    share = str(low) if low == high else f"{low} to {high}"
    yield "share of a rank", share, f"{plan.global_batch} / {plan.world_size} ranks{uneven}"
    limit = batch.per_rank_max or batch.per_rank
    pieces, cut = f"{plan.accumulation} x at most {plan.micro_batch}", f"the share in pieces of at most {limit}"
    if limit == "auto":
        pieces, cut = "auto: found when the run starts", "the share in as few equal pieces as fit into the memory"
    elif limit is None:
        cut = "no batch.per_rank_max: the share goes through at once"
    yield "accumulation", pieces, cut
    if plan.ghost_size > 1:
        ghosts = f"{max(plan.global_batch // plan.ghost_size, 1)} of {plan.ghost_size} samples"
        yield (
            "ghosts",
            ghosts,
            "whole ghosts on a rank and in a micro-batch, so that batch norm does not depend on the ranks",
        )
    if low == 0:
        yield "idle ranks", "yes", "fewer samples in a batch than ranks: some ranks only take part in the exchange"


def _never(recipe: Recipe, plan: StepPlan) -> Iterator[Line]:
    if note := never_decided(recipe, plan.total_updates):
        yield "batch changes", "never", note


def _length(recipe: Recipe, plan: StepPlan) -> Iterator[Line]:
    epoch = plan.epoch
    short = epoch.samples % epoch.batch if epoch.batch_at is None else 0
    left_out = plan.train_samples - epoch.samples
    if left_out:
        ends = f"batch.last drop: {left_out} samples of each epoch are left out"
    elif epoch.batch_at is not None:
        ends = "in the first; fewer as the batch grows. The last batch of an epoch may be short and is weighted exactly"
    elif short:
        ends = f"the last batch has {short} samples and is weighted exactly"
    else:
        ends = "batches divide the epoch evenly"
    yield "updates an epoch", f"{epoch.updates:,}", ends
    given = next(f"{unit}: {value}" for unit in UNITS if (value := getattr(recipe, unit)) is not None)
    stretched = f", regime adaptation: {epoch.stretch:g} times that" if epoch.stretch != 1.0 else ""
    yield "length", f"{plan.total_samples:,} samples = {plan.updates_in_words} updates", given + stretched


def _lr(recipe: Recipe, plan: StepPlan) -> Iterator[Line]:
    optimizer, warmup = recipe.optimizer, recipe.schedule.warmup
    yield "peak learning rate", f"{plan.peak_lr:.6g}", plan.carried.why
    for change in plan.carried.changes:
        yield change.key, f"{_number(change.before)} -> {_number(change.after)}", change.why
    if warmup is not None:
        updates = plan.epoch.updates_after(plan.warmup_samples)
        start = (
            f"{optimizer.lr:g}, the reference batch's" if warmup.kind == "gradual" else f"{warmup.start:g} x the peak"
        )
        legw = ", longer by the factor of the batch (LEGW)" if optimizer.lr_scaling == "legw" else ""
        yield "warmup", f"{plan.warmup_samples:,} samples = {updates:,} updates", f"{warmup.kind}, from {start}{legw}"
    after = "after the warmup; " if recipe.schedule.warmup is not None else ""
    decay = recipe.schedule.decay
    course = ""
    if decay.kind == "wsd":
        course = f": constant, {decay.shape} over the last {cooldown(decay, plan.total_samples, plan.epoch):,} samples"
    yield "decay", f"{decay.kind}{course}", f"{after}a function of samples seen, not of updates"
    points = dict.fromkeys((0, plan.warmup_samples, plan.total_samples // 2, plan.total_samples))
    where = ", ".join(f"{s:,}" for s in points)
    yield "learning rate", ", ".join(f"{plan.lr(s):.4g}" for s in points), f"after {where} samples"


def _number(value: float | tuple[float, ...]) -> str:
    return ", ".join(f"{one:.6g}" for one in (value if isinstance(value, tuple) else (value,)))


def _stages(recipe: Recipe, plan: StepPlan) -> Iterator[Line]:
    """When each stage begins, and its learning rate."""
    for i, stage in enumerate(plan.stages if recipe.stages else (), start=1):
        before = plan.epoch.updates_after(stage.start)
        begins = f"from {stage.start:,} samples, update {before + 1:,}"
        warmup = f", which rises to it over {stage.warmup_samples:,} samples" if stage.warmup_samples else ""
        kept = "" if i == 1 else f"; the optimizer's state is {'kept' if stage.keeps_optimizer else 'dropped'}"
        never = "; never begins: the run is over by then" if i in unreached(plan.stages, plan.total_samples) else ""
        yield f"stage {i}", begins, f"{stage.lr_factor:g} x the schedule's learning rate{warmup}{kept}{never}"


def _gradient(recipe: Recipe) -> Iterator[Line]:
    gradient = recipe.gradient
    clips = (
        f"{name.removeprefix('clip_')} {value:g}" for name in CLIPS if (value := getattr(gradient, name)) is not None
    )
    yield "clipping", next(clips, "off"), "of the mean gradient, after the reduction"
    match gradient.noise:
        case None:
            pass
        case noise if noise.kind == "multiplicative":
            why = "samples weighted at random, with mean exactly 1, a function of (seed, epoch, sample id)"
            yield "gradient noise", f"that of batch {noise.match_batch:,}", why
        case noise:
            yield "gradient noise", f"variance {noise.eta:g} / (1 + update)^{noise.gamma:g}", "the same on all ranks"


def _execution(recipe: Recipe) -> Iterator[Line]:
    """What of it is not as without a word in the recipe."""
    if (scaling := recipe.loss_scaling) is not None:
        grows = f"x {scaling.growth_factor:g} after {scaling.growth_interval:,} updates"
        yield "loss scale", f"{scaling.initial:g}", f"{grows}, x {scaling.backoff_factor:g} at an overflow"
    if recipe.reduced_precision_reductions:
        yield "sums of products", "in 16 bits", "reduced_precision_reductions, on CUDA in fp16 and bf16"
    if (settings := recipe.compile) is not None:
        yield "compiled", f"{settings.backend}, {settings.mode}", "before the first update, on each rank by itself"
    if recipe.memory_format != "contiguous":
        yield (
            "memory format",
            recipe.memory_format,
            "of tensors of 4 dimensions; no number depends on it but for rounding",
        )
    if recipe.activation_checkpointing:
        yield "computed again", ", ".join(recipe.activation_checkpointing), "activations are not kept for backward"


def _rest(recipe: Recipe, plan: StepPlan) -> Iterator[Line]:
    depends = "; ".join(plan.rank_dependent)
    why = depends or "but for rounding: nothing here knows the ranks"
    yield "result depends on ranks", "yes" if depends else "no", why
    yield "precision", recipe.precision, "parameters and optimizer state stay in float32, or float64 with fp64"
    yield from _execution(recipe)
    yield from _gradient(recipe)
    if plan.evaluate_every is None:
        yield "evaluation", "never", "evaluate: null"
    else:
        yield "evaluation", f"every {plan.evaluate_every:,} samples", "and at the end"
    every = recipe.checkpoint.every_steps
    when = "at the end and on request" if every is None else f"every {every:,} updates, at the end and on request"
    best = ", and the best" if recipe.checkpoint.best else ""
    yield "checkpoints", when, f"the newest {recipe.checkpoint.keep} are kept{best}"
