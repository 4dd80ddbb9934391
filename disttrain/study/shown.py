"""What the pictures of a study are drawn from, of a study just made or of one read again from ``study.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disttrain.errors import InputError
from disttrain.rundir.written import read_json
from disttrain.study.fit import Fit, Interval
from disttrain.study.goal import Goal
from disttrain.study.landscape import Slice
from disttrain.study.minima import Minima, Minimum
from disttrain.study.sharpness import Eigenvalue
from disttrain.study.study import Found, Point, Run
from disttrain.version import __version__

RESULTS = "study.json"


@dataclass(frozen=True, slots=True)
class Shown:
    """The part of :class:`~disttrain.study.study.Found` that pictures show.

    Attributes:
        length: samples after which accuracies are compared.
    """

    goal: Goal
    points: tuple[Point, ...]
    fit: Fit | None
    minima: Minima
    length: int


def shown(found: Found) -> Shown:
    """Of a study that was just made."""
    length = min(found.base.length, found.base.budget)
    return Shown(found.goal, found.points, found.fit, found.minima, length)


def read_shown(directory: Path) -> tuple[Shown, list[str]]:
    """Of a study in its directory, and its sentences (see :func:`disttrain.study.words.sentences`).

    Raises:
        InputError: ``study.json`` cannot be read, or is in the form of another version.
    """
    path = directory / RESULTS
    data = read_json(path)
    try:
        target, words = data["target"], data["words"]
        found = Shown(
            Goal(target["metric"], float(target["value"]), bool(target["higher"])),
            tuple(map(_point, data["batches"])),
            None if data["fit"] is None else _fit(data["fit"]),
            _minima(data["minima"]),
            int(min(data["length"], data["budget"])),
        )
        return found, [str(sentence) for sentence in words]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        version = data.get("disttrain", "unknown") if isinstance(data, dict) else "unknown"
        raise InputError(
            f"{path} is of disttrain {version} and not in the form of {__version__} ({type(error).__name__}: {error})"
        ) from None


def _point(data: Mapping[str, Any]) -> Point:
    return Point(
        batch=int(data["batch"]),
        rate=float(data["rate"]),
        searched=tuple((_number(s["rate"]), str(s["came_to"]), _number(s["value"])) for s in data["searched"]),
        edge=bool(data["edge"]),
        better=_number(data["better"]),
        runs=tuple(map(_run, data["runs"])),
    )


def _run(data: Mapping[str, Any]) -> Run:
    return Run(
        run_dir=str(data["run_dir"]),
        seed=int(data["seed"]),
        samples=None if data["samples"] is None else float(data["samples"]),
        seconds_per_sample=None if data["seconds_per_sample"] is None else float(data["seconds_per_sample"]),
        final={str(name): float(value) for name, value in data["final"].items() if isinstance(value, int | float)},
        curve=[(int(samples), _number(value)) for samples, value in data["curve"]],
        why=str(data["why"]),
    )


def _fit(data: Mapping[str, Any]) -> Fit:
    numbers = {name: Interval(**data[name]) for name in ("critical_batch", "least_samples", "least_updates")}
    band = tuple((float(b), float(low), float(high)) for b, low, high in data["band"])
    p_value = None if data["p_value"] is None else float(data["p_value"])
    return Fit(**numbers, scatter=float(data["scatter"]), p_value=p_value, band=band)


def _minima(data: Mapping[str, Any]) -> Minima:
    found = tuple(Minimum(**{**each, "eigenvalue": Eigenvalue(**each["eigenvalue"])}) for each in data["found"])
    slices = tuple((str(name), Slice(**each)) for name, each in data["slices"].items())
    return Minima(found, slices, tuple(map(str, data["left_out"])))


def _number(value: Any) -> float:
    """What was not finite is null on the disk."""
    return math.nan if value is None else float(value)
