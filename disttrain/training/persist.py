"""Saving and restoring a run: rank 0 writes and reads, all ranks know how it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from disttrain.checkpoint import Checkpoint, capture_rng, load_latest, restore_rng, save_checkpoint
from disttrain.engine.agreement import on_main
from disttrain.errors import CheckpointError
from disttrain.training.state import Progress, Run


def save(run: Run, run_dir: Path) -> None:
    """Save the run as it stands; returns on all ranks once it is on the disk, or raises on all.

    Raises:
        CheckpointError: rank 0 could not save; the message says why.
    """
    engine = run.engine
    if run.noise is not None:
        run.progress.noise_scale = run.noise.estimate.state_dict()
    run.progress.balance = run.balance.state_dict()
    rng = engine.all_gather_object(capture_rng(engine.world.device))
    settings = run.recipe.checkpoint

    average = run.average.state_dict()

    def write() -> None:
        checkpoint = Checkpoint(
            step=run.progress.position.updates,
            model=engine.unwrap(run.model).state_dict(),
            optimizer={**run.optimizer.state_dict(), **({"average": average} if average else {})},
            state={"progress": run.progress.to_dict(), "precision": run.precision.state_dict()},
            rng=rng,
        )
        best = run.progress.best_step
        protect = {best} if settings.best and best is not None else set()
        save_checkpoint(run_dir, checkpoint, keep=settings.keep, protect=protect)

    with run.statistics.complete():
        on_main(engine, write)


def read(engine: Any, run_dir: Path) -> tuple[Checkpoint | None, list[str]]:
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
    """Continue from ``checkpoint`` (given on rank 0): optimizer, loss scale, position and random state.

    The model's parameters were restored on rank 0 before :meth:`Engine.prepare` and travelled from there. A rank takes
    up its own random state where the number of ranks and the kind of device are the same, and otherwise keeps the fresh
    one it was seeded with.
    """
    engine = run.engine
    if checkpoint is not None:
        run.optimizer.load_state_dict({k: v for k, v in checkpoint.optimizer.items() if k != "average"})
    share_optimizer(run)
    restore_average(run, checkpoint)
    small = None if checkpoint is None else (checkpoint.state, checkpoint.rng)
    state, rng = engine.broadcast_object(small)
    run.progress = Progress.from_dict(state["progress"])
    if run.noise is not None and run.progress.noise_scale is not None:
        run.noise.estimate.load_state_dict(run.progress.noise_scale)
    run.balance.load_state_dict(run.progress.balance)
    run.precision.load_state_dict(state["precision"])
    same_device = ("cuda" in rng[0]) == (engine.world.device.type == "cuda")
    if len(rng) == engine.world.size and same_device:
        restore_rng(rng[engine.world.rank], engine.world.device)


def restore_average(run: Run, checkpoint: Checkpoint | None) -> None:
    """Continue the average of the weights from ``checkpoint`` (given on rank 0); of one without an average, from its weights.

    Raises:
        CheckpointError: on all ranks: it is an average of another kind or model.
    """
    if not run.average.state_dict():
        return

    def load() -> dict[str, Any]:
        assert checkpoint is not None
        stored = checkpoint.optimizer.get("average")
        if stored is not None:
            try:
                run.average.load_state_dict(stored)
            except (KeyError, ValueError) as error:
                raise CheckpointError(f"the average of the weights cannot be continued: {error}") from None
        return {name: value for name, value in run.average.state_dict().items() if name != "weights"}

    numbers = on_main(run.engine, load)
    run.engine.broadcast_tensors(run.average.weights)
    run.average.load_state_dict({**numbers, "weights": run.average.weights})


def share_optimizer(run: Run) -> None:
    """Give all ranks rank 0's optimizer: state tensors, step counters and hyper-parameters."""
    engine = run.engine
    if engine.world.size == 1:
        return
    mine = run.optimizer.state_dict()
    device = engine.world.device
    tensors: dict[tuple[int, str], torch.Tensor] = {
        (index, name): value
        for index, state in mine["state"].items()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    skeleton = engine.broadcast_object(
        {
            "param_groups": mine["param_groups"],
            "state": {
                index: {name: None if (index, name) in tensors else value for name, value in state.items()}
                for index, state in mine["state"].items()
            },
            # Step counters stay on the CPU while moments sit beside their parameters.
            "tensors": {key: (tuple(t.shape), t.dtype, t.device.type) for key, t in tensors.items()},
        }
    )
    if not engine.world.is_main:
        tensors = {
            key: torch.empty(shape, dtype=dtype, device=device if kind != "cpu" else "cpu")
            for key, (shape, dtype, kind) in skeleton["tensors"].items()
        }
    engine.broadcast_tensors(tensors.values())
    for (index, name), value in tensors.items():
        skeleton["state"][index][name] = value
    run.optimizer.load_state_dict({"state": skeleton["state"], "param_groups": skeleton["param_groups"]})
