"""Writing a checkpoint with what each rank alone has, and finding out for whom it was written."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from disttrain.checkpoint import Checkpoint, save_checkpoint
from disttrain.checkpoint.fit import check_finite
from disttrain.engine.agreement import on_main
from disttrain.engine.base import Engine
from disttrain.errors import CheckpointError, RankError, UserCodeError


def write(
    engine: Engine,
    run_dir: Path,
    make: Callable[[], Checkpoint],
    *,
    keep: int,
    protect: Collection[int] = frozenset(),
) -> None:
    """Save what ``make`` gives on rank 0; returns on all ranks once it is on the disk, or raises on all.

    Raises:
        CheckpointError: rank 0 could not save; the message says why.
        RankError: code of the user's failed there, or of ours.
    """

    def save() -> None:
        save_checkpoint(run_dir, make(), keep=keep, protect=protect)

    try:
        on_main(engine, save)
    except UserCodeError as error:  # what is wrong input while a run is set up is a failed rank by now
        raise RankError(f"rank 0 failed {engine.phase}: {error}").on_all_ranks() from error


def described(checkpoint: Checkpoint | None, parts: Collection[str]) -> dict[str, Any]:
    """On rank 0: of which update it is, how many ranks there were, and whether on GPUs.

    Args:
        parts: what each rank has of its own; ``random`` is among it.

    Raises:
        CheckpointError: the checkpoint does not say, or holds numbers that are not finite.
    """
    assert checkpoint is not None
    ranks = checkpoint.state.get("ranks")
    if not isinstance(ranks, list) or not ranks or not all(_is_rank(rank, parts) for rank in ranks):
        raise CheckpointError("the states of the ranks are not what disttrain writes")
    check_finite({name: part for name, part in checkpoint.state.items() if name not in ("ranks", "values")})
    return {"step": checkpoint.step, "size": len(ranks), "cuda": "cuda" in ranks[0]["random"]}


def fits(engine: Engine, found: dict[str, Any]) -> bool:
    """Whether what each rank had goes on: there are as many ranks, of the same kind of device."""
    return (found["size"], found["cuda"]) == (engine.world.size, engine.world.device.type == "cuda")


def _is_rank(state: Any, parts: Collection[str]) -> bool:
    return (
        isinstance(state, dict)
        and state.keys() == set(parts)
        and all(isinstance(part, dict) for part in state.values())
    )
