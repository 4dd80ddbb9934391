"""Branches of a run: ``critical_batch.json`` as ``disttrain branch`` leaves it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disttrain.errors import InputError
from disttrain.report.blocks import Chapter, Part, Section, Verdict, Words, table
from disttrain.report.chart import Curve, amount, chart
from disttrain.rundir.written import read_json
from disttrain.study.branch_report import RESULTS


@dataclass(frozen=True, slots=True)
class Point:
    """The branches of a checkpoint.

    Attributes:
        step, start: of the checkpoint; ``start`` in samples.
        losses: of each multiple of the run's batch, each repeat's; NaN: it diverged.
        batch: the critical one; None: beyond what was tried.
        low, high: of its interval; None: unbounded.
        words: all of that.
    """

    step: int
    start: int
    base: int
    losses: Mapping[int, tuple[float, ...]]
    where: str
    batch: float | None
    low: float | None
    high: float | None
    words: str


@dataclass(frozen=True, slots=True)
class Branches:
    """Of a run, by the update that they begin at."""

    name: str
    margin: float
    points: tuple[Point, ...]


def read_branches(directory: Path, name: str) -> Branches:
    """Read them.

    Raises:
        InputError: they cannot be read, or are in another form.
    """
    path = directory / RESULTS
    data = read_json(path)
    try:
        points = tuple(sorted(map(_point, data["points"]), key=lambda point: point.step))
        if not points:
            raise InputError(f"{path}: there is no branch in it yet")
        return Branches(name, float(data["margin"]), points)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(
            f"{path} is not in the form that this disttrain writes ({type(error).__name__}: {error}): run disttrain branch again"
        ) from None


def _point(data: Mapping[str, Any]) -> Point:
    found = data["crossing"]
    ends = [None if found[key] is None else float(found[key]) for key in ("batch", "low", "high")]
    losses = {
        int(factor): tuple(math.nan if loss is None else float(loss) for loss in values)
        for factor, values in data["losses"].items()
    }
    return Point(
        step=int(data["step"]),
        start=int(data["start"]),
        base=int(data["batch"]),
        losses=dict(sorted(losses.items())),
        where=str(found["where"]),
        batch=ends[0] if found["where"] == "between" else None,
        low=ends[1],
        high=ends[2],
        words=str(data["words"]),
    )


def parts(found: Branches, key: str) -> tuple[Part, ...]:
    """What each multiple of the batch lost, and the critical batch over the run."""
    gaps = []
    for number, point in enumerate(found.points):
        base = np.array(point.losses[1])
        worse = [np.array(values) - base for values in point.losses.values()]
        gaps.append(
            Curve(
                f"update {point.step:,}",
                np.array([float(point.base * factor) for factor in point.losses]),
                np.array([w.mean() for w in worse]),
                np.array([w.min() for w in worse]),
                np.array([w.max() for w in worse]),
                number,
                marked=True,
            )
        )
    pictures: list[Part] = [
        chart(
            f"{key}-gaps",
            "Loss above that of the run's own batch",
            gaps,
            "global batch",
            "difference of losses",
            note=f"Mean, least and largest of the repeats. More than {found.margin:g} is worse.",
        )
    ]
    known = [p for p in found.points if p.batch is not None]
    if len(known) > 1:
        edge = [(p.low or 0.0, p.high or math.inf) for p in known]
        curve = Curve(
            "critical batch",
            np.array([float(p.start) for p in known]),
            np.array([p.batch for p in known], dtype=np.float64),
            np.array([low for low, _ in edge]),
            np.array([high for _, high in edge]),
            marked=True,
        )
        pictures.append(
            chart(f"{key}-critical", "Critical batch over the run", [curve], "samples", "global batch", log=True)
        )
    return (*pictures, Words(tuple(point.words for point in found.points)))


def chapter(found: Branches, key: str) -> Chapter:
    """Branches by themselves."""
    last = found.points[-1]
    head = ("update", "samples", "critical batch", "interval")
    rows = [
        (p.step, f"{p.start:,}", amount(p.batch) if p.batch else p.where, f"{_end(p.low)} to {_end(p.high)}")
        for p in found.points
    ]
    said = Verdict(
        found.name, (last.words,), ("how it would be with other seeds of the run: all branches come from one",)
    )
    return Chapter(
        found.name,
        "branches",
        said,
        (("batch of the run", f"{last.base:,}"), ("checkpoints", str(len(found.points)))),
        (Section("Branches", (*parts(found, key), table("Critical batch by checkpoint", head, rows))),),
    )


def _end(value: float | None) -> str:
    return "unbounded" if value is None else amount(value)
