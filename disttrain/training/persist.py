"""Saving and restoring a run: rank 0 writes and reads, all ranks know how it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disttrain.checkpoint import Checkpoint, capture_rng, list_checkpoints, restore_rng
from disttrain.checkpoint.fit import check_finite, check_form, check_settings, check_state, continuing
from disttrain.engine.agreement import everyone, on_main
from disttrain.engine.base import Engine
from disttrain.errors import CheckpointError
from disttrain.inference.evaluate import deciding, deciding_metric
from disttrain.inference.weights import restore_weights
from disttrain.methods.execution import lay_out
from disttrain.plan.stages import is_first
from disttrain.state.ranks import described, fits, write
from disttrain.state.share import gather, mean, scatter, share
from disttrain.training.state import Run

_RANK = ("random", "exchange", "methods")


def save(run: Run, run_dir: Path) -> None:
    """Save the run as it stands; returns on all ranks once it is on the disk, or raises on all.

    Raises:
        CheckpointError: rank 0 could not save; the message says why.
    """
    engine, settings = run.engine, run.recipe.checkpoint
    run.methods.noise_scale.settle()
    exchange = (
        run.exchange_state or engine.memory.state_dict()
    )  # a save before the rehearsal has only what it was given
    mine = {
        "random": capture_rng(engine.world.device),
        "exchange": exchange,
        "methods": run.methods.all.rank_state_dict(),
    }
    ranks = gather(engine, mine)

    def make() -> Checkpoint:
        state = {**run.state_dict(), "ranks": ranks}
        return Checkpoint(step=run.progress.position.updates, model=run.model.state_dict(), state=state)

    protect = {run.progress.best_step} if settings.best else set()
    with run.methods.statistics.complete():
        write(engine, run_dir, make, keep=settings.keep, protect={step for step in protect if step is not None})


def best(run: Run, run_dir: Path) -> dict[str, Any]:
    """For the summary: the best value of the metric that counts, the update it was seen at, and its checkpoint if it is there."""
    step = run.progress.best_step
    if step is None:
        return {}
    path = on_main(run.engine, lambda: list_checkpoints(run_dir).get(step))
    split, name = deciding(run), deciding_metric(run)
    value = {f"best_{name}" if split == "test" else f"best_{split}_{name}": run.progress.best}
    return {**value, "best_step": step, "best_checkpoint": None if path is None else str(path)}


def restore(run: Run, checkpoint: Checkpoint | None) -> None:
    """Continue from ``checkpoint`` (given on rank 0).

    On as many ranks as before, of the same kind of device, each takes up its own random state, its part of the running
    statistics and what its gradient exchange remembers. Otherwise random states are the fresh ones that ranks were seeded
    with, parts are equal, and every rank's exchange starts from the mean of the memories, which keeps the sum of what is
    still to be sent.

    Raises:
        CheckpointError: on all ranks: the checkpoint is of another run, or not what disttrain writes.
    """
    engine = run.engine
    found: dict[str, Any] = on_main(engine, lambda: described(checkpoint, _RANK))
    groups = [dict(group) for group in run.optimizer.param_groups]
    restore_weights(run, checkpoint, averaged=False)
    run.methods.statistics.divide()
    state = share(engine, None if checkpoint is None else {k: v for k, v in checkpoint.state.items() if k != "ranks"})

    def load() -> None:
        run.load_state_dict(state)
        lay_out(run.optimizer)
        check_settings(run.optimizer, groups)
        if ":" not in run.recipe.optimizer.name:
            check_state(
                run.optimizer,
                begins=is_first(run.plan.stages[run.stage], run.plan.epoch, run.progress.position.samples),
            )
        if run.progress.position.updates != found["step"]:
            raise CheckpointError(f"the checkpoint of update {found['step']} is at {run.progress.position.updates}")

    everyone(engine, load)
    ranks = None if checkpoint is None else checkpoint.state["ranks"]
    if fits(engine, found):
        mine = scatter(engine, ranks)
        everyone(engine, lambda: take_up(run, mine))
    else:
        run.exchange_state = share(engine, _mean_exchange(engine, ranks))


def take_up(run: Run, mine: dict[str, Any]) -> None:
    """Go on from what this rank alone had.

    Raises:
        CheckpointError: it is not what disttrain writes.
    """
    restore_rng(mine["random"], run.engine.world.device)
    run.exchange_state = mine["exchange"]
    check_form(run.methods.all.rank_state_dict(), mine["methods"], "ranks.methods")
    check_finite(mine["methods"])
    with continuing("a rank's state"):
        run.methods.all.load_rank_state_dict(mine["methods"])


def _mean_exchange(engine: Engine, ranks: list[Any] | None) -> Any:
    """On rank 0; an error there is everybody's."""
    found: list[Any] = [None]

    def average() -> None:
        found[0] = mean([rank["exchange"] for rank in ranks or []])

    on_main(engine, average)
    return found[0]
