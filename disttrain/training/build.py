"""From a recipe and an engine to a run that is ready for its first update. The only place that wires parts
together."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from disttrain.config import Recipe
from disttrain.data import Loader, Order
from disttrain.data.order import GlobalShuffle, Partition, WithReplacement
from disttrain.data.randomness import bits
from disttrain.data.selection import Selection, trained_on
from disttrain.engine.agreement import everyone, on_main, require_agreement
from disttrain.engine.base import Engine
from disttrain.engine.exchange import Exchange
from disttrain.inference.prepared import construct
from disttrain.inference.weights import start_from
from disttrain.methods.base import Context
from disttrain.methods.execution import prepare_execution
from disttrain.methods.make import make_methods
from disttrain.methods.model import has_static_graph
from disttrain.methods.optimizers import make_optimizer
from disttrain.plan.plan import resolve_plan
from disttrain.precision import require_device
from disttrain.tasks.make import collate_of, fraction_held_out, load_sets
from disttrain.training.facts import facts
from disttrain.training.state import Run


def build_run(recipe: Recipe, engine: Engine, most: int | None = None) -> Run:
    """Load the data, make the model and all that trains it, give everybody rank 0's weights.

    Args:
        most: samples that fit through the model at once, where that is known better than by the recipe.

    Raises:
        InputError, RankError: on all ranks: something is wrong on some of them, or they differ.
    """
    everyone(engine, lambda: require_device(recipe.precision, engine.world.device))
    ready = construct(recipe, engine)
    task, model, found = ready.task, ready.model, ready.facts
    sizes = everyone(engine, lambda: load_sets(recipe, task))
    plan = everyone(
        engine,
        lambda: resolve_plan(
            recipe, sizes.train, sizes.test, engine.world.size, found, validation_samples=sizes.validation, most=most
        ),
    )
    require_agreement(engine, facts(recipe, task))
    if recipe.start_from is not None:
        on_main(engine, lambda: start_from(model, Path(recipe.start_from or "")))
    everyone(engine, lambda: prepare_execution(recipe, model))
    wrapped = engine.prepare(
        model.train(),
        static_graph=has_static_graph(recipe, task),
        exchange=Exchange(**recipe.communication.model_dump()),
    )
    seed_rank(recipe.seed, engine.world.rank)
    optimizer = everyone(engine, lambda: make_optimizer(recipe, model, plan.peak_lr, plan.global_batch))
    params = [p for group in optimizer.param_groups for p in group["params"]]
    context = Context(recipe, plan, engine, ready.precision, model, params, optimizer)
    methods = everyone(engine, lambda: make_methods(context))
    return Run(recipe, engine, task, ready.precision, model, found, plan, wrapped, params, optimizer, methods)


def make_loader(run: Run) -> Loader:
    """This rank's training batches, from the run's position on and without end."""
    recipe, world, dataset = run.recipe, run.engine.world, run.task.train_dataset()
    return Loader(
        dataset,
        make_order(recipe, run.plan.train_samples, world.size, trained_on(len(dataset), fraction_held_out(recipe))),
        rank=world.rank,
        size=world.size,
        batch_size=run.plan.batch_at,
        per_rank_max=run.plan.micro_batch,
        ghost_size=run.plan.ghost_size,
        last=recipe.batch.last,
        position=run.progress.position,
        seed=recipe.seed,
        workers=recipe.data.workers,
        prefetch=recipe.data.prefetch,
        device=world.device,
        collate=collate_of(run.task),
    )


def make_order(recipe: Recipe, num_samples: int, world_size: int, chosen: Selection | None = None) -> Order:
    """The order in which samples are visited, all of them or those ``chosen``. ``parts`` defaults to the number of ranks the
    run was started with."""
    match recipe.data.order:
        case "partition":
            return Partition(num_samples, recipe.seed, recipe.data.parts or world_size, chosen)
        case "replacement":
            return WithReplacement(num_samples, recipe.seed, chosen)
        case _:
            return GlobalShuffle(num_samples, recipe.seed, chosen)


def seed_rank(seed: int, rank: int) -> None:
    """Seed the generators of torch, NumPy and Python, for what draws outside the data path (dropout); each rank its own."""
    number = int(bits(seed, 0, np.array([rank]), stream="rank")[0, 0])
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)
