"""The loop: update, look, evaluate, save, until the recipe is done or somebody asks to stop."""

from __future__ import annotations

import gc
import logging
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

from disttrain.data.batch import Batch
from disttrain.engine.stop import StopRequest, StopVote
from disttrain.errors import DivergedError, StopRequested
from disttrain.inference.evaluate import Split, at_the_end, by_name, deciding, deciding_metric, evaluate, regular
from disttrain.methods.execution import compiling
from disttrain.plan.rate import learning_rate
from disttrain.telemetry import Sink
from disttrain.training.build import make_loader
from disttrain.training.journal import Journal, where
from disttrain.training.persist import save
from disttrain.training.rehearse import check_draws, rehearse, warm_start
from disttrain.training.stages import enter_stage, stage_is_over
from disttrain.training.state import Run
from disttrain.training.step import Update, update

log = logging.getLogger("disttrain")


def train(run: Run, run_dir: Path, sink: Sink, stop: StopRequest) -> dict[str, float]:
    """Train from the run's position to its end, and return the last metrics.

    Args:
        sink: where lines go; the same calls are made on every rank.
        stop: set by a signal on any rank.

    Raises:
        StopRequested: a rank was asked to stop; everything is saved.
        DivergedError, CheckpointError, DataError: see their sources.
    """
    progress, settings = run.progress, run.recipe
    journal, vote = Journal(run, sink), StopVote(run.engine)

    def keep() -> None:
        run.engine.phase = f"saving after update {progress.position.updates}"
        journal.flush()
        save(run, run_dir)
        run.callbacks.save()

    def catch_up() -> None:
        if evaluation_due(run):
            journal.flush()
            evaluate_and_judge(run, sink)
            keep()

    run.callbacks.start()
    catch_up()  # stopped between an update and its evaluation
    with compiling(), closing(batches(run)) as stream:
        while not finished(run):
            run.engine.phase = f"in update {progress.position.updates + 1}"
            advance(run, next(stream), journal, sink)
            if stage_is_over(run):
                journal.flush()
                enter_stage(run, sink)
            run.callbacks.update()
            step = progress.position.updates
            stopping = vote(bool(stop)) and not finished(run)
            new_best = False
            if evaluation_due(run) and not stopping:
                journal.flush()
                new_best = evaluate_and_judge(run, sink)
                journal.meter.restart(progress.position.samples)
            every = settings.checkpoint.every_steps
            periodic = every is not None and step % every == 0
            if periodic or stopping or finished(run) or (new_best and settings.checkpoint.best):
                keep()
            if stopping:
                run.callbacks.end()
                done = f"after update {step} of {run.plan.updates_in_words}"
                raise StopRequested(f"stopped on request {done}; everything is saved").on_all_ranks()
    catch_up()  # a callback has ended the run when it was saved
    run.callbacks.end()
    return progress.metrics


def advance(run: Run, batch: Batch, journal: Journal, sink: Sink) -> None:
    """One update and what is to be written about it. Nothing here waits for the device, lines included."""
    progress = run.progress
    lr, scheduled = learning_rate(
        run.recipe,
        run.plan,
        scheduled=progress.scheduled,
        batch_size=batch.size,
        noise=run.methods.noise_scale,
    )
    result = applied_update(run, batch, lr * run.methods.batch_size.rate)
    progress.position = progress.position.advanced(batch)
    progress.scheduled += scheduled
    journal.note(result, last=finished(run))
    if run.recipe.log.sample_ids:
        log_sample_ids(run, batch, sink)
    for event in run.methods.all.events():
        sink.log(event)


def batches(run: Run) -> Generator[Batch, None, None]:
    """The loader's batches; the first of each stage is rehearsed before it is handed out. Where the size of the batch changes in
    a way that no plan knew, the loader begins anew there, and what it had read ahead is read again.

    What exists by then lives as long as the stage, so the garbage collector is told to leave it alone: its passes over
    every module and parameter would come at different moments on each rank, and each would hold up all the others.
    """
    rehearsed = -1
    try:
        while True:
            size = run.methods.batch_size.now
            with closing(iter(make_loader(run))) as stream:
                for batch in stream:
                    if run.stage != rehearsed:
                        rehearsed = run.stage
                        check_draws(run, batch)
                        warm_start(run, batch)
                        rehearse(run, batch)
                        gc.unfreeze()
                        gc.collect()
                        gc.freeze()
                    yield batch
                    if run.methods.batch_size.now != size:
                        break
    finally:
        gc.unfreeze()


def applied_update(run: Run, batch: Batch, lr: float) -> Update:
    """Update until it is applied: after an fp16 overflow the same batch is tried again with a smaller loss scale, so no
    sample is lost and the schedule does not advance."""
    for _ in range(run.precision.max_overflows):
        result = update(run, batch, lr)
        if result.applied:
            return result
        log.info("update %d overflowed in fp16; again with a smaller scale", run.progress.position.updates + 1)
    raise DivergedError(
        f"update {run.progress.position.updates + 1} overflowed {run.precision.max_overflows} times at ever smaller loss scales: "
        "the gradient is not finite in any precision. Use precision: bf16 or fp32 to find out where"
    ).on_all_ranks()


def finished(run: Run) -> bool:
    """Whether the recipe's length is reached, early stopping has lost patience, or a callback has asked for the end."""
    early = run.recipe.early_stopping
    if early is not None and run.progress.stale >= early.patience:
        return True
    return run.progress.scheduled >= run.plan.total_samples or bool(run.callbacks.stopped)


def evaluation_due(run: Run) -> bool:
    """Whether a multiple of ``evaluate_every`` samples, or the end, was reached since the last evaluation."""
    every, seen, last = run.plan.evaluate_every, run.progress.position.samples, run.progress.evaluated_at
    if every is None or seen == 0 or seen == last:
        return False
    return seen // every > max(last, 0) // every or finished(run)


def evaluate_and_judge(run: Run, sink: Sink) -> bool:
    """Evaluate, log, and keep the record of the best. Returns whether this is the best so far; the same on all ranks, as
    the metrics are the same. With a validation set, the test set is read once, at the end, or never."""
    progress = run.progress
    run.engine.phase = f"evaluating after update {progress.position.updates}"
    found = evaluate_all(run, regular(run))
    progress.evaluated_at = progress.position.samples
    best = judge(run, found[deciding(run)])
    progress.metrics = by_name(found)
    run.callbacks.evaluation()
    if finished(run):
        found |= evaluate_all(run, at_the_end(run))
    for split, metrics in found.items():
        sink.log({"split": split, **where(run), **metrics})
    for key, said in run.methods.noise_scale.said().items():
        sink.log({"event": key, "step": progress.position.updates, "message": said})
    progress.metrics = by_name(found)
    return best


def evaluate_all(run: Run, splits: Sequence[Split]) -> dict[Split, dict[str, float]]:
    """The metrics of each split as the run stands; of the averaged weights, where there are any."""
    with run.methods.statistics.complete(), run.methods.average.applied():
        return {split: evaluate(run, split) for split in splits}


def judge(run: Run, metrics: dict[str, float]) -> bool:
    """Hold the metric that counts against the best so far, and return whether it is better."""
    progress, early = run.progress, run.recipe.early_stopping
    name = deciding_metric(run)
    margin = early.min_delta if early is not None else 0.0
    sign = 1.0 if run.task.higher_is_better(name) else -1.0
    value = run.task.judged(metrics, name)
    if progress.best is None or sign * (value - progress.best) > margin:
        progress.best, progress.best_step, progress.stale = value, progress.position.updates, 0
        return True
    progress.stale += 1
    return False


def log_sample_ids(run: Run, batch: Batch, sink: Sink) -> None:
    """The ids every rank really trained on, in order."""
    parts: list[list[int]] = run.engine.all_gather_object(batch.ids.tolist())
    ids = [number for part in parts for number in part]
    sink.log({"event": "samples", "step": run.progress.position.updates, "epoch": batch.epoch, "ids": ids})
