"""What a loss over the global batch asks of a plan: each rank's share at once, and no measurement between parts of the batch."""

from __future__ import annotations

from disttrain.config import Recipe
from disttrain.data.shares import shares
from disttrain.errors import InputError
from disttrain.nn.facts import ModelFacts


def check_whole_batch(recipe: Recipe, model: ModelFacts, batch: int, fits: int, ranks: int) -> None:
    """Where the loss is over the global batch: refuse accumulation, and what takes the parts of a batch for independent.

    Args:
        batch: the largest global batch.
        fits: most samples that go through the model at once.

    Raises:
        InputError: with the numbers that would work.
    """
    if not model.over_global_batch:
        return
    most = shares(batch, ranks, model.ghost_size)[1]
    what = f"task {recipe.task.name} takes its loss over the global batch"
    if recipe.batch.per_rank is not None and recipe.batch.accumulation > 1:
        raise InputError(f"{what}, which is never cut into micro-batches: set batch.accumulation to 1")
    if most > fits:
        raise InputError(
            f"{what}, so a rank's share goes through the model at once, but at most {fits} samples do: global {batch} on "
            f"{ranks} rank{'s' * (ranks > 1)} needs batch.per_rank_max of at least {most}, or at least {-(-batch // fits)} ranks"
        )
    measured = "optimizer.lr_scaling: adascale" if recipe.optimizer.lr_scaling == "adascale" else None
    if recipe.noise_scale is not None or measured:
        raise InputError(
            f"{what}, and {measured or 'noise_scale'} compares gradients of its parts as if they were independent: leave it out"
        )
