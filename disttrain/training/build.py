"""From a recipe and an engine to a model, or to a run that is ready for its first update. The only place that wires parts
together."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from disttrain.checkpoint import load_latest
from disttrain.config import Recipe
from disttrain.data import Loader, Order
from disttrain.data.order import GlobalShuffle, Partition, WithReplacement
from disttrain.data.randomness import bits
from disttrain.data.selection import Selection, trained_on
from disttrain.engine.agreement import everyone, on_main, require_agreement
from disttrain.engine.base import Engine
from disttrain.engine.exchange import Exchange
from disttrain.errors import CheckpointError, InputError
from disttrain.methods.base import Context
from disttrain.methods.make import make_methods
from disttrain.methods.model import has_static_graph, make_model
from disttrain.methods.optimizers import make_optimizer
from disttrain.plan.plan import resolve_plan
from disttrain.precision import PRECISIONS
from disttrain.tasks.make import fraction_held_out, load_sets, make_task
from disttrain.training.facts import facts
from disttrain.training.state import Prepared, Run


def build_model(recipe: Recipe, engine: Engine) -> Prepared:
    """The recipe's task and model, the model the same on all ranks: no optimizer, no train set, any number of ranks.

    Raises:
        InputError, RankError: on all ranks: something is wrong on some of them, or they differ.
    """
    ready = construct(recipe, engine)
    engine.place(ready.model)
    return ready


def build_run(recipe: Recipe, engine: Engine) -> Run:
    """Load the data, make the model and all that trains it, give everybody rank 0's weights.

    Raises:
        InputError, RankError: on all ranks: something is wrong on some of them, or they differ.
    """
    ready = construct(recipe, engine)
    task, model, found = ready.task, ready.model, ready.facts
    sizes = everyone(engine, lambda: load_sets(recipe, task))
    plan = everyone(
        engine,
        lambda: resolve_plan(
            recipe, sizes.train, sizes.test, engine.world.size, found, validation_samples=sizes.validation
        ),
    )
    require_agreement(engine, facts(recipe, task))
    if recipe.start_from is not None:
        on_main(engine, lambda: start_from(model, Path(recipe.start_from or "")))
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


def construct(recipe: Recipe, engine: Engine) -> Prepared:
    """Task and model as each rank makes them by itself."""
    task = everyone(engine, lambda: make_task(recipe))
    precision = PRECISIONS[recipe.precision](engine.world.device)
    precision.activate()
    torch.manual_seed(recipe.seed)
    model, found = everyone(engine, lambda: make_model(recipe, task, task.model_hints(), engine.all_reduce))
    return Prepared(recipe, engine, task, precision, model.to(precision.parameter_dtype), found)


def start_from(model: torch.nn.Module, run_dir: Path) -> None:
    """Give ``model`` the weights of another run's newest checkpoint.

    Raises:
        InputError: there is none, or its tensors are not the model's.
    """
    try:
        load_weights(model, dict(load_latest(run_dir).checkpoint.model))
    except CheckpointError as error:
        raise InputError(f"start_from {run_dir}: {error}") from None


def load_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Give ``model`` stored weights.

    Raises:
        CheckpointError: they are not the model's in names and shapes, or not finite.
    """
    mine = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    odd = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if odd:
        name = odd[0]
        raise CheckpointError(
            f"{len(odd)} tensors are not those of this recipe's model: {name} is {theirs.get(name, 'missing')} there and "
            f"{mine.get(name, 'missing')} here"
        )
    broken = sorted(name for name, tensor in weights.items() if not bool(tensor.isfinite().all()))
    if broken:
        raise CheckpointError(f"{len(broken)} tensors of the model are not finite, {broken[0]} for one")
    model.load_state_dict(weights)


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
