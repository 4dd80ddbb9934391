"""A study on the disk: everything as JSON, and a page to read."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from disttrain.rundir.rundir import replace_file
from disttrain.study.shown import RESULTS, Shown
from disttrain.study.study import Found, Point
from disttrain.study.words import number, sentences
from disttrain.telemetry.jsonl import finite
from disttrain.version import __version__


def as_json(found: Found) -> dict[str, Any]:
    """Everything, as plain data; a number that is not finite is null, and its name says so beside it."""
    fit = None
    if found.fit is not None:
        fit = asdict(found.fit) | {"fits": found.fit.fits, "band": [list(row) for row in found.fit.band]}
    data = {
        "disttrain": __version__,
        "settings": asdict(found.settings),
        "target": {**asdict(found.goal), "from": found.target_from},
        "length": found.base.length,
        "budget": found.base.budget,
        "every": found.base.every,
        "words": sentences(found),
        "fit": fit,
        "batches": [_point(point) for point in found.points],
        "minima": asdict(found.minima) | {"slices": {name: asdict(each) for name, each in found.minima.slices}},
    }
    cleaned: dict[str, Any] = finite(data)
    return cleaned


def _point(point: Point) -> dict[str, Any]:
    samples = point.samples
    searched = [dict(zip(("rate", "came_to", "value"), row, strict=True)) for row in point.searched]
    return {
        **asdict(point),
        "searched": searched,
        "reached": bool(samples),
        "samples_to_target": statistics.fmean(samples) if samples else None,
        "updates_to_target": statistics.fmean(samples) / point.batch if samples else None,
        "seconds_to_target": point.seconds,
    }


def headings(found: Found | Shown) -> tuple[str, ...]:
    """Of the table."""
    sharp = ("sharpness",) if found.minima.found else ()
    return (*_COST, "validation loss", "validation accuracy", "train accuracy", "gap", *sharp)


_COST = ("batch", "rate", "updates", "samples", "seconds")


def rows(found: Found | Shown) -> list[tuple[str, ...]]:
    """A row of the table for each batch."""
    if not found.minima.found:
        return [_row(point) for point in found.points]
    return [(*_row(point), spread(found.minima.of(point.batch))) for point in found.points]


def _row(point: Point) -> tuple[str, ...]:
    samples = point.samples
    seconds = point.seconds
    reached = sum(run.samples is not None for run in point.runs)
    return (
        f"{point.batch:,}",
        f"{point.rate:.3g}",
        spread([s / point.batch for s in samples]) if samples else f"{reached} of {len(point.runs)} reached it",
        spread(samples),
        "" if seconds is None else f"{seconds:.3g}",
        spread(point.final("validation_loss"), 4),
        spread(point.final("validation_accuracy"), 4),
        spread(point.final("train_accuracy"), 4),
        spread(point.gaps, 4),
    )


def spread(values: Sequence[float], digits: int | None = None) -> str:
    """The mean, and the standard deviation over runs; empty without any."""
    if not values:
        return ""
    shown = (lambda v: f"{v:.{digits}f}") if digits is not None else number
    deviation = f" ± {shown(statistics.stdev(values))}" if len(values) > 1 else ""
    return f"{shown(statistics.fmean(values))}{deviation}"


def page(found: Found, pictures: Sequence[str]) -> str:
    """The study as Markdown."""
    settings, base = found.settings, found.base
    lines = [f"# {base.recipe.name or 'Study'}: {found.goal}", ""]
    lines += [f"- {sentence}" for sentence in sentences(found)]
    titles = headings(found)
    lines += ["", f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows(found)]
    seeds = [run.seed for run in found.points[0].runs]
    lines += [
        "",
        f"Target: {found.goal}; {found.target_from}. Updates, samples and seconds are those to the target, losses and "
        f"accuracies are after {min(base.length, base.budget):,} samples for every batch; gap is train minus validation "
        f"accuracy; ± is the standard deviation over the seeds {', '.join(map(str, seeds))}. Each batch searched its rate with "
        f"seed {base.recipe.seed}, at most {settings.rates} rates at factors of 2 around the law's "
        f"({base.recipe.optimizer.lr_scaling}). Evaluated every {base.every:,} samples, or every update where that is longer, "
        f"and interpolated; a run was given up after at most {base.budget:,} samples. Seconds are of training "
        f"alone, on {settings.ranks} rank{'s' * (settings.ranks > 1)} with {settings.jobs} run{'s' * (settings.jobs > 1)} at "
        "once. All of it is on the validation set.",
        "",
    ]
    lines += [f"![{name}](plots/{name}.svg)" for name in pictures]
    return "\n".join(lines).rstrip() + "\n"


def write(found: Found, directory: Path, pictures: Sequence[str]) -> None:
    """``study.json`` and ``study.md``.

    Raises:
        DisttrainError: they cannot be written; the earlier ones are untouched.
    """
    replace_file(directory / RESULTS, json.dumps(as_json(found), indent=1, allow_nan=False) + "\n")
    replace_file(directory / "study.md", page(found, pictures))
