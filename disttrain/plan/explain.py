"""The resolved plan in words: every derived number with its reason."""

from __future__ import annotations

from disttrain.config import Recipe
from disttrain.config.sections.methods import CLIPS
from disttrain.plan.plan import StepPlan

Line = tuple[str, str, str]
"""What, its value, and why."""


def explain(recipe: Recipe, plan: StepPlan) -> list[Line]:
    """Lines for ``disttrain show``, in the order in which the numbers follow from each other."""
    return [
        ("ranks", str(plan.world_size), "--world-size, or what the launcher starts"),
        *_data(recipe, plan),
        *_batch(recipe, plan),
        *_length(recipe, plan),
        *_lr(recipe, plan),
        *_rest(recipe, plan),
    ]


def _data(recipe: Recipe, plan: StepPlan) -> list[Line]:
    order = recipe.data.order
    parts = f" in {recipe.data.parts or plan.world_size} parts" if order == "partition" else ""
    reasons = {
        "global_shuffle": "one permutation of the whole set per epoch, a function of (seed, epoch)",
        "partition": "shuffled once and split; every worker reads its own part, later reshuffled within it",
        "replacement": "each sample drawn from the whole set, a function of (seed, epoch, position)",
    }
    validation, exact = recipe.data.validation, "each sample exactly once, whatever the number of ranks"
    sets = [("train set", f"{plan.train_samples:,} samples", f"task {recipe.task.name}")]
    if plan.validation_samples:
        whence = f"{validation.fraction:g} of the train set, never trained on" if validation else "the task's own"
        why = f"{whence}; decides which checkpoint is the best"
        sets.append(("validation set", f"{plan.validation_samples:,} samples", why))
        exact += "; read once, at the end"
    return [
        *sets,
        ("test set", f"{plan.test_samples:,} samples", exact),
        ("order", f"{order}{parts}", reasons[order]),
    ]


def _batch(recipe: Recipe, plan: StepPlan) -> list[Line]:
    batch = recipe.batch
    low, high = plan.share
    if batch.per_rank is not None:
        why = f"weak scaling: {batch.per_rank} per rank x {batch.accumulation} x {plan.world_size} ranks"
    else:
        why = "batch.global: the same for any number of ranks"
    if low == high:
        shares = f"{plan.global_batch} / {plan.world_size} ranks"
    else:
        shares = f"{plan.global_batch} / {plan.world_size} ranks does not divide; sums over the global count stay exact"
    limit = batch.per_rank_max or batch.per_rank
    cut = (
        f"the share in pieces of at most {limit}" if limit else "no batch.per_rank_max: the share goes through at once"
    )
    size = f"{plan.global_batch:,} samples"
    growth = batch.growth
    if growth is not None:
        size = f"{plan.global_batch:,} growing to {plan.largest_batch:,} samples"
        why = {
            "instead_of_decay": f"grows where the learning rate would decay, up to {plan.largest_batch:,}; then that decays",
            "linear": "batch.growth: along a straight line of samples seen",
            "stages": "batch.growth: in stages of samples seen",
        }[growth.kind]
    lines = [
        ("global batch", size, why),
        ("share of a rank", str(low) if low == high else f"{low} to {high}", shares),
        ("accumulation", f"{plan.accumulation} x at most {plan.micro_batch}", cut),
    ]
    if plan.ghost_size > 1:
        ghosts = max(plan.global_batch // plan.ghost_size, 1)
        lines.append(
            (
                "ghosts",
                f"{ghosts} of {plan.ghost_size} samples",
                "whole ghosts on a rank and in a micro-batch, so that batch norm does not depend on the ranks",
            )
        )
    if low == 0:
        lines.append(
            (
                "idle ranks",
                "yes",
                "fewer samples in a batch than ranks: some ranks only take part in the exchange",
            )
        )
    return lines


def _length(recipe: Recipe, plan: StepPlan) -> list[Line]:
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
    given = [
        f"{unit}: {value}" for unit in ("epochs", "samples", "updates") if (value := getattr(recipe, unit)) is not None
    ]
    stretched = f", regime adaptation: {epoch.stretch:g} times that" if epoch.stretch != 1.0 else ""
    return [
        ("updates an epoch", f"{epoch.updates:,}", ends),
        ("length", f"{plan.total_samples:,} samples = {plan.total_updates:,} updates", given[0] + stretched),
    ]


def _lr(recipe: Recipe, plan: StepPlan) -> list[Line]:
    optimizer = recipe.optimizer
    if optimizer.reference_batch is None:
        why = "optimizer.lr; no reference_batch, so it is taken as it is"
    else:
        factor = plan.global_batch / optimizer.reference_batch
        why = f"{optimizer.lr:g} at batch {optimizer.reference_batch}, {optimizer.lr_scaling} scaling over {factor:g} x the batch"
    lines = [("peak learning rate", f"{plan.peak_lr:.6g}", why)]
    warmup = recipe.schedule.warmup
    if warmup is not None:
        updates = plan.epoch.updates_after(plan.warmup_samples)
        value = f"{plan.warmup_samples:,} samples = {updates:,} updates"
        start = (
            f"{optimizer.lr:g}, the reference batch's" if warmup.kind == "gradual" else f"{warmup.start:g} x the peak"
        )
        legw = ", longer by the factor of the batch (LEGW)" if optimizer.lr_scaling == "legw" else ""
        lines.append(("warmup", value, f"{warmup.kind}, from {start}{legw}"))
    decay = recipe.schedule.decay
    points = (0, plan.warmup_samples, plan.total_samples // 2, plan.total_samples)
    values = ", ".join(f"{plan.lr(s):.4g}" for s in dict.fromkeys(points))
    where = ", ".join(f"{s:,}" for s in dict.fromkeys(points))
    lines.append(("decay", decay.kind, "after the warmup; a function of samples seen, not of updates"))
    lines.append(("learning rate", values, f"after {where} samples"))
    return lines


def _gradient(recipe: Recipe) -> list[Line]:
    gradient = recipe.gradient
    clips = [(name, value) for name in CLIPS if (value := getattr(gradient, name)) is not None]
    shown = f"{clips[0][0].removeprefix('clip_')} {clips[0][1]:g}" if clips else "off"
    lines = [("clipping", shown, "of the mean gradient, after the reduction")]
    match gradient.noise:
        case None:
            pass
        case noise if noise.kind == "multiplicative":
            why = "samples weighted at random, with mean exactly 1, a function of (seed, epoch, sample id)"
            lines.append(("gradient noise", f"that of batch {noise.match_batch:,}", why))
        case noise:
            lines.append(
                ("gradient noise", f"variance {noise.eta:g} / (1 + update)^{noise.gamma:g}", "the same on all ranks")
            )
    return lines


def _rest(recipe: Recipe, plan: StepPlan) -> list[Line]:
    depends = "; ".join(plan.rank_dependent)
    lines: list[Line] = [
        (
            "result depends on ranks",
            "yes" if depends else "no",
            depends or "but for rounding: nothing here knows the ranks",
        ),
        (
            "precision",
            recipe.precision,
            "parameters and optimizer state stay in float32, or float64 with fp64",
        ),
    ]
    lines += _gradient(recipe)
    if plan.evaluate_every is None:
        lines.append(("evaluation", "never", "evaluate: null"))
    else:
        lines.append(("evaluation", f"every {plan.evaluate_every:,} samples", "and at the end"))
    every = recipe.checkpoint.every_steps
    when = "at the end and on request" if every is None else f"every {every:,} updates, at the end and on request"
    best = ", and the best" if recipe.checkpoint.best else ""
    lines.append(("checkpoints", when, f"the newest {recipe.checkpoint.keep} are kept{best}"))
    return lines
