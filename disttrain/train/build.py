"""From a recipe and an engine to a run that is ready for its first update. The only place that wires parts together."""

from __future__ import annotations

import random

import numpy as np
import torch

from disttrain.checkpoint import Checkpoint
from disttrain.config import Recipe
from disttrain.data import Loader, Order
from disttrain.data.order import GlobalShuffle, Partition, WithReplacement
from disttrain.data.randomness import bits
from disttrain.engine.agreement import everyone, require_agreement
from disttrain.engine.base import Engine
from disttrain.models.build import build_model, is_ours
from disttrain.precision import PRECISIONS
from disttrain.tasks.base import Task
from disttrain.tasks.build import build_task
from disttrain.train.facts import facts
from disttrain.train.optimizers import make_optimizer
from disttrain.train.plan import resolve_plan
from disttrain.train.state import Progress, Run


def make_task(recipe: Recipe) -> Task:
    """The recipe's task, its data not yet read."""
    return build_task(recipe.task.model_dump(), seed=recipe.seed, label_smoothing=recipe.loss.label_smoothing)


def build(recipe: Recipe, engine: Engine, checkpoint: Checkpoint | None = None) -> Run:
    """Load the data, make the model, give everybody rank 0's state.

    Args:
        checkpoint: on rank 0, what to continue from; see :func:`disttrain.train.persist.restore` for the rest.

    Raises:
        InputError, RankError: on all ranks: something is wrong on some of them, or they differ.
    """

    def load() -> Task:
        task = make_task(recipe)
        task.train_dataset()
        task.test_dataset()
        return task

    task = everyone(engine, load)
    sizes = task.sizes()
    plan = everyone(engine, lambda: resolve_plan(recipe, sizes.train, sizes.test, engine.world.size))
    require_agreement(engine, facts(recipe, task))

    precision = PRECISIONS[recipe.precision](engine.world.device)
    precision.activate()
    torch.manual_seed(recipe.seed)
    model = everyone(engine, lambda: make_model(recipe, task)).to(precision.parameter_dtype)
    if checkpoint is not None:
        model.load_state_dict(checkpoint.model)
    ours = recipe.model is None or is_ours(recipe.model.name)
    model = engine.prepare(model.train(), static_graph=task.static_graph and ours)
    seed_rank(recipe.seed, engine.world.rank)
    optimizer = everyone(engine, lambda: make_optimizer(recipe, engine.unwrap(model), plan.peak_lr))
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return Run(recipe, plan, engine, task, model, params, optimizer, precision, Progress())


def make_model(recipe: Recipe, task: Task) -> torch.nn.Module:
    """The recipe's model, or the task's own default, in the task's shapes."""
    if recipe.model is None:
        name, arguments = task.default_model
    else:
        arguments = recipe.model.model_dump()
        name = arguments.pop("name")
    return build_model(name, arguments, task.model_hints())


def make_loader(run: Run) -> Loader:
    """This rank's training batches, from the run's position on and without end."""
    recipe, world = run.recipe, run.engine.world
    return Loader(
        run.task.train_dataset(),
        make_order(recipe, run.plan.train_samples, world.size),
        rank=world.rank,
        size=world.size,
        batch_size=run.plan.global_batch,
        per_rank_max=run.plan.micro_batch,
        last=recipe.batch.last,
        position=run.progress.position,
        seed=recipe.seed,
        workers=recipe.data.workers,
        prefetch=recipe.data.prefetch,
        device=world.device,
    )


def make_order(recipe: Recipe, num_samples: int, world_size: int) -> Order:
    """The order in which samples are visited. ``parts`` defaults to the number of ranks the run was started with."""
    match recipe.data.order:
        case "partition":
            return Partition(num_samples, recipe.seed, recipe.data.parts or world_size)
        case "replacement":
            return WithReplacement(num_samples, recipe.seed)
        case _:
            return GlobalShuffle(num_samples, recipe.seed)


def seed_rank(seed: int, rank: int) -> None:
    """Seed the generators of torch, NumPy and Python, for what draws outside the data path (dropout); each rank its own."""
    number = int(bits(seed, 0, np.array([rank]), stream="rank")[0, 0])
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)
