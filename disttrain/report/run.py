"""A run as it wrote itself down: its recipe, its numbers over its length, its starts, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from disttrain.config import Recipe, load_recipe
from disttrain.errors import InputError
from disttrain.rundir.environment import Environment, read_starts
from disttrain.rundir.rundir import METRICS, RECIPE
from disttrain.telemetry.jsonl import number_of, read_records

Floats = NDArray[np.float64]
By = Literal["samples", "updates", "time"]
AXES: dict[By, str] = {"samples": "samples", "updates": "updates", "time": "seconds of training"}
PLACE = ("step", "epoch", "samples", "time", "split", "event")
"""What says where a line belongs."""


@dataclass(frozen=True, slots=True)
class Series:
    """A number of a run over its length.

    Attributes:
        at: where each value was written, by the kind of axis, each ``(values,)``.
        values: ``(values,)``; NaN and infinities are as they were.
    """

    at: Mapping[By, Floats]
    values: Floats

    @property
    def finite(self) -> Floats:
        """The values that are."""
        return self.values[np.isfinite(self.values)]


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory, read.

    Attributes:
        name: of the directory.
        train: of the training lines, by name, such as ``loss`` and ``lr``.
        layers: of the training lines, numbers by layer, such as ``trust_ratio``.
        splits: of the evaluations, by split and name.
        events: as they were written.
        starts: see :func:`disttrain.rundir.environment.read_starts`.
        nonfinite: lines with a number that is not finite.
    """

    path: Path
    name: str
    recipe: Recipe
    train: Mapping[str, Series]
    layers: Mapping[str, Mapping[str, Series]]
    splits: Mapping[str, Mapping[str, Series]]
    events: Sequence[Mapping[str, Any]]
    starts: Sequence[Environment]
    nonfinite: int

    @property
    def ending(self) -> Mapping[str, Any]:
        """The event that ended the latest start; empty where there is none yet."""
        last = self.events[-1] if self.events else {}
        return last if last.get("event") == "end" else {}

    @property
    def state(self) -> str:
        """``finished``, ``stopped``, ``failed``, or ``open``: it goes on, or was killed."""
        return str(self.ending.get("state", "open"))

    @property
    def last_step(self) -> int:
        """The last update that was written down."""
        return int(max((s.at["updates"][-1] for s in self._all()), default=0))

    @property
    def samples(self) -> int:
        """Seen by then."""
        return int(max((s.at["samples"][-1] for s in self._all()), default=0))

    @property
    def seconds(self) -> float:
        """Of training, without evaluations and saving."""
        return float(max((s.at["time"][-1] for s in self._all()), default=0.0))

    def machine(self, key: str) -> Any:
        """Of the latest start: ``ranks``, ``engine`` or ``device``; None where it is not recorded."""
        return self._started("machine", key)

    def planned(self, key: str) -> Any:
        """A number of the latest start's plan; None where it is not recorded."""
        return self._started("plan", key)

    @property
    def batch(self) -> int:
        """The global batch at the end."""
        if "global_batch" in self.train:
            return int(self.train["global_batch"].values[-1])
        changes = [batch for event in self.events if (batch := count(event, "global_batch")) is not None]
        return changes[-1] if changes else self.recipe.batch.global_ or 0

    def _all(self) -> list[Series]:
        return [*self.train.values(), *(s for by_name in self.splits.values() for s in by_name.values())]

    def _started(self, topic: str, key: str) -> Any:
        if self.starts and key in self.starts[-1].get(topic, {}):
            return self.starts[-1][topic][key]
        begun = [e for e in self.events if e.get("event") in ("start", "resume")]
        return begun[-1].get(key) if begun else None


def is_run(path: Path) -> bool:
    """Whether a run was begun in that directory."""
    return (path / RECIPE).is_file() and ((path / METRICS).exists() or (path / "checkpoints").exists())


def read_run(path: Path) -> Run:
    """Read a run directory; nothing of it is run or written.

    Raises:
        InputError: it holds no run, none of this version, or one without a line yet.
    """
    recipe = load_recipe(path / RECIPE)
    records = read_records(path / METRICS)
    lines = [r for r in records if "event" not in r and count(r, "step") is not None]
    training = [r for r in lines if "split" not in r]
    if not training:
        raise InputError(f"{path}: the run has no training line yet, so there is nothing to report")
    clock = _clock(training)
    names = dict.fromkeys(name for r in training for name in r if name not in PLACE and not name.endswith("_nonfinite"))
    splits: dict[str, list[dict[str, Any]]] = {}
    for record in lines:
        if isinstance(record.get("split"), str):
            splits.setdefault(record["split"], []).append(record)
    return Run(
        path=path,
        name=path.resolve().name,
        recipe=recipe,
        train=_by_name(training, clock, names),
        layers={
            name: _by_name([{**r, **r[name]} for r in training if isinstance(r.get(name), dict)], clock, layers)
            for name in names
            if (layers := dict.fromkeys(k for r in training if isinstance(r.get(name), dict) for k in r[name]))
        },
        splits={
            split: _by_name(those, clock, dict.fromkeys(k for r in those for k in r)) for split, those in splits.items()
        },
        events=[r for r in records if isinstance(r.get("event"), str)],
        starts=read_starts(path),
        nonfinite=sum(any(not math.isfinite(n) for k in r if (n := number_of(r, k)) is not None) for r in lines),
    )


def _by_name(
    records: Sequence[Mapping[str, Any]], clock: tuple[Floats, Floats], names: Mapping[str, None]
) -> dict[str, Series]:
    found = {}
    for name in names:
        if name in PLACE or name.endswith("_nonfinite"):
            continue
        pairs = [(r, value) for r in records if (value := number_of(r, name)) is not None]
        if pairs:
            samples = np.array([_samples(r) for r, _ in pairs])
            at: dict[By, Floats] = {
                "samples": samples,
                "updates": np.array([float(r["step"]) for r, _ in pairs]),
                "time": np.interp(samples, *clock),
            }
            found[name] = Series(at, np.array([value for _, value in pairs]))
    return found


def _clock(training: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
    """Samples, and the seconds of training by then: those between two lines at the second one's speed."""
    samples, seconds = [0.0], [0.0]
    for record in training:
        speed, now = number_of(record, "samples_per_second"), _samples(record)
        if speed is not None and 0.0 < speed < math.inf and now > samples[-1]:
            seconds.append(seconds[-1] + (now - samples[-1]) / speed)
            samples.append(now)
    return np.array(samples), np.array(seconds)


def count(record: Mapping[str, Any], name: str) -> int | None:
    """A whole number of a record, such as an update; None where there is none, or one that no run comes to."""
    value = record.get(name)
    return value if type(value) is int and 0 <= value < 2**53 else None


def _samples(record: Mapping[str, Any]) -> float:
    found = number_of(record, "samples")
    return found if found is not None and math.isfinite(found) else 0.0
