"""The noise scale at a checkpoint: all gradients at weights that stand still."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from numpy import arange
from torch import Tensor

from disttrain.config import Recipe
from disttrain.data.batch import MicroBatch
from disttrain.data.dataset import Dataset, plain
from disttrain.data.evaluation import batches_of
from disttrain.data.permutation import Ids, permuted
from disttrain.data.selection import Selection, trained_on
from disttrain.engine.base import Engine
from disttrain.errors import InputError
from disttrain.grads import NoiseEstimate, noise_words, scale_of_set, scale_of_wider
from disttrain.inference.choice import Choice, Origin, fetch, samples_seen
from disttrain.inference.evaluate import samples
from disttrain.inference.prepared import Prepared, build_model
from disttrain.inference.weights import restore_weights
from disttrain.methods.trainable import find_trainable
from disttrain.plan.plan import StepPlan, resolve_plan
from disttrain.plan.stages import stage_at
from disttrain.tasks.base import Task
from disttrain.tasks.given import given
from disttrain.tasks.make import collate_of, fraction_held_out, load_sets
from disttrain.tasks.terms import sum_of, wide

Set = Literal["train", "validation"]
FEWEST, SLICES = 16, 64
"""Samples of a set, and slices that a small one is cut into at least, as far as it has samples."""


@dataclass(frozen=True, slots=True)
class NoiseAtCheckpoint:
    """What :func:`noise_at` found.

    Attributes:
        name: of what was measured: ``noise scale`` of the train set, ``held-out noise scale`` of what the validation set was
            drawn from.
        estimate: with its interval.
        batch: that ``words`` speaks of.
        samples: of the set.
        slice: samples of each gradient that was compared.
        words: the estimate in a sentence.
        origin: which weights.
    """

    name: str
    estimate: NoiseEstimate
    batch: int
    samples: int
    slice: int
    words: str
    origin: Origin


def noise_at(
    recipe: Recipe,
    run_dir: Path,
    engine: Engine,
    choice: Choice,
    part: Set,
    *,
    batch: int | None = None,
    slice: int = 32,
) -> NoiseAtCheckpoint:
    """The noise scale of a set at stored weights, in one process.

    Every sample is read twice, as it is (not augmented, not mixed), in slices of a random order. The model is in evaluation mode:
    without dropout, and batch norm with its running statistics, or the gradient of a batch were not the mean of its samples'.
    Of the parameters that the run trained at that point, in the weights' own precision.

    Args:
        part: ``train``: the noise scale of that set, whose |G_N|^2 is then exact; ``validation``: of the population that it was
            drawn from (see :func:`~disttrain.grads.noise_exact.scale_of_wider`).
        batch: to speak of; None: the recipe's global batch.
        slice: samples whose mean gradient is compared; less is more precise, and slower.

    Raises:
        InputError: there is no such set or too little of it, or the losses are none of single samples.
        CheckpointError, NoCheckpointError: the weights cannot be had.
    """
    checkpoint, origin = fetch(engine, run_dir, choice)
    ready = build_model(recipe, engine)
    restore_weights(ready, checkpoint, averaged=origin.averaged)
    plan = _plan(ready)
    _choose_trained(ready, plan, 0 if checkpoint is None else samples_seen(checkpoint))
    dataset, chosen = _set(ready.task, part, fraction_held_out(recipe))
    total = len(dataset if chosen is None else chosen)
    if total < FEWEST:
        raise InputError(f"the {part} set has {total} samples; its noise scale needs at least {FEWEST}")
    slice = min(slice, max(total // SLICES, 1))
    squares, products, mean_square = _inner_products(ready, dataset, chosen, total, slice)
    if part == "train":
        name, estimate = "noise scale", scale_of_set(squares, mean_square, slice, total)
    else:
        name, estimate = "held-out noise scale", scale_of_wider(squares, products, slice)
    asked = plan.global_batch if batch is None else batch
    words = noise_words(estimate, asked, total if part == "train" else None, name=name)
    return NoiseAtCheckpoint(name, estimate, asked, total, slice, words, origin)


def _plan(ready: Prepared) -> StepPlan:
    sizes = load_sets(ready.recipe, ready.task)
    return resolve_plan(ready.recipe, sizes.train, sizes.test, 1, ready.facts, validation_samples=sizes.validation)


def _choose_trained(ready: Prepared, plan: StepPlan, seen: int) -> None:
    """Let the parameters of the stage that the run was in have gradients, in evaluation mode.

    Raises:
        InputError: the loss of a sample depends on the others, or on weights that were learned.
    """
    name = ready.recipe.task.name
    if ready.task.over_global_batch:
        raise InputError(f"task {name}: a loss over the whole batch has no gradients of single samples to compare")
    if ready.recipe.loss.balance is not None:
        raise InputError(
            "loss.balance: the weights of the losses are learned, and so no part of the checkpoint's model"
        )
    find_trainable(ready.recipe, plan.stages, ready.model).choose(ready.model, stage_at(plan.stages, seen))
    ready.model.eval()


def _set(task: Task, part: Set, fraction: float | None) -> tuple[Dataset, Selection | None]:
    if part == "train":
        dataset = plain(task.train_dataset())
        return dataset, trained_on(len(dataset), fraction)
    if fraction is None and task.validation_dataset() is None:
        raise InputError("the run has no validation set: set data.validation.fraction, or give the task one of its own")
    return samples(task, "validation", fraction)


def _inner_products(
    ready: Prepared, dataset: Dataset, chosen: Selection | None, total: int, slice: int
) -> tuple[list[float], list[float], float]:
    """Of each whole slice ``|g|^2`` and ``g . G``, where G is the mean over all of them; and ``|G_N|^2`` over all samples."""
    whole = total // slice
    sums = [torch.zeros_like(p, dtype=torch.float64) for p in _trained(ready)]
    squares: list[float] = []
    items, mean = 0.0, sums
    for number, (gradients, count) in enumerate(_gradients(ready, dataset, chosen, total, slice)):
        if number == whole:
            mean = [s.clone() for s in sums]  # what is left over is no whole slice
        squares.append(_dot(gradients, gradients))
        items += count
        for s, g in zip(sums, gradients, strict=True):
            s += g
    factor = (
        total / items
    )  # from a slice's sum to its mean loss of an item, as if each sample had the average number of items
    mean_square = _dot(sums, sums) / items**2
    if not math.isfinite(mean_square):
        raise InputError("the gradient is not finite: the weights of this checkpoint have diverged")
    unit = (factor / slice) ** 2
    products = [
        _dot(gradients, mean) * unit / whole
        for gradients, _ in _first(whole, _gradients(ready, dataset, chosen, total, slice))
    ]
    return [square * unit for square in squares[:whole]], products, mean_square


def _gradients(
    ready: Prepared, dataset: Dataset, chosen: Selection | None, total: int, slice: int
) -> Iterator[tuple[list[Tensor], float]]:
    """Of the slices of one random order: gradients of the summed loss, float64, and loss items."""

    def pieces() -> Iterator[Ids]:
        for start in range(0, total, slice):
            places = permuted(
                arange(start, min(start + slice, total)), total, seed=0, epoch=0, stream="noise at a checkpoint"
            )
            yield places if chosen is None else chosen.ids(places)

    params = _trained(ready)
    for micro in batches_of(dataset, pieces(), device=ready.engine.world.device, collate=collate_of(ready.task)):
        found = torch.autograd.grad(_loss(ready, micro), params, allow_unused=True)
        gradients = [
            torch.zeros_like(p, dtype=torch.float64) if g is None else g.double()
            for p, g in zip(params, found, strict=True)
        ]
        yield gradients, float(ready.task.count_items(micro.tensors))


def _loss(ready: Prepared, micro: MicroBatch) -> Tensor:
    """Summed over samples and losses."""
    inputs = ready.task.prepare(micro.tensors, ready.precision.parameter_dtype)
    losses = given(ready.task.losses, ready.model, inputs)
    if isinstance(losses, Tensor):
        return wide(losses).sum()
    weights = ready.recipe.loss.weights
    return wide(sum_of(losses if weights is None else {n: loss * weights[n] for n, loss in losses.items()})).sum()


def _trained(ready: Prepared) -> list[torch.nn.Parameter]:
    return [p for p in ready.model.parameters() if p.requires_grad]


def _dot(a: list[Tensor], b: list[Tensor]) -> float:
    return math.fsum(float(torch.dot(x.flatten(), y.flatten())) for x, y in zip(a, b, strict=True))


def _first(count: int, stream: Iterator[tuple[list[Tensor], float]]) -> Iterator[tuple[list[Tensor], float]]:
    """Without waiting for what comes after."""
    for _ in range(count):
        yield next(stream)
