"""What is made anew for each stage of a run: the gradient exchange, the optimizer, and the methods that hold parameters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from disttrain.config import Recipe
from disttrain.engine.base import Engine
from disttrain.engine.exchange import Exchange
from disttrain.methods.base import Context
from disttrain.methods.make import Parts, make_methods
from disttrain.methods.model import has_static_graph
from disttrain.methods.optimizers import make_optimizer
from disttrain.methods.rates import parameter_settings
from disttrain.methods.trainable import Trainable
from disttrain.plan.plan import StepPlan
from disttrain.precision import Precision
from disttrain.tasks.base import Task


class Trained(NamedTuple):
    """What a stage trains, and by what; as a run holds it."""

    wrapped: nn.Module
    params: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    methods: Parts


def make_trained(
    recipe: Recipe,
    task: Task,
    engine: Engine,
    precision: Precision,
    model: nn.Module,
    plan: StepPlan,
    trainable: Trainable,
    stage: int,
) -> Trained:
    """For one stage of a run.

    Args:
        model: on the device, the same on all ranks, with complete running statistics.

    Raises:
        InputError: the recipe asks for what its model, optimizer or plan cannot give.
    """
    trainable.choose(model, stage)
    settings = parameter_settings(recipe, model, trainable.ever)
    if stage and plan.stages[stage].keeps_optimizer:
        # Those that come with state are groups of their own: torch's fused SGD takes all of a group's or none.
        before = trainable.stages[stage - 1]
        settings = {name: {**own, "kept": float(name in before)} for name, own in settings.items()}
    optimizer = make_optimizer(recipe, model, plan.carried, settings)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    context = Context(recipe, plan, engine, precision, model, params, optimizer, trainable.ever)
    methods = make_methods(context)
    exchange = Exchange(**recipe.communication.model_dump())
    wrapped = engine.wrap(model, static_graph=has_static_graph(recipe, task), exchange=exchange)
    return Trained(wrapped, params, optimizer, methods)


def take_over(now: Trained, methods: Parts, optimizer: torch.optim.Optimizer, *, keep: bool) -> None:
    """Go on from what the stage before had: its averages and learned loss weights and, to ``keep``, the optimizer's state of
    parameters that are trained on."""
    now.methods.all.take_over(methods.all)
    if keep:
        kept = {id(p): state for p, state in optimizer.state.items()}
        now.optimizer.state.update({p: kept[id(p)] for p in now.params if id(p) in kept})
