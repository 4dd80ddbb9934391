"""Saving and restoring a run: rank 0 writes and reads, all ranks know how it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disttrain.checkpoint import Checkpoint, capture_rng, load_latest, restore_rng, save_checkpoint
from disttrain.engine.agreement import on_main
from disttrain.engine.base import Engine
from disttrain.errors import CheckpointError
from disttrain.training.build import load_weights
from disttrain.training.share import gather, mean, scatter, share
from disttrain.training.state import Prepared, Run


def save(run: Run, run_dir: Path) -> None:
    """Save the run as it stands; returns on all ranks once it is on the disk, or raises on all.

    Raises:
        CheckpointError: rank 0 could not save; the message says why.
    """
    engine, settings = run.engine, run.recipe.checkpoint
    exchange = run.exchange_state or engine.exchange_state()  # a save before the rehearsal has only what it was given
    ranks = gather(engine, {"random": capture_rng(engine.world.device), "exchange": exchange})

    def write() -> None:
        state = {**run.state_dict(), "ranks": ranks}
        checkpoint = Checkpoint(step=run.progress.position.updates, model=run.model.state_dict(), state=state)
        best = run.progress.best_step
        protect = {best} if settings.best and best is not None else set()
        save_checkpoint(run_dir, checkpoint, keep=settings.keep, protect=protect)

    with run.methods.statistics.complete():
        on_main(engine, write)


def read(engine: Engine, run_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint, on rank 0 (None elsewhere), and what was wrong with newer ones.

    Raises:
        NoCheckpointError: on all ranks, when there is none.
    """
    found: list[Checkpoint] = []

    def load() -> list[str]:
        checkpoint, _, refused = load_latest(run_dir)
        found.append(checkpoint)
        return [reason for _, reason in refused]

    refused: list[str] = on_main(engine, load)
    return (found[0] if found else None), refused


def restore(run: Run, checkpoint: Checkpoint | None) -> None:
    """Continue from ``checkpoint`` (given on rank 0).

    On as many ranks as before, of the same kind of device, each takes up its own random state and what its gradient exchange
    remembers. Otherwise random states are the fresh ones that ranks were seeded with, and every rank's exchange starts from
    the mean of the memories, which keeps the sum of what is still to be sent.

    Raises:
        CheckpointError: on all ranks: the checkpoint is of another run, or not what disttrain writes.
    """
    engine = run.engine
    with run.methods.statistics.complete():
        restore_weights(run, checkpoint, averaged=False)
    kept = None if checkpoint is None else {k: v for k, v in checkpoint.state.items() if k != "ranks"}
    run.load_state_dict(share(engine, kept))
    ranks = on_main(engine, lambda: None if checkpoint is None else described(checkpoint))
    same = ranks == {"size": engine.world.size, "cuda": engine.world.device.type == "cuda"}
    states = None if checkpoint is None else checkpoint.state["ranks"]
    if same:
        mine = scatter(engine, states)
        restore_rng(mine["random"], engine.world.device)
        run.exchange_state = mine["exchange"]
    else:
        run.exchange_state = share(engine, None if states is None else mean([s["exchange"] for s in states]))


def described(checkpoint: Checkpoint) -> dict[str, Any]:
    """How many ranks there were, and whether on GPUs.

    Raises:
        CheckpointError: the checkpoint does not say.
    """
    ranks = checkpoint.state.get("ranks")
    if not isinstance(ranks, list) or not ranks or any(set(r) != {"random", "exchange"} for r in ranks):
        raise CheckpointError("the states of the ranks are not what disttrain writes")
    return {"size": len(ranks), "cuda": "cuda" in ranks[0]["random"]}


def restore_weights(ready: Prepared, checkpoint: Checkpoint | None, *, averaged: bool) -> None:
    """Give all ranks the weights of ``checkpoint`` (given on rank 0).

    Args:
        averaged: take the averages of those parameters that have one, as evaluation does.

    Raises:
        CheckpointError: on all ranks: they are not those of the recipe's model, or not finite.
    """

    def load() -> None:
        assert checkpoint is not None
        weights = dict(checkpoint.model)
        average = checkpoint.state.get("methods", {}).get("average", {}) if averaged else {}
        for name, tensor in average.get("weights", {}).items():
            weights[name] = tensor.to(weights[name].dtype) if name in weights else tensor
        load_weights(ready.model, weights)

    on_main(ready.engine, load)
    ready.engine.broadcast_tensors(ready.model.state_dict().values())
