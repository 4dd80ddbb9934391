"""Which of a run's stored weights are meant: of which checkpoint, and averaged or as they were trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from disttrain.checkpoint import Checkpoint, Loaded, list_checkpoints, load_checkpoint, load_latest
from disttrain.data.position import Position
from disttrain.engine.agreement import on_main
from disttrain.engine.base import Engine
from disttrain.errors import CheckpointError, InputError, NoCheckpointError
from disttrain.inference.weights import averages

_ODD = "the progress of the run is not what disttrain writes"
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

    def about(self) -> dict[str, Any]:
        """For the summary of a command."""
        weights = "averaged" if self.averaged else "as trained"
        found = {"updates": self.step, "weights": weights, "checkpoint": str(self.path)}
        return {**found, **({"passed over": "; ".join(self.refused)} if self.refused else {})}


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
    step = _progress(checkpoint).get("best_step", "missing")
    if step is not None and type(step) is not int:
        raise CheckpointError(_ODD)
    return step


def samples_seen(checkpoint: Checkpoint) -> int:
    """How many samples the run had seen.

    Raises:
        CheckpointError: the checkpoint does not say.
    """
    position = _progress(checkpoint).get("position")
    if not isinstance(position, dict):
        raise CheckpointError(_ODD)
    return Position.from_dict(position).samples


def choose(run_dir: Path, choice: Choice) -> tuple[Checkpoint, Origin]:
    """The chosen checkpoint, and where it was.

    Raises:
        CheckpointError, NoCheckpointError: see :func:`find`.
        InputError: averages are asked for, and the run keeps none.
    """
    checkpoint, path, refused = find(run_dir, choice.which)
    averaged = choice.average is not False and bool(averages(checkpoint))
    if choice.average and not averaged:
        raise InputError(f"{run_dir} keeps no average of its weights: its recipe has no section average")
    return checkpoint, Origin(checkpoint.step, path, averaged, tuple(reason for _, reason in refused))


def fetch(engine: Engine, run_dir: Path, choice: Choice) -> tuple[Checkpoint | None, Origin]:
    """The chosen checkpoint on rank 0 (None elsewhere), and where it was, on all ranks.

    Raises:
        CheckpointError, NoCheckpointError, InputError: on all ranks; see :func:`choose`.
    """
    found: list[Checkpoint] = []

    def load() -> Origin:
        checkpoint, origin = choose(run_dir, choice)
        found.append(checkpoint)
        return origin

    origin: Origin = on_main(engine, load)
    return (found[0] if found else None), origin


def _at(run_dir: Path, step: int, why: str) -> Loaded:
    paths = list_checkpoints(run_dir)
    if step not in paths:
        there = ", ".join(map(str, sorted(paths))) or "none"
        raise NoCheckpointError(f"{run_dir} has no checkpoint of update {step}{why}; there are: {there}")
    return Loaded(load_checkpoint(paths[step]), paths[step], [])


def _progress(checkpoint: Checkpoint) -> dict[str, Any]:
    progress = checkpoint.state.get("progress")
    if not isinstance(progress, dict):
        raise CheckpointError(_ODD)
    return progress
