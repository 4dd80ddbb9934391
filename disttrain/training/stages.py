"""From one stage of a run to the next."""

from __future__ import annotations

import gc
import logging

from disttrain.methods.trained import make_trained, take_over
from disttrain.plan.stages import stage_at
from disttrain.telemetry import Sink
from disttrain.training.state import Run

log = logging.getLogger("disttrain")


def stage_is_over(run: Run) -> bool:
    """Whether the next update is of another stage."""
    return stage_at(run.plan.stages, run.progress.position.samples) != run.stage


def enter_stage(run: Run, sink: Sink) -> None:
    """Make what trains the stage of the next update. Weights, position, averages and learned loss weights go on;
    measurements of the trained parameters together (noise scale, update angle) begin anew."""
    due = stage_at(run.plan.stages, run.progress.position.samples)
    earlier, methods = run.optimizer, run.methods
    methods.statistics.merge()
    methods.all.release()
    run.engine.detach(run.wrapped)
    now = make_trained(run.recipe, run.task, run.engine, run.precision, run.model, run.plan, run.trainable, due)
    take_over(now, methods, earlier, keep=run.plan.stages[due].keeps_optimizer)
    run.stage, (run.wrapped, run.params, run.optimizer, run.methods) = due, now
    gc.collect()  # the exchange of the stage before goes now, on all ranks alike, and not at some later moment
    step = run.progress.position.updates
    sink.log({"event": "stage", "step": step, "stage": due + 1, "parameters": sum(p.numel() for p in run.params)})
    log.info("stage %d begins after update %d: %d tensors are trained", due + 1, step, len(run.params))
