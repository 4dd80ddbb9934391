"""The noise scale at a checkpoint: all gradients at weights that stand still."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Literal, NamedTuple

import torch
from numpy import arange
from torch import Tensor
from torch.nn import Parameter

from disttrain.config import Recipe
from disttrain.data.dataset import Dataset, plain
from disttrain.data.evaluation import batches_of
from disttrain.data.permutation import Ids, permuted
from disttrain.data.selection import Selection, trained_on
from disttrain.engine.base import Engine
from disttrain.errors import InputError, as_input
from disttrain.grads import NoiseEstimate, noise_words, scale_of_set, scale_of_wider
from disttrain.inference.choice import Choice, Origin, fetch, samples_seen
from disttrain.inference.evaluate import samples
from disttrain.inference.prepared import Prepared, build_model
from disttrain.inference.weights import restore_weights
from disttrain.methods.trainable import find_trainable
from disttrain.plan.plan import StepPlan, resolve_plan
from disttrain.plan.stages import stage_at
from disttrain.study.train_loss import items_of, prepared, refuse_moving_loss, summed_loss
from disttrain.tasks.base import Task
from disttrain.tasks.make import collate_of, fraction_held_out, load_sets

Set = Literal["train", "validation"]
Gradients = tuple[list[Tensor], int]
"""Of the summed loss of a slice, float64; and its loss items."""
LISTENING, LONG = 2.0, 20.0
"""Seconds after which it is known how long all will take, and from which on that is worth saying."""
FEWEST, SLICES = 16, 64
"""Samples of a set, and slices that a small one is cut into at least, as far as it has samples."""


class Squares(NamedTuple):
    """What the slices' gradients come to.

    Attributes:
        each: squared norms of the whole slices' mean gradients.
        mean_square: of the gradient of all samples.
        summed: gradients of the whole slices, added up.
        unit: what a product of two slices' gradients is times where both are means.
    """

    each: list[float]
    mean_square: float
    summed: list[Tensor]
    unit: float


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
    said: Callable[[str], None] = lambda line: None,
) -> NoiseAtCheckpoint:
    """The noise scale of a set at stored weights, in one process.

    Every sample is read once, of the validation set twice, as it is (not augmented, not mixed), in slices of a random order.
    The model is in evaluation mode: without dropout, and batch norm with its running statistics, or the gradient of a batch were
    not the mean of its samples'. Of the parameters that the run trained at that point, in the weights' own precision.

    Args:
        part: ``train``: the noise scale of that set, whose |G_N|^2 is then exact; ``validation``: of the population that it was
            drawn from (see :func:`~disttrain.grads.noise_exact.scale_of_wider`).
        batch: to speak of; None: the recipe's global batch.
        slice: samples whose mean gradient is compared; less is more precise, and slower.
        said: told how many gradients there are and how long they will take, after the first ones, if that is long.

    Raises:
        InputError: there is no such set or too little of it, the losses are none of single samples, or the weights cannot be had.
    """
    with as_input():
        checkpoint, origin = fetch(engine, run_dir, choice)
        seen = 0 if checkpoint is None else samples_seen(checkpoint)
        ready = build_model(recipe, engine)
        restore_weights(ready, checkpoint, averaged=origin.averaged)
    plan = _plan(ready)
    _choose_trained(ready, plan, seen)
    dataset, chosen = _set(ready.task, part, fraction_held_out(recipe))
    total = len(dataset if chosen is None else chosen)
    if total < FEWEST:
        raise InputError(f"the {part} set has {total} samples; its noise scale needs at least {FEWEST}")
    slice = min(slice, max(total // SLICES, 1))
    params = [p for p in ready.model.parameters() if p.requires_grad]

    def gradients() -> Iterator[Gradients]:
        return _gradients(ready, params, dataset, _slices(chosen, total, slice))

    passes = 1 if part == "train" else 2
    found = _squares(_timed(gradients(), passes * (total // slice), slice, said), params, total, slice)
    if part == "train":
        name, estimate = "noise scale", scale_of_set(found.each, found.mean_square, slice, total)
    else:
        products = _products(gradients(), found)
        name, estimate = "held-out noise scale", scale_of_wider(found.each, products, slice)
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
    refuse_moving_loss(ready.recipe, ready.task)
    find_trainable(ready.recipe, plan.stages, ready.model).choose(ready.model, stage_at(plan.stages, seen))
    ready.model.eval()


def _set(task: Task, part: Set, fraction: float | None) -> tuple[Dataset, Selection | None]:
    if part == "train":
        dataset = plain(task.train_dataset())
        return dataset, trained_on(len(dataset), fraction)
    if fraction is None and task.validation_dataset() is None:
        raise InputError("the run has no validation set: set data.validation.fraction, or give the task one of its own")
    return samples(task, "validation", fraction)


def _squares(gradients: Iterator[Gradients], params: list[Parameter], total: int, slice: int) -> Squares:
    """Of each whole slice ``|g|^2``, of a mean gradient g."""
    whole = total // slice
    sums = [torch.zeros_like(p, dtype=torch.float64) for p in params]
    squares: list[float] = []
    items, mean = 0, sums
    for number, (each, count) in enumerate(gradients):
        if number == whole:
            mean = [s.clone() for s in sums]  # what is left over is no whole slice
        squares.append(_dot(each, each))
        items += count
        for s, g in zip(sums, each, strict=True):
            s += g
    mean_square = _dot(sums, sums) / items**2
    if not math.isfinite(mean_square):
        raise InputError("the gradient is not finite: the weights of this checkpoint have diverged")
    # From a slice's sum to its mean loss of an item, as if each sample had the average number of items.
    unit = (total / items / slice) ** 2
    return Squares([square * unit for square in squares[:whole]], mean_square, mean, unit)


def _products(gradients: Iterator[Gradients], found: Squares) -> list[float]:
    """Of each whole slice ``g . G``, where G is the mean over all of them."""
    whole = len(found.each)
    return [_dot(each, found.summed) * found.unit / whole for each, _ in islice(gradients, whole)]


def _slices(chosen: Selection | None, total: int, slice: int) -> Iterator[Ids]:
    """The samples of each, in one random order."""
    for start in range(0, total, slice):
        places = permuted(
            arange(start, min(start + slice, total)), total, seed=0, epoch=0, stream="noise at a checkpoint"
        )
        yield places if chosen is None else chosen.ids(places)


def _timed(gradients: Iterator[Gradients], count: int, slice: int, said: Callable[[str], None]) -> Iterator[Gradients]:
    """The first pass over ``count`` gradients in all; once :data:`LISTENING` seconds are over it says how long all take."""
    began, told = math.nan, False
    for done, each in enumerate(gradients):
        yield each
        if done == 0:
            began = monotonic()  # the first one also warms up
        elif not told and (spent := monotonic() - began) >= LISTENING:
            told, seconds = True, spent / done * count
            if seconds >= LONG:
                took = f"{seconds / 60:,.0f} minutes" if seconds >= 120 else f"{seconds:,.0f} seconds"
                said(
                    f"{count:,} gradients of {slice} {'sample' if slice == 1 else 'samples'} each, about {took} "
                    "(a larger --slice takes fewer)"
                )


def _gradients(
    ready: Prepared, params: list[Parameter], dataset: Dataset, slices: Iterator[Ids]
) -> Iterator[Gradients]:
    for micro in batches_of(dataset, slices, device=ready.engine.world.device, collate=collate_of(ready.task)):
        found = torch.autograd.grad(summed_loss(ready, prepared(ready, micro)), params, allow_unused=True)
        gradients = [
            torch.zeros_like(p, dtype=torch.float64) if g is None else g.double()
            for p, g in zip(params, found, strict=True)
        ]
        yield gradients, items_of(ready.task, micro)


def _dot(a: list[Tensor], b: list[Tensor]) -> float:
    return math.fsum(float(torch.dot(x.flatten(), y.flatten())) for x, y in zip(a, b, strict=True))
