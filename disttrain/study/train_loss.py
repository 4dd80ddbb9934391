"""The loss of fixed samples with a graph to the weights: what gradients and curvature at a checkpoint are of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from disttrain.config import Recipe
from disttrain.data.batch import MicroBatch
from disttrain.errors import InputError
from disttrain.inference.prepared import Prepared
from disttrain.tasks.base import Task
from disttrain.tasks.given import given
from disttrain.tasks.terms import stacked, weighted, wide


def refuse_moving_loss(recipe: Recipe, task: Task) -> None:
    """See that every sample has a loss of its own, with fixed weights.

    Raises:
        InputError: it has not.
    """
    if task.over_global_batch:
        raise InputError(
            f"task {recipe.task.name} takes its loss over the global batch: samples have none of their own"
        )
    if recipe.loss.balance is not None:
        raise InputError(
            "loss.balance: the weights of the losses changed in training and are no part of the checkpoint's model, so there is "
            "no one train loss"
        )


def prepared(ready: Prepared, micro: MicroBatch) -> Any:
    """What :func:`summed_loss` takes: the model's inputs, in the weights' own precision."""
    return ready.task.prepare(micro.tensors, ready.precision.parameter_dtype)


def summed_loss(ready: Prepared, inputs: Any) -> Tensor:
    """0-d: summed over items, and over several losses by ``loss.weights``; penalties are left out. In the weights' precision,
    sums in float32 at least."""
    losses = given(ready.task.losses, ready.model, inputs)
    if isinstance(losses, Tensor):
        return wide(losses).sum()
    names, weights = sorted(losses), ready.recipe.loss.weights or {}
    terms = stacked(losses, names)
    return weighted(terms, torch.tensor([weights.get(name, 1.0) for name in names], device=terms.device)).sum()


def items_of(task: Task, micro: MicroBatch) -> int:
    """Losses that the sum is of."""
    each = task.items_per_sample
    return int(task.count_items(micro.tensors)) if each is None else len(micro.ids) * each
