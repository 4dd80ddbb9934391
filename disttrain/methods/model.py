"""From a recipe and a task to a model, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from disttrain.config import Recipe
from disttrain.errors import DataError, InputError
from disttrain.methods.batch_norm import apply_batch_norm
from disttrain.methods.dropout import apply_dropout
from disttrain.methods.execution import check_execution
from disttrain.models.build import build_model, is_ours
from disttrain.nn import ModelFacts, model_facts
from disttrain.tasks.base import Task
from disttrain.tasks.classification import Classification


def make_model(
    recipe: Recipe, task: Task, hints: Mapping[str, Any], all_reduce: Callable[[torch.Tensor], object]
) -> tuple[torch.nn.Module, ModelFacts]:
    """The recipe's model, or the task's own default, in the task's shapes and with the recipe's batch norm and dropout; and what
    it says of itself.

    Raises:
        InputError: it cannot be made, or contradicts the recipe.
    """
    if recipe.model is None:
        name, arguments = task.default_model
    else:
        # null in a section of ours means "not given", so that the task's hint or the model's default holds.
        arguments = recipe.model.model_dump(exclude_none=is_ours(recipe.model.name))
        name = arguments.pop("name")
    model = apply_batch_norm(recipe, build_model(name, arguments, hints), all_reduce)
    model = apply_dropout(recipe, model)
    check_execution(recipe, model)
    try:
        return model, model_facts(model)._replace(over_global_batch=task.over_global_batch)
    except ValueError as error:
        raise InputError(f"model {name}: {error}") from None


def facts_of(recipe: Recipe, task: Task) -> ModelFacts:
    """What the recipe's model says of itself, for commands that run nothing; see :func:`sketch`."""
    return sketch(recipe, task)[1]


def sketch(recipe: Recipe, task: Task) -> tuple[torch.nn.Module, ModelFacts]:
    """The recipe's model, to be looked at and not to be run, and what it says of itself: ours are made without memory. Where
    the data is not at hand, with as many classes as any: nothing that is asked for here depends on them."""
    try:
        hints = task.model_hints()
    except DataError:
        if not isinstance(task, Classification):
            raise
        hints = {"in_shape": task.in_shape, "num_classes": 2}
    ours = is_ours(task.default_model[0] if recipe.model is None else recipe.model.name)
    with torch.device("meta") if ours else nullcontext():
        return make_model(recipe, task, hints, lambda tensor: tensor)


def has_static_graph(recipe: Recipe, task: Task) -> bool:
    """Whether every step uses the same parameters in the same way: promised by the task, and known of our own models.

    GradNorm's own passes through the graph, and those that compile a model, are not those that DDP learns the graph from.
    """
    ours = is_ours(task.default_model[0] if recipe.model is None else recipe.model.name)
    gradnorm = recipe.loss.balance is not None and recipe.loss.balance.kind == "gradnorm"
    return task.static_graph and ours and not gradnorm and recipe.compile is None
