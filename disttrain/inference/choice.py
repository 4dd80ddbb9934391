"""Which of a run's stored weights are meant: of which checkpoint, and averaged or as they were trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from disttrain.checkpoint import Checkpoint, Loaded, list_checkpoints, load_checkpoint, load_latest
from disttrain.data.position import Position
from disttrain.engine.agreement import on_main
from disttrain.engine.base import Engine
from disttrain.errors import CheckpointError, InputError, NoCheckpointError
from disttrain.inference.weights import averages

Which = Literal["newest", "best"] | int
"""A checkpoint of a run: the newest valid one, the one whose metric was the best, or that of an update."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Stored weights.

    Attributes:
        which: of which checkpoint.
        average: take the averages of those parameters that have one (True: there must be some), or the weights as they were
            trained (False); None: averages where the run keeps some, as its own evaluations do.
    """

    which: Which = "newest"
    average: bool | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where weights were found.

    Attributes:
        step: number of updates they have seen.
        path: the checkpoint.
        averaged: whether they are the averages.
        refused: why newer checkpoints were passed over.
    """

    step: int
    path: Path
    averaged: bool
    refused: tuple[str, ...] = ()


def find(run_dir: Path, which: Which = "newest") -> Loaded:
    """Load a checkpoint of a run.

    Raises:
        CheckpointError: it does not load; the message says why.
        NoCheckpointError: there is none such.
    """
    if which == "newest":
        return load_latest(run_dir)
    if which != "best":
        return _at(run_dir, which, "")
    newest = load_latest(run_dir)
    step = best_step(newest.checkpoint)
    if step is None:
        raise NoCheckpointError(f"{run_dir} has no best checkpoint: the run has not been evaluated yet")
    if step == newest.checkpoint.step:
        return newest
    return _at(run_dir, step, ", which was the best; checkpoint.best: true keeps it")._replace(refused=newest.refused)


def best_step(checkpoint: Checkpoint) -> int | None:
    """The update after which the run's metric was the best so far; None before the first evaluation.

    Raises:
        CheckpointError: the checkpoint does not say.
    """
    progress = checkpoint.state.get("progress")
    step = progress.get("best_step") if isinstance(progress, dict) else "missing"
    if step is not None and type(step) is not int:
        raise CheckpointError("the progress of the run is not what disttrain writes")
    return step


def samples_seen(checkpoint: Checkpoint) -> int:
    """How many samples the run had seen.

    Raises:
        CheckpointError: the checkpoint does not say.
    """
    progress = checkpoint.state.get("progress")
    position = progress.get("position") if isinstance(progress, dict) else None
    if not isinstance(position, dict):
        raise CheckpointError("the progress of the run is not what disttrain writes")
    return Position.from_dict(position).samples


def fetch(engine: Engine, run_dir: Path, choice: Choice) -> tuple[Checkpoint | None, Origin]:
    """The chosen checkpoint on rank 0 (None elsewhere), and where it was, on all ranks.

    Raises:
        CheckpointError, NoCheckpointError: on all ranks; see :func:`find`.
        InputError: on all ranks: averages are asked for, and the run keeps none.
    """
    found: list[Checkpoint] = []

    def load() -> Origin:
        checkpoint, path, refused = find(run_dir, choice.which)
        kept = bool(averages(checkpoint))
        if choice.average and not kept:
            raise InputError(f"{run_dir} keeps no average of its weights: its recipe has no section average")
        found.append(checkpoint)
        averaged = kept and choice.average is not False
        return Origin(checkpoint.step, path, averaged, tuple(reason for _, reason in refused))

    origin: Origin = on_main(engine, load)
    return (found[0] if found else None), origin


def _at(run_dir: Path, step: int, why: str) -> Loaded:
    paths = list_checkpoints(run_dir)
    if step not in paths:
        there = ", ".join(map(str, sorted(paths))) or "none"
        raise NoCheckpointError(f"{run_dir} has no checkpoint of update {step}{why}; there are: {there}")
    return Loaded(load_checkpoint(paths[step]), paths[step], [])
