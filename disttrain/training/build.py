"""From a recipe and an engine to a run that is ready for its first update. The only place that wires parts
together."""

from __future__ import annotations

import numpy as np
import torch

from disttrain.config import Recipe
from disttrain.data import Loader
from disttrain.data.generators import seed_generators
from disttrain.data.randomness import bits
from disttrain.data.selection import trained_on
from disttrain.engine.agreement import everyone, on_main, require_agreement
from disttrain.engine.base import Engine
from disttrain.engine.exchange import Exchange, check_exchange
from disttrain.inference.facts import facts
from disttrain.inference.prepared import construct
from disttrain.inference.start import start_from
from disttrain.methods.execution import prepare_execution
from disttrain.methods.trainable import find_trainable
from disttrain.methods.trained import make_trained
from disttrain.plan.order import make_order
from disttrain.plan.plan import resolve_plan
from disttrain.plan.stages import stage_at
from disttrain.precision import require_device
from disttrain.tasks.make import collate_of, fraction_held_out, load_sets
from disttrain.training.state import Run


def build_run(recipe: Recipe, engine: Engine, most: int | None = None, *, seen: int | None = None) -> Run:
    """Load the data, make the model and all that trains it, give everybody rank 0's weights.

    Args:
        most: samples that fit through the model at once, where that is known better than by the recipe.
        seen: samples that the run to be gone on with has seen, which tell its stage; None: it begins, with the weights of
            ``start_from``.

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
    agreed = facts(recipe, task)
    require_agreement(engine, agreed)
    check_exchange(Exchange(**recipe.communication.model_dump()), engine.name, engine.world.size)
    notes = []
    if seen is None and recipe.start_from is not None:
        start = recipe.start_from
        notes.append(on_main(engine, lambda: start_from(model, start)))
    everyone(engine, lambda: prepare_execution(recipe, model))
    engine.place(model)
    seed_rank(recipe.seed, engine.world.rank)
    stage = stage_at(plan.stages, seen or 0)
    trainable = everyone(engine, lambda: find_trainable(recipe, plan.stages, model))
    precision = ready.precision
    trained = everyone(engine, lambda: make_trained(recipe, task, engine, precision, model, plan, trainable, stage))
    return Run(recipe, engine, task, precision, model, found, plan, trainable, stage, *trained, notes, agreed)


def make_loader(run: Run) -> Loader:
    """This rank's training batches, from the run's position on and without end."""
    recipe, world, dataset = run.recipe, run.engine.world, run.task.train_dataset()
    return Loader(
        dataset,
        make_order(recipe, run.plan.train_samples, world.size, trained_on(len(dataset), fraction_held_out(recipe))),
        rank=world.rank,
        size=world.size,
        batch_size=run.methods.batch_size.now,
        per_rank_max=run.plan.micro_batch,
        ghost_size=run.plan.ghost_size,
        slice_of=run.plan.slices.of,
        last=recipe.batch.last,
        position=run.progress.position,
        seed=recipe.seed,
        workers=recipe.data.workers,
        prefetch=recipe.data.prefetch,
        device=world.device,
        collate=collate_of(run.task),
    )


def seed_rank(seed: int, rank: int) -> None:
    """Seed the generators of torch, NumPy and Python, each rank its own, for what draws from them (`dropout: per_rank`)."""
    number = int(bits(seed, 0, np.array([rank]), stream="rank")[0, 0])
    torch.manual_seed(number)  # those of accelerators too
    seed_generators(number)
