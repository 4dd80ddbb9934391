"""The same run on less memory."""

from __future__ import annotations

from disttrain.config import Recipe
from disttrain.config.sections.optimizers import BatchInvariantAdam
from disttrain.errors import InputError, OutOfMemoryError
from disttrain.nn.facts import ModelFacts
from disttrain.plan.plan import StepPlan, resolve_plan


def halved(recipe: Recipe, plan: StepPlan, model: ModelFacts) -> StepPlan:
    """``plan`` with at most half as many samples at once, in whole ghosts.

    Raises:
        OutOfMemoryError: there is no such plan; the message says why.
    """
    size, ghost = plan.micro_batch, plan.ghost_size
    least = f"one ghost of {ghost} samples" if ghost > 1 else "one sample"
    if size <= ghost:
        raise OutOfMemoryError(
            f"out of memory with {least} at once, and nothing smaller is left: use a smaller model or optimizer, a lower "
            "precision, or a device with more memory"
        )
    train, test, validation = plan.train_samples, plan.test_samples, plan.validation_samples
    most = size // 2 // ghost * ghost
    try:
        return resolve_plan(recipe, train, test, plan.world_size, model, validation_samples=validation, most=most)
    except InputError as error:
        raise OutOfMemoryError(f"out of memory with {size} samples at once, and {most} are refused: {error}") from None


def on_one_rank(recipe: Recipe, batch: int) -> Recipe:
    """The recipe with another global batch, and without what asks for several ranks or micro-batches."""
    sliced = {"slice": batch} if isinstance(recipe.optimizer, BatchInvariantAdam) else {}
    changes = {
        "batch": recipe.batch.model_copy(
            update={"global_": batch, "per_rank_max": None, "growth": None, "adaptive": None}
        ),
        "optimizer": recipe.optimizer.model_copy(update={"lr_scaling": "none", **sliced}),
        "communication": type(recipe.communication)(),
        "data": recipe.data.model_copy(update={"workers": 0}),
        "start_from": None,
        "noise_scale": None,
    }
    return recipe.model_copy(update=changes)
