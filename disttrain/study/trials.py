"""Trainings of many recipes, each in a run directory of its own, which is all that is remembered of it.

A trial that has ended is known by its run directory and is not run again; one that was killed goes on from its newest
checkpoint, or begins anew where it had none. So whoever asks for the same trials again gets the same outcomes, whatever
happened in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from disttrain.config import Recipe, dump_recipe
from disttrain.errors import DivergedError, RankError
from disttrain.rundir.rundir import METRICS
from disttrain.telemetry.jsonl import read_records
from disttrain.verify.spawn import run_ranks

DAYS = 30 * 86400.0
"""Seconds that a trial on several ranks may take: a study has no opinion on that."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One training. What watches it, and may end it early, are the ``callbacks`` of its recipe.

    Attributes:
        recipe: of any kind; the same at every call, or the run directory is refused.
        run_dir: its own.
    """

    recipe: Recipe
    run_dir: Path


@dataclass(frozen=True, slots=True)
class Reading:
    """What an evaluation of one split found; a value that was not finite is one here too."""

    split: str
    step: int
    samples: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended; of one that is still on its way there is none.

    Attributes:
        state: ``complete``: to the recipe's end (early stopping included); ``stopped``: a callback ended it; ``diverged``: a
            number was not finite.
        why: what the callback, or the error, said.
        updates, samples: made.
        seconds_per_sample: of training; evaluations and the first line of each start are not in it. None without other lines.
        readings: every evaluation, in order.
    """

    state: Literal["complete", "stopped", "diverged"]
    why: str
    updates: int
    samples: int
    seconds_per_sample: float | None
    readings: tuple[Reading, ...]

    def curve(self, split: str, metric: str) -> list[tuple[int, float]]:
        """Samples seen and the value of a metric, at each evaluation that has it."""
        return [(r.samples, r.metrics[metric]) for r in self.readings if r.split == split and metric in r.metrics]


def read_outcome(run_dir: Path) -> Outcome | None:
    """The outcome of the run in a directory; None: there is none, or it has not ended by itself.

    Raises:
        InputError: the file of its lines cannot be read.
    """
    records = read_records(run_dir / METRICS)
    if not records or (ended := _ended(records[-1])) is None:
        return None
    state, why = ended
    seen = [r["samples"] for r in records if type(r.get("samples")) is int]
    return Outcome(
        state=state,
        why=why,
        updates=int(records[-1].get("step", 0)),
        samples=max(seen, default=0),
        seconds_per_sample=_seconds_per_sample(records),
        readings=tuple(_reading(r) for r in records if "split" in r),
    )


def run_trial(trial: Trial, *, ranks: int = 1, engine: str = "ddp") -> None:
    """Train until the trial has ended; one that diverges has ended too.

    Args:
        ranks: processes of this machine; one trains in this process.
        engine: of several ranks: ``ddp``, ``horovod`` or ``horovod-mpi``.

    Raises:
        StopRequested: a signal asked for it.
        DisttrainError: the recipe cannot be trained.
    """
    from disttrain.api.train import train  # torch is loaded where something is trained

    try:
        if ranks == 1:
            train(trial.recipe, run_dir=trial.run_dir, resume="auto", engine="local", quiet=True)
        else:
            _on_ranks(trial, ranks, engine)
    except DivergedError:
        pass  # an answer like others: its records say where
    except RankError:
        if read_outcome(trial.run_dir) is None:
            raise


def _on_ranks(trial: Trial, ranks: int, engine: str) -> None:
    log_dir = trial.run_dir.with_name(f"{trial.run_dir.name}-output")
    log_dir.mkdir(parents=True, exist_ok=True)
    path = log_dir / "recipe.yaml"
    path.write_text(dump_recipe(trial.recipe), encoding="utf-8")
    arguments = ["train", str(path), "--run-dir", str(trial.run_dir), "--resume", "auto"]
    arguments += ["--engine", engine.removesuffix("-mpi")]
    run_ranks(arguments, ranks, engine, log_dir=log_dir, timeout_seconds=DAYS)


def _seconds_per_sample(records: Sequence[Mapping[str, Any]]) -> float | None:
    """By the time of all lines together: updates that measure something take several times as long as those between."""
    seconds, samples, before = 0.0, 0, None
    for record in records:
        if record.get("event") == "start":
            before = None  # the first line also has what is made at the first update
        elif isinstance(rate := record.get("samples_per_second"), int | float) and rate > 0:
            made = record["samples"] - before if before is not None else 0
            seconds, samples, before = seconds + made / rate, samples + made, record["samples"]
    return seconds / samples if samples else None


def _ended(record: Mapping[str, Any]) -> tuple[Literal["complete", "stopped", "diverged"], str] | None:
    if record.get("event") != "end":
        return None
    if record.get("state") == "finished":
        why = record.get("stopped")
        return ("stopped", str(why)) if why else ("complete", "")
    message = str(record.get("message", ""))
    return ("diverged", message) if message.startswith(DivergedError.__name__) else None


def _reading(record: Mapping[str, Any]) -> Reading:
    known = {"split", "step", "epoch", "samples", "time"}
    metrics: dict[str, float] = {}
    for name, value in record.items():
        if name in known or name.endswith("_nonfinite"):
            continue
        value = record.get(f"{name}_nonfinite", value)
        metrics[name] = math.nan if value is None else float(value)
    return Reading(str(record["split"]), int(record["step"]), int(record["samples"]), metrics)
