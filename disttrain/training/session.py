"""One training job from joining to summary: what ``disttrain train`` does on every rank."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disttrain.checkpoint import run_lock
from disttrain.config import Recipe
from disttrain.engine.agreement import on_main
from disttrain.engine.base import Engine
from disttrain.telemetry import NullSink, Sink, echo_warnings, open_log, run_sink
from disttrain.telemetry.jsonl import truncate_after
from disttrain.training.build import build_run
from disttrain.training.loop import train
from disttrain.training.persist import read, restore
from disttrain.training.rundir import (
    METRICS,
    new_run_dir,
    old_run_dir,
    recipe_to_resume,
    with_parts,
    write_recipe,
)
from disttrain.training.state import Run
from disttrain.training.stop import StopRequest

log = logging.getLogger("disttrain")


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for.

    Attributes:
        recipe: the recipe given on the command line; None with ``resume``: the one saved with the run.
        overrides: to apply to a saved recipe.
        resume: continue an existing run.
        run_dir: where; None: a new directory below ``runs/``, or the newest one there.
        trust: whether a saved recipe may have objects outside disttrain made.
    """

    recipe: Recipe | None
    overrides: list[str]
    resume: bool
    run_dir: Path | None
    trust: bool = False


def run_session(request: Request, engine: Engine, stop: StopRequest) -> dict[str, Any]:
    """Train as requested; returns the summary, the same on every rank.

    Raises:
        DisttrainError: see :mod:`disttrain.errors`; the run directory holds the details.
    """
    main = engine.world.is_main
    with ExitStack() as leave:
        run_dir, recipe = on_main(engine, lambda: settle(request, engine.world.size))
        if main:
            leave.enter_context(run_lock(run_dir))
            leave.callback(echo_warnings())
        leave.callback(open_log(run_dir, engine.world.rank))
        log.info(
            "rank %d of %d on %s, engine %s",
            engine.world.rank,
            engine.world.size,
            engine.world.device,
            engine.name,
        )
        checkpoint, refused = read(engine, run_dir) if request.resume else (None, [])
        for reason in refused:
            log.warning("checkpoint passed over: %s", reason)
        run = build_run(recipe, engine)
        if request.resume:
            restore(run, checkpoint)
        if main and run.plan.rank_dependent:
            log.warning("the result depends on the number of ranks: %s", "; ".join(run.plan.rank_dependent))
        sink = open_sink(run, run_dir) if main else NullSink()
        leave.callback(sink.close)
        if main:
            write_recipe(run_dir, recipe)
        return measured(run, run_dir, sink, stop)


def settle(request: Request, world_size: int) -> tuple[Path, Recipe]:
    """On rank 0: the run directory and the final recipe."""
    if request.resume:
        name = request.recipe.name if request.recipe is not None else None
        run_dir = old_run_dir(request.run_dir, name)
        return run_dir, recipe_to_resume(run_dir, request.recipe, request.overrides, trust=request.trust)
    assert request.recipe is not None
    recipe = request.recipe
    if recipe.data.order == "partition" and recipe.data.parts is None:
        recipe = with_parts(recipe, world_size)
    return new_run_dir(request.run_dir, recipe.name or "run"), recipe


def open_sink(run: Run, run_dir: Path) -> Sink:
    """On rank 0: the metrics file, TensorBoard and the terminal. Lines after the resumed position are dropped first."""
    truncate_after(run_dir / METRICS, run.progress.position.updates)
    step = run.progress.position.updates
    sink = run_sink(
        run_dir,
        total_samples=run.plan.total_samples,
        tensorboard=run.recipe.log.tensorboard,
        resumed_at=step if step else None,
        live=run.engine.world.owns_terminal,
    )
    world, plan = run.engine.world, run.plan
    sink.log(
        {
            "event": "resume" if step else "start",
            "step": step,
            "ranks": world.size,
            "engine": run.engine.name,
            "device": world.device.type,
            "global_batch": plan.global_batch,
            "accumulation": plan.accumulation,
            "peak_lr": plan.peak_lr,
            "updates": plan.total_updates,
            "run_dir": str(run_dir),
        }
    )
    return sink


def measured(run: Run, run_dir: Path, sink: Sink, stop: StopRequest) -> dict[str, Any]:
    """Train and sum up."""
    first, began = run.progress.position.samples, time.monotonic()
    metrics = train(run, run_dir, sink, stop)
    seconds = time.monotonic() - began
    trained = run.progress.position.samples - first
    return {
        **metrics,
        "updates": run.progress.position.updates,
        "samples": run.progress.position.samples,
        "seconds": seconds,
        "samples_per_second_per_rank": trained / max(seconds, 1e-9) / run.engine.world.size,
        "ranks": run.engine.world.size,
        "engine": run.engine.name,
        "run_dir": str(run_dir),
    }
