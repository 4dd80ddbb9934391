"""Two runs compared: what they were told, what they ran on, and from which update on they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disttrain.config import flatten, load_recipe
from disttrain.errors import InputError
from disttrain.rundir.environment import Environment, read_starts
from disttrain.rundir.rundir import METRICS, RECIPE
from disttrain.telemetry.jsonl import number_of, read_records

ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that two runs have with different values. ``topic``: recipe, plan, package, code, dataset, machine, or
    ``environment`` where only one of them has recorded any of these."""

    topic: str
    key: str
    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class Curve:
    """A number of two runs at the updates at which both wrote it down.

    Attributes:
        name: such as ``loss`` (of training), or ``test accuracy``.
        common: how many such updates there are.
        same_until: the last of them before the first difference; None: there is none.
        differs_at: the first at which the values are not equal; None: they always are.
        first, second: the values there.
        largest: the largest difference, in parts of the larger magnitude.
        largest_at: where that is.
    """

    name: str
    common: int
    same_until: int | None
    differs_at: int | None
    first: float | None
    second: float | None
    largest: float
    largest_at: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that differs, and all curves, those that do not differ too."""

    differences: list[Difference]
    curves: list[Curve]


def compare(first: Path, second: Path) -> Comparison:
    """Compare the records of two run directories; nothing in them is run.

    Raises:
        InputError: a directory holds no run, or its files cannot be read.
    """
    for path in (first, second):
        if not (path / RECIPE).is_file():
            raise InputError(f"{path} holds no run: {RECIPE} is missing")
    recipes = [flatten(load_recipe(path / RECIPE)) for path in (first, second)]
    found = list(_differences("recipe", *recipes))
    environments = [_over_starts(read_starts(path)) for path in (first, second)]
    recorded = [environment != {} for environment in environments]
    if recorded[0] != recorded[1]:  # a run of an older disttrain
        found.append(Difference("environment", "recorded", *recorded))
    elif all(recorded):
        for topic in dict.fromkeys(topic for environment in environments for topic in environment):
            found += _differences(topic, *(environment.get(topic, {}) for environment in environments))
    curves = [_values(first), _values(second)]
    return Comparison(
        found, [_curve(name, curves[0][name], curves[1][name]) for name in curves[0] if name in curves[1]]
    )


def _differences(topic: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    pairs = [(key, first.get(key, ABSENT), second.get(key, ABSENT)) for key in dict.fromkeys([*first, *second])]
    return [Difference(topic, key, a, b) for key, a, b in pairs if a != b]


def _over_starts(starts: Sequence[Environment]) -> Environment:
    """Each key's value; where it changed from start to start, all of them in order."""
    found: dict[str, dict[str, list[Any]]] = {}
    for start in starts:
        for topic, keys in start.items():
            for key, value in keys.items():
                values = found.setdefault(topic, {}).setdefault(key, [])
                if not values or values[-1] != value:
                    values.append(value)
    return {
        topic: {key: values[0] if len(values) == 1 else values for key, values in keys.items()}
        for topic, keys in found.items()
    }


def _values(run_dir: Path) -> dict[str, dict[int, float]]:
    """Step and value of the training loss and of everything that was evaluated, by name."""
    found: dict[str, dict[int, float]] = {}
    for record in read_records(run_dir / METRICS):
        if "event" in record or type(record.get("step")) is not int:
            continue
        split = record.get("split")
        names = (
            ["loss"] if split is None else [n for n in record if n not in ("split", "step", "epoch", "samples", "time")]
        )
        for name in names:
            value = number_of(record, name)
            if value is not None:
                found.setdefault(name if split is None else f"{split} {name}", {})[record["step"]] = value
    return found


def _curve(name: str, first: Mapping[int, float], second: Mapping[int, float]) -> Curve:
    steps = sorted(first.keys() & second.keys())
    apart = {step: _apart(first[step], second[step]) for step in steps}
    differing = [step for step in steps if apart[step] > 0]
    if not differing:
        return Curve(name, len(steps), steps[-1] if steps else None, None, None, None, 0.0, None)
    at, worst = differing[0], max(differing, key=lambda step: apart[step])
    same = [step for step in steps if step < at]
    return Curve(name, len(steps), same[-1] if same else None, at, first[at], second[at], apart[worst], worst)


def _apart(a: float, b: float) -> float:
    """0 for equal values, two that are not a number included; infinite where only one is finite."""
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    return abs(a - b) / max(abs(a), abs(b)) if math.isfinite(a) and math.isfinite(b) else math.inf
