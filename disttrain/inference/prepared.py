"""From a recipe and an engine to a model that is ready for forward passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from disttrain.config import Recipe
from disttrain.data.batch import MicroBatch
from disttrain.engine.agreement import everyone
from disttrain.engine.base import Engine
from disttrain.methods.model import make_model
from disttrain.nn import ModelFacts
from disttrain.precision import Precision, make_precision
from disttrain.tasks.base import Task
from disttrain.tasks.given import given
from disttrain.tasks.make import make_task

T = TypeVar("T")


@dataclass(slots=True)
class Prepared:
    """A model that is ready for forward passes: what evaluation, export and inference need.

    Attributes:
        model: on the device, the same on all ranks.
        facts: what it says of itself.
    """

    recipe: Recipe
    engine: Engine
    task: Task
    precision: Precision
    model: nn.Module
    facts: ModelFacts

    def call(self, function: Callable[[nn.Module, Any], T], model: nn.Module, micro: MicroBatch) -> T:
        """``function(model, inputs)``, the task's ``losses``, ``evaluate`` or ``predict``, of what it makes ready of a
        micro-batch and in the run's precision; see :func:`disttrain.tasks.given.given`."""
        inputs = self.task.prepare(micro.tensors, self.precision.parameter_dtype)
        with self.precision.forward_context():
            return given(function, model, inputs)


def build_model(recipe: Recipe, engine: Engine) -> Prepared:
    """The recipe's task and model, the model the same on all ranks: no optimizer, no train set, any number of ranks.

    Raises:
        InputError, RankError: on all ranks: something is wrong on some of them, or they differ.
    """
    ready = construct(recipe, engine)
    engine.place(ready.model)
    return ready


def construct(recipe: Recipe, engine: Engine) -> Prepared:
    """Task and model as each rank makes them by itself."""
    task = everyone(engine, lambda: make_task(recipe))
    precision = make_precision(recipe, engine.world.device)
    torch.manual_seed(recipe.seed)
    model, found = everyone(engine, lambda: make_model(recipe, task, task.model_hints(), engine.all_reduce))
    return Prepared(recipe, engine, task, precision, model.to(precision.parameter_dtype), found)
