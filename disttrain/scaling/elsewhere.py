"""Runs that were made elsewhere: what their lines say of throughput. They know no split of a step."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from disttrain.config import Recipe, load_recipe, recipe_differences
from disttrain.errors import InputError
from disttrain.rundir.environment import read_starts
from disttrain.rundir.rundir import METRICS, RECIPE, check_place
from disttrain.scaling.record import NAME, Mode, ScaledRun, Scaling
from disttrain.scaling.resample import interval
from disttrain.scaling.words import sentences
from disttrain.telemetry.jsonl import read_records

LEAST = 3
"""Lines of a run that say how fast it was."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A run.

    Attributes:
        rates: samples per second of its lines, without the first of each start.
        machine: as its latest start noted it.
    """

    path: Path
    recipe: Recipe
    ranks: int
    batch: int
    rates: tuple[float, ...]
    machine: dict[str, Any]


def read_runs(paths: Sequence[Path], modes: Sequence[Mode]) -> Scaling:
    """A scaling of runs of one recipe on several numbers of ranks.

    Raises:
        InputError: one of them is no run, or of another recipe, or says too little; or two have as many ranks.
    """
    runs = sorted((_read(path) for path in paths), key=lambda run: run.ranks)
    base = runs[0]
    for run in runs[1:]:
        if lines := [line for line in recipe_differences(base.recipe, run.recipe) if not line.startswith("batch.")]:
            raise InputError(
                f"{run.path} is of another recipe than {base.path}:" + "".join(f"\n  {line}" for line in lines)
            )
    for a, b in pairwise(runs):
        if (a.ranks, a.batch) == (b.ranks, b.batch):
            raise InputError(f"{a.path} and {b.path} both have {a.ranks} ranks and a batch of {a.batch}")
    batches: dict[Mode, Any] = {"strong": lambda run: run.batch, "weak": lambda run: run.batch / run.ranks}
    chosen = [(mode, run) for mode in modes for run in runs if batches[mode](run) == batches[mode](base)]
    if left := [run.path for run in runs if all(run is not other for _, other in chosen)]:
        raise InputError(f"{left[0]} has neither the global batch nor the batch of a rank of {base.path}")
    made = Scaling(
        name=base.recipe.name or "scaling",
        recipe=base.recipe.model_dump(by_alias=True, mode="json"),
        environment={"from": [str(run.path) for run in runs], **base.machine},
        parameters_bytes=0,
        runs=tuple(_run(mode, run) for mode, run in chosen),
        exchange=None,
        forecast=(),
    )
    note = "throughput is that of the runs' own lines, which know no parts of a step"
    return Scaling(**{name: getattr(made, name) for name in made.__slots__} | {"words": (*sentences(made), note)})


def open_place(directory: Path) -> None:
    """Make the directory that ``scale.json`` goes to.

    Raises:
        InputError: there is something else in it.
    """
    check_place(directory, "--to")
    if directory.exists() and any(entry.name not in (NAME, "plots") for entry in directory.iterdir()):
        raise InputError(f"--to {directory}: it is there and holds something else; choose another directory")
    directory.mkdir(parents=True, exist_ok=True)


def _read(path: Path) -> Elsewhere:
    if not (path / RECIPE).is_file():
        raise InputError(f"--from {path}: it holds no run: {RECIPE} is missing")
    recipe, starts = load_recipe(path / RECIPE), read_starts(path)
    machine = starts[-1].get("machine", {}) if starts else {}
    begun = [record for record in read_records(path / METRICS) if record.get("event") in ("start", "resume")]
    if not machine.get("ranks") or not begun:
        raise InputError(
            f"--from {path}: it does not say on how many ranks it ran: a run of an older disttrain, or none"
        )
    if len({record.get("ranks") for record in begun}) > 1:
        raise InputError(f"--from {path}: it went on with another number of ranks")
    rates: list[float] = []
    fresh = True
    for record in read_records(path / METRICS):
        if record.get("event") in ("start", "resume"):
            fresh = True
        elif isinstance(rate := record.get("samples_per_second"), int | float) and rate > 0:
            rates += [] if fresh else [float(rate)]
            fresh = False
    if len(rates) < LEAST:
        raise InputError(
            f"--from {path}: {len(rates)} lines say how fast it was, and {LEAST} are needed (log.every_steps)"
        )
    return Elsewhere(path, recipe, int(machine["ranks"]), int(begun[-1]["global_batch"]), tuple(rates), machine)


def _run(mode: Mode, run: Elsewhere) -> ScaledRun:
    return ScaledRun(
        mode=mode,
        ranks=run.ranks,
        hosts=int(run.machine.get("hosts", 1)),
        engine=str(run.machine.get("engine", "")),
        global_batch=run.batch,
        samples_per_second=interval([run.rates], statistics.median),
        step_seconds=interval([run.rates], lambda rates: run.batch / statistics.median(rates)),
        split=None,
    )
