"""A run directory as it is read: what its run was, and what it wrote down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disttrain.config import Recipe, load_recipe, recipe_differences
from disttrain.errors import InputError
from disttrain.rundir.environment import read_starts
from disttrain.rundir.rundir import METRICS, RECIPE
from disttrain.study.trials import Outcome, read_outcome
from disttrain.telemetry.jsonl import read_records


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run directory whose run has ended.

    Attributes:
        ranks, batch, peak_lr: of its last start.
        train_samples: of the train set.
        lines: its training lines, all of them.
        speeds: samples per second of the lines since the last start, but for the first.
    """

    path: Path
    recipe: Recipe
    outcome: Outcome
    ranks: int
    batch: int
    peak_lr: float
    train_samples: int
    lines: tuple[Mapping[str, Any], ...]
    speeds: tuple[float, ...]


def read_run(run_dir: Path) -> TrainedRun:
    """Read a run; nothing in the directory is changed, and nothing that its recipe names is run.

    Raises:
        InputError: it holds no run, one that has not ended or whose numbers are not finite, one of another version, or one
            without a single batch.
    """
    if not (run_dir / RECIPE).is_file():
        raise InputError(f"{run_dir} holds no run: {RECIPE} is missing")
    recipe = load_recipe(run_dir / RECIPE)
    if recipe.batch.varies or recipe.stages or recipe.optimizer.lr_scaling == "adascale":
        raise InputError(
            f"{run_dir}: its batch, its stages or adascale's rate change during the run, so it says nothing of one batch: plan "
            "from a run without them"
        )
    records, outcome = read_records(run_dir / METRICS), read_outcome(run_dir)
    if outcome is None:
        raise InputError(f"{run_dir}: its run has not ended: wait for it, or go on with it (train --resume)")
    losses = [reading.metrics.get("loss", 0.0) for reading in outcome.readings]
    if outcome.state == "diverged" or not all(map(math.isfinite, losses)):
        raise InputError(f"{run_dir}: its numbers are not finite, so it came nowhere: plan from a run that did")
    starts = [i for i, record in enumerate(records) if record.get("event") in ("start", "resume")]
    try:
        start = records[starts[-1]]
        ranks, batch, peak = int(start["ranks"]), int(start["global_batch"]), float(start["peak_lr"])
        train_samples = int(_plan(run_dir)["train_samples"])
    except (IndexError, KeyError, TypeError, ValueError):
        raise InputError(
            f"{run_dir}: {METRICS} and environment.jsonl do not say ranks, batch and rate: another version wrote them"
        ) from None
    lines = [_line(record) for record in records if "event" not in record and "split" not in record]
    since = [_line(record) for record in records[starts[-1] :] if "event" not in record and "split" not in record]
    speeds = [line["samples_per_second"] for line in since[1:] if line.get("samples_per_second")]
    return TrainedRun(run_dir, recipe, outcome, ranks, batch, peak, train_samples, tuple(lines), tuple(speeds))


def _line(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: value for key, value in record.items() if isinstance(value, int | float | str)}


def _plan(run_dir: Path) -> Mapping[str, Any]:
    return read_starts(run_dir)[-1]["plan"]


def check_alike(runs: Sequence[TrainedRun]) -> None:
    """Refuse runs that are not one recipe with other seeds.

    Raises:
        InputError: naming what differs.
    """
    first, *others = runs
    for other in others:
        lines = recipe_differences(first.recipe, other.recipe)
        lines = [line for line in lines if not line.startswith(("seed: ", "name: "))]
        lines += [f"batch: {first.batch} -> {other.batch}"] if first.batch != other.batch else []
        if lines:
            listed = "".join(f"\n  {line}" for line in lines)
            raise InputError(f"{first.path} and {other.path} are no runs of one recipe with other seeds:{listed}")
