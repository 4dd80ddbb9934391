"""How many samples fit through the model at once, found by training. See :mod:`disttrain.rundir.memory` for what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from disttrain.checkpoint import capture_rng, restore_rng
from disttrain.config import Recipe
from disttrain.data.shares import shares
from disttrain.engine.base import Engine
from disttrain.engine.local import LocalEngine
from disttrain.engine.memory import out_of_memory_as, ran_out, release, set_aside
from disttrain.engine.world import World
from disttrain.errors import DisttrainError, OutOfMemoryError
from disttrain.inference.prepared import construct
from disttrain.methods.execution import compiling
from disttrain.plan.plan import StepPlan, resolve_plan
from disttrain.plan.smaller import halved, on_one_rank
from disttrain.rundir.memory import note_shortage
from disttrain.tasks.make import load_sets
from disttrain.training.build import build_run, make_loader
from disttrain.training.loop import applied_update
from disttrain.training.state import Run


def largest_fit(recipe: Recipe, world: World, most: int | None = None) -> int:
    """The most samples at once with which this rank's device can train, found by training.

    A run of this rank alone, with all that the recipe asks for, makes two updates on the largest share that the rank will have
    of a global batch; where that does not fit, on pieces of half the size, and so on. The second update finds what the first
    has allocated, the optimizer's state for one. Memory is set aside for what other ranks bring, a copy of the gradients.
    Then all of it is thrown away and the random states are put back.

    Args:
        most: not to begin above.

    Raises:
        OutOfMemoryError: nothing fits.
        InputError: as :func:`build_run`.
    """
    random, alone = capture_rng(world.device), LocalEngine(World.alone(world.device))
    try:
        ready = construct(recipe, alone)
        sizes = load_sets(recipe, ready.task)
        counts, facts = (sizes.train, sizes.test), ready.facts
        del ready
        whole = resolve_plan(recipe, *counts, world.size, facts, validation_samples=sizes.validation)
        if facts.sync_norm or facts.over_global_batch:
            return whole.micro_batch  # nothing to choose: such a run cannot accumulate
        share = shares(min(whole.largest_batch, whole.epoch.samples), world.size, whole.ghost_size)[1]
        recipe = on_one_rank(recipe, share)
        plan = resolve_plan(recipe, *counts, 1, facts, validation_samples=sizes.validation, most=most)
        while not _fits(recipe, alone, plan, several=world.size > 1):
            release(world.device)
            plan = halved(recipe, plan, facts)
        return plan.micro_batch
    except DisttrainError as error:
        error.everywhere = False  # but in this rank's own world of one
        raise
    finally:
        restore_rng(random, world.device)
        release(world.device)


def _fits(recipe: Recipe, alone: Engine, plan: StepPlan, *, several: bool) -> bool:
    """Whether two updates of the last stage, which trains the most, go through with the plan's micro-batch."""
    try:
        run = build_run(recipe, alone, plan.micro_batch, seen=plan.stages[-1].start)
        with (
            compiling(),
            set_aside(run.engine.world.device, run.params if several else []),
            closing(iter(make_loader(run))) as stream,
        ):
            batch = next(stream)
            for _ in range(2):
                applied_update(run, batch, 0.0).loss().item()  # waits for the device
    except Exception as error:
        if ran_out(error) or isinstance(error, OutOfMemoryError):
            return False
        raise
    return True


@contextmanager
def noting_memory(run: Run, run_dir: Path) -> Iterator[None]:
    """Around training: a rank that runs out of memory notes it in its view of the run directory, for the next start.

    Raises:
        OutOfMemoryError: it did; the message says what the next start does.
    """
    at = run.engine.world
    with out_of_memory_as(
        lambda: note_shortage(run_dir, run.recipe, run.plan, run.facts, at, run.progress.position.updates + 1)
    ):
        yield
