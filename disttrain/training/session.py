"""One training job from joining to summary: what ``disttrain train`` does on every rank."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from disttrain.checkpoint import run_lock
from disttrain.engine.agreement import everyone, on_main, require_agreement
from disttrain.engine.base import Engine
from disttrain.engine.stop import StopRequest
from disttrain.errors import DisttrainError, InputError
from disttrain.hooks.ending import ending
from disttrain.hooks.make import make_callbacks
from disttrain.inference.choice import samples_seen
from disttrain.inference.evaluate import deciding
from disttrain.inference.weights import read
from disttrain.plan.here import from_here
from disttrain.plan.noise import never_decided, never_measured
from disttrain.plan.stages import unreached
from disttrain.rundir.environment import note_start
from disttrain.rundir.memory import Limit, known_limit
from disttrain.rundir.rundir import METRICS, Place, has_checkpoints, leave_place, make_place, note_job, write_recipe
from disttrain.rundir.settle import Request, asked_for, settle
from disttrain.telemetry import NullSink, Sink, echo_warnings, make_sinks, open_log, run_sink
from disttrain.telemetry.jsonl import truncate_after
from disttrain.training.build import build_run
from disttrain.training.loop import train
from disttrain.training.memory import largest_fit, noting_memory
from disttrain.training.persist import best, restore
from disttrain.training.state import Run

log = logging.getLogger("disttrain")


def run_session(request: Request, engine: Engine, stop: StopRequest) -> tuple[dict[str, float], dict[str, Any]]:
    """Train as requested; returns the latest metrics, and what else there is to say of the run, on every rank.

    Raises:
        DisttrainError: see :mod:`disttrain.errors`; the run directory holds the details.
    """
    with ExitStack() as leave:
        if engine.world.is_main and not request.quiet:
            leave.callback(echo_warnings())
        run, run_dir, sink = everyone(engine, lambda: set_up(request, engine, leave))
        with ending(run, sink) as end:
            metrics, about = measured(run, run_dir, sink, stop)
            end("finished", **metrics, **about)
        return metrics, about


def set_up(request: Request, engine: Engine, leave: ExitStack) -> tuple[Run, Path, Sink]:
    """All that comes before the first update. A new run's directory appears when nothing else can be refused any more."""
    require_agreement(engine, asked_for(request))  # or rank 0's recipe would be everybody's without a word
    place = on_main(engine, lambda: settle(request, engine.world.size))
    if place.goes_on:  # nobody else may write or delete what is read now
        on_main(engine, lambda: leave.enter_context(run_lock(place.path)))
    checkpoint, refused = read(engine, place.path) if place.goes_on else (None, [])
    callbacks = make_callbacks(place.recipe, request.callbacks, engine)
    limit = known_limit(place, engine, largest_fit)
    seen = on_main(engine, lambda: None if checkpoint is None else samples_seen(checkpoint))
    run = build_run(place.recipe, engine, limit.most, seen=seen)
    run.callbacks = callbacks
    if place.goes_on:
        restore(run, checkpoint)
    made = on_main(engine, lambda: take(request, place, leave))
    try:
        sink = everyone(engine, lambda: open_outlets(run, place, limit, leave, quiet=request.quiet))
    except DisttrainError:
        if made and engine.world.is_main:
            leave_place(place.path)
        raise
    for reason in refused:
        log.warning("checkpoint passed over: %s", reason)
    if place.lost and engine.world.is_main:
        log.warning("%s: ended in update %d before its first checkpoint: begins anew", place.path, place.lost)
    return run, place.path, callbacks.watch(run, place.path, sink)


def take(request: Request, place: Place, leave: ExitStack) -> bool:
    """On rank 0: the directory is this job's from now on. Returns whether it was made here."""
    made = make_place(place.path)
    if not place.goes_on:
        leave.enter_context(run_lock(place.path))
        if has_checkpoints(place.path):
            raise InputError(f"{place.path}: another job has begun a run there meanwhile")
    note_job(place.path, request.job)
    return made


def open_outlets(run: Run, place: Place, limit: Limit, leave: ExitStack, *, quiet: bool) -> Sink:
    """This rank's log file; on rank 0 the recipe, the metrics file, the recipe's sinks and the terminal too."""
    world = run.engine.world
    leave.callback(open_log(place.path, world.rank))
    log.info("rank %d of %d on %s, engine %s", world.rank, world.size, world.device, run.engine.name)
    if not world.is_main:
        return NullSink()
    if run.plan.rank_dependent:
        log.warning("the result depends on the number of ranks: %s", "; ".join(run.plan.rank_dependent))
    for number in unreached(run.plan.stages, run.plan.total_samples):
        log.warning("stage %d never begins: the run is over by then", number)
    for never in (never_measured, never_decided):
        if said := never(run.recipe, run.plan.total_updates):
            log.warning("%s", said)
    if run.recipe.evaluate is not None and not run.recipe.evaluate.test and deciding(run) == "test":
        log.warning("evaluate.test is false, but the test set decides where there is no data.validation: it is read")
    write_recipe(place.path, place.recipe)
    limit.keep(place.path)
    sink = open_sink(run, place.path, leave, quiet=quiet)
    leave.callback(sink.close)
    return sink


def open_sink(run: Run, run_dir: Path, leave: ExitStack, *, quiet: bool) -> Sink:
    """On rank 0: where records go. Lines after the resumed position are dropped first."""
    truncate_after(run_dir / METRICS, run.progress.position.updates)
    position, size = run.progress.position, run.methods.batch_size
    step = position.updates
    sink = run_sink(
        run_dir,
        total_samples=run.plan.total_samples,
        others=make_sinks(run.recipe, run_dir, step or None, leave),
        live=run.engine.world.owns_terminal,
        quiet=quiet,
    )
    world, plan = run.engine.world, run.plan
    machine = {"ranks": world.size, "engine": run.engine.name, "device": world.device.type}
    note_start(run_dir, step, run.agreed, plan, machine)
    sink.log(
        {
            "event": "resume" if step else "start",
            "step": step,
            **machine,
            **from_here(plan, position, size.at(position.samples), size.rate),
            "run_dir": str(run_dir),
        }
    )
    for note in run.notes:
        log.info("%s: %s", note["event"], note["message"])
        sink.log(note)
    return sink


def measured(run: Run, run_dir: Path, sink: Sink, stop: StopRequest) -> tuple[dict[str, float], dict[str, Any]]:
    """Train and sum up."""
    first, began = run.progress.position.samples, time.monotonic()
    with noting_memory(run, run_dir):
        metrics = train(run, run_dir, sink, stop)
    seconds = time.monotonic() - began
    trained = run.progress.position.samples - first
    return metrics, {
        "updates": run.progress.position.updates,
        "samples": run.progress.position.samples,
        "seconds": seconds,
        "samples_per_second_per_rank": trained / max(seconds, 1e-9) / run.engine.world.size,
        "ranks": run.engine.world.size,
        "engine": run.engine.name,
        **best(run, run_dir),
        **run.methods.noise_scale.summary(),
        "stopped": run.callbacks.stopped or None,
        "run_dir": str(run_dir),
    }
