"""The callback of a study's trials: it ends them when there is no more to learn."""

from __future__ import annotations

import math

from disttrain.hooks.callbacks import Callback
from disttrain.hooks.view import RunView
from disttrain.rundir.rundir import METRICS
from disttrain.study.goal import Goal, reached_at
from disttrain.telemetry.jsonl import read_records

NAME = "disttrain.study.watch:Watch"
NO_METRIC = "no such metric: "


class Watch(Callback):
    """Ends a run that has reached the goal, or can no longer be of use.

    Args:
        metric, value, higher: see :class:`disttrain.study.goal.Goal`; without a value nothing is a goal.
        least: samples that every run is given, whatever it reaches.
        most: samples after which one that has not reached the goal is hopeless.
    """

    def __init__(self, metric: str, higher: bool, least: int, most: int, value: float | None = None) -> None:
        self._metric = metric
        self._goal = None if value is None else Goal(metric, value, higher)
        self._least, self._most = least, most
        self._curve: list[tuple[int, float]] = []

    def on_start(self, run: RunView) -> None:
        """Know again what an earlier start of this run has seen."""
        records = [r for r in read_records(run.run_dir / METRICS) if r.get("split") == "validation"]
        self._curve = [(r["samples"], r[self._metric]) for r in records if isinstance(r.get(self._metric), float)]

    def on_evaluation(self, run: RunView) -> None:
        value = run.metrics.get(f"validation_{self._metric}")
        if value is None:
            known = [name.removeprefix("validation_") for name in run.metrics if name.startswith("validation_")]
            run.stop(f"{NO_METRIC}{self._metric}; there are {', '.join(known)}")
        elif not math.isfinite(value):
            run.stop(f"validation {self._metric} is {value}")
        else:
            self._curve.append((run.samples, value))
            self._judge(run)

    def _judge(self, run: RunView) -> None:
        reached = None if self._goal is None else reached_at(self._curve, self._goal)
        if reached is not None and run.samples >= self._least:
            run.stop(f"{self._goal} reached after {reached:,.0f} samples")
        elif reached is None and run.samples >= max(self._most, self._least):
            run.stop(f"{'the end' if self._goal is None else 'given up'} after {run.samples:,} samples")
