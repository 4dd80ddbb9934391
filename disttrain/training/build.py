"""From a recipe and an engine to a run that is ready for its first update. The only place that wires parts together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from disttrain.checkpoint import Checkpoint, load_latest
from disttrain.config import Recipe
from disttrain.data import Loader, Order
from disttrain.data.order import GlobalShuffle, Partition, WithReplacement
from disttrain.data.randomness import bits
from disttrain.engine.agreement import everyone, on_main, require_agreement
from disttrain.engine.base import Engine
from disttrain.engine.exchange import Exchange
from disttrain.errors import CheckpointError, InputError
from disttrain.grads import NoiseScale
from disttrain.methods.averaging import make_average
from disttrain.methods.balance import make_balance
from disttrain.methods.batch_norm import RunningStatistics, convert_batch_norm
from disttrain.methods.gradient import make_methods
from disttrain.methods.noise_scale import NoiseMeter
from disttrain.models.build import build_model, is_ours
from disttrain.plan.plan import StepPlan, resolve_plan
from disttrain.precision import PRECISIONS
from disttrain.tasks.base import Task
from disttrain.training.facts import facts
from disttrain.training.optimizers import make_optimizer
from disttrain.training.state import Progress, Run
from disttrain.training.task import checked_sizes, make_task


def build(recipe: Recipe, engine: Engine, checkpoint: Checkpoint | None = None) -> Run:
    """Load the data, make the model, give everybody rank 0's state.

    Args:
        checkpoint: on rank 0, what to continue from; see :func:`disttrain.training.persist.restore` for the rest.

    Raises:
        InputError, RankError: on all ranks: something is wrong on some of them, or they differ.
    """

    def load() -> Task:
        task = make_task(recipe)
        task.train_dataset()
        task.test_dataset()
        return task

    task = everyone(engine, load)
    sizes = everyone(engine, lambda: checked_sizes(recipe, task))
    plan = everyone(engine, lambda: resolve_plan(recipe, sizes.train, sizes.test, engine.world.size))
    require_agreement(engine, facts(recipe, task))

    precision = PRECISIONS[recipe.precision](engine.world.device)
    precision.activate()
    torch.manual_seed(recipe.seed)
    model = everyone(engine, lambda: convert_batch_norm(recipe, make_model(recipe, task), engine))
    model = model.to(precision.parameter_dtype)
    if checkpoint is not None:
        model.load_state_dict(checkpoint.model)
    elif recipe.start_from is not None:
        on_main(engine, lambda: start_from(model, Path(recipe.start_from or "")))
    ours = recipe.model is None or is_ours(recipe.model.name)
    # GradNorm's own passes through the graph are not those that DDP learns the graph from.
    gradnorm = recipe.loss.balance is not None and recipe.loss.balance.kind == "gradnorm"
    static_graph = task.static_graph and ours and not gradnorm
    model = engine.prepare(model.train(), static_graph=static_graph, exchange=make_exchange(recipe))
    bare = engine.unwrap(model)
    seed_rank(recipe.seed, engine.world.rank)
    optimizer = everyone(engine, lambda: make_optimizer(recipe, bare, plan.peak_lr, plan.global_batch))
    params = [p for group in optimizer.param_groups for p in group["params"]]
    if plan.momentum is not None and not optimizer.param_groups[0].keys() & {"momentum", "betas"}:
        raise InputError(
            f"schedule.decay.kind one_cycle cycles the momentum, and optimizer {recipe.optimizer.name} has none"
        ).on_all_ranks()
    return Run(
        recipe,
        plan,
        engine,
        task,
        model,
        params,
        optimizer,
        precision,
        Progress(),
        balance=everyone(engine, lambda: make_balance(recipe, engine, precision, bare)),
        methods=everyone(engine, lambda: make_methods(recipe, bare)),
        statistics=RunningStatistics(bare, engine, plan.ghost_size),
        average=make_average(recipe, plan, [p for p in bare.parameters() if p.requires_grad]),
        noise=make_noise_meter(recipe, plan, engine, params),
    )


def make_exchange(recipe: Recipe) -> Exchange:
    """From the recipe's ``communication`` section."""
    return Exchange(**recipe.communication.model_dump())


def make_noise_meter(
    recipe: Recipe, plan: StepPlan, engine: Engine, params: Sequence[torch.nn.Parameter]
) -> NoiseMeter | None:
    """Measures in every update for AdaScale, and otherwise as often as ``noise_scale`` says.

    Raises:
        InputError: every update is a single micro-batch, which says nothing of the noise.
    """
    adascale = recipe.optimizer.lr_scaling == "adascale"
    if recipe.noise_scale is None and not adascale:
        return None
    if engine.world.size * plan.accumulation < 2 and plan.largest_batch == plan.global_batch:
        raise InputError(
            "the noise scale is measured between the micro-batches of an update, and there is only one: start more ranks, or set "
            f"batch.per_rank_max to {max(plan.global_batch // 2, 1)} or less"
        )
    every = 1 if adascale or recipe.noise_scale is None else recipe.noise_scale.every_steps
    return NoiseMeter(params, engine, every, NoiseScale())


def start_from(model: torch.nn.Module, run_dir: Path) -> None:
    """Give ``model`` the weights of another run's newest checkpoint.

    Raises:
        InputError: there is none, or its tensors are not the model's.
    """
    try:
        weights = load_latest(run_dir).checkpoint.model
    except CheckpointError as error:
        raise InputError(f"start_from: {error}") from None
    mine = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    odd = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if odd:
        name = odd[0]
        raise InputError(
            f"start_from {run_dir}: {len(odd)} tensors are not those of this recipe's model: {name} is "
            f"{theirs.get(name, 'missing')} there and {mine.get(name, 'missing')} here"
        )
    model.load_state_dict(dict(weights))


def make_model(recipe: Recipe, task: Task) -> torch.nn.Module:
    """The recipe's model, or the task's own default, in the task's shapes."""
    if recipe.model is None:
        name, arguments = task.default_model
    else:
        # null in a section of ours means "not given", so that the task's hint or the model's default holds.
        arguments = recipe.model.model_dump(exclude_none=is_ours(recipe.model.name))
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
