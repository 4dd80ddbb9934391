"""How a run measures the gradient noise scale: on which updates, and how their batches are cut for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from disttrain.config import Recipe
from disttrain.config.sections.optimizers import BatchInvariantAdam, Sgd
from disttrain.data.shares import slice_borders
from disttrain.errors import InputError
from disttrain.nn.facts import ModelFacts
from disttrain.plan.adaptive import DELAY


@dataclass(frozen=True, slots=True)
class Slices:
    """Which updates go through the model in slices of the global batch.

    Attributes:
        size: samples of a slice; 0: no update does.
        every: updates between two that do.
    """

    size: int = 0
    every: int = 1

    def of(self, update: int) -> int:
        """Samples of each slice of an update, counted from 1; 0: it is cut as any other."""
        return self.size if update % self.every == 0 else 0


def measured_every(recipe: Recipe) -> int:
    """Updates between two that measure; 0: none does. AdaScale measures in each."""
    if recipe.optimizer.lr_scaling == "adascale":
        return 1
    return 0 if recipe.noise_scale is None else recipe.noise_scale.every_steps


def resolve_slices(recipe: Recipe, model: ModelFacts, batch: int, fits: int | None, ranks: int) -> Slices:
    """From the recipe's ``optimizer.slice``, of which every update is made, or its ``noise_scale.slice``.

    Args:
        batch: the smallest global batch.
        fits: most samples that go through the model at once; None: no limit.

    Raises:
        InputError: the batch cannot be cut like that; the message has the numbers that would work.
    """
    size = None if recipe.noise_scale is None else recipe.noise_scale.slice
    key, every, least = "noise_scale.slice", measured_every(recipe), 2
    if isinstance(recipe.optimizer, BatchInvariantAdam):
        if size not in (None, recipe.optimizer.slice):
            raise InputError(f"noise_scale.slice is {size}, and optimizer.slice cuts every batch: leave out the former")
        size, key, every, least = recipe.optimizer.slice, "optimizer.slice", 1, 1
    if size is None:
        return Slices()
    if model.over_global_batch:
        raise InputError(f"{key}: task {recipe.task.name} takes its loss over the global batch, which is never cut")
    ghost = model.ghost_size
    if model.sync_norm:
        raise InputError(
            f"{key}: batch_norm.kind sync takes statistics over what all ranks have at once, which a slice is not: "
            "leave slice out, or use batch_norm.kind ghost"
        )
    most = min(fits or batch, batch // least, batch // ranks) // ghost * ghost
    works = f"choose a slice of at most {most}" if most else "leave slice out"
    if size % ghost:
        near = " or ".join(str(n) for n in (size // ghost * ghost, -(-size // ghost) * ghost) if 0 < n <= most)
        raise InputError(
            f"{key} is {size}, and a slice is made of whole ghosts of {ghost} samples: "
            + (f"choose {near}" if near else works)
        )
    if fits is not None and size > fits:
        raise InputError(f"{key} is {size}, but at most {fits} samples go through the model at once: {works}")
    slices = len(slice_borders(batch, size, ghost)) - 1
    if slices < max(least, ranks):
        wanted = "2 are compared" if ranks < 3 else f"each of {ranks} ranks needs one"
        raise InputError(
            f"{key} is {size}: the global batch of {batch} has {slices} such slices, and at least {wanted}: {works}"
            + (f", or at most {slices} ranks" if slices > 1 else "")
        )
    if size > batch:
        raise InputError(f"{key} is {size}, and the global batch only {batch}: {works}")
    return Slices(size, every)


def never_measured(recipe: Recipe, updates: int) -> str:
    """What to say where a run of so many updates ends before it has measured once; empty: it does not."""
    every = measured_every(recipe)
    if every <= updates:
        return ""
    return (
        f"noise_scale.every_steps is {every:,}, and the run has {updates:,} updates: the noise scale is never measured"
    )


def never_decided(recipe: Recipe, updates: int) -> str:
    """What to say where a run of so many updates ends before an adaptive batch can change; empty: it does not."""
    adaptive = recipe.batch.adaptive
    if adaptive is None or adaptive.every + DELAY < updates:
        return ""
    return (
        f"batch.adaptive.every is {adaptive.every:,}, a decision takes effect {DELAY + 1} updates later, and the run has "
        f"{updates:,}: the batch never changes"
    )


def explain_noise(recipe: Recipe, slices: Slices, updates: int) -> Iterator[tuple[str, str, str]]:
    """Lines for ``disttrain show``."""
    if isinstance(recipe.optimizer, BatchInvariantAdam):
        why = "each update goes through the model in slices, whose squared gradients are the optimizer's second moment"
        yield "slices", f"{slices.size} samples", why
    every = measured_every(recipe)
    if not every:
        return
    when = "at every update" if every == 1 else f"every {every:,} updates"
    if note := never_measured(recipe, updates):
        yield "noise scale", "never", note
        return
    if recipe.noise_scale is not None and recipe.noise_scale.estimator == "norm_layers":
        yield (
            "noise scale",
            f"{when}, of the norm layers",
            "a proxy, from the gradients of single samples: does not know the ranks",
        )
    elif slices.size:
        yield (
            "noise scale",
            f"{when}, in slices of {slices.size}",
            "slices of the global batch: the same reading on any cluster",
        )
    else:
        why = "compares the micro-batches there are: how precise a reading is follows the cluster (noise_scale.slice does not)"
        yield "noise scale", when, why
    if note := guide_only(recipe):
        yield "noise scale says", "a guide only", note


def guide_only(recipe: Recipe) -> str:
    """Why the plain noise scale is but a guide with this optimizer; empty: it is more."""
    optimizer = recipe.optimizer
    if isinstance(optimizer, Sgd) and optimizer.larc is None:
        return ""
    name = "larc" if isinstance(optimizer, Sgd) else optimizer.name
    return f"{name} rescales the gradient before it steps, and what is measured is the noise of the plain gradient"
