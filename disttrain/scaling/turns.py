"""A step of training, and the same with parts of it taken out: what each part costs is measured by itself, in turns.

The step is the very one of ``disttrain train``. It is watched, or emptied, from outside; see
:mod:`disttrain.scaling.stand_ins`.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from copy import copy
from dataclasses import fields, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from disttrain.data.batch import Batch
from disttrain.engine.base import Engine
from disttrain.engine.stop import StopVote
from disttrain.methods.base import Methods
from disttrain.methods.make import Parts
from disttrain.scaling.stand_ins import (
    PARTS,
    Clock,
    Emptied,
    EmptyEngine,
    LonelyEngine,
    NoMethods,
    NoPrecision,
    Recorded,
    WatchedEngine,
    WatchedMethods,
)
from disttrain.telemetry import NullSink
from disttrain.training.journal import Journal
from disttrain.training.loop import advance
from disttrain.training.rehearse import without_trace
from disttrain.training.state import Run
from disttrain.training.step import accumulate

R = TypeVar("R", bound=Run)
EMPTY_STEPS = 20
"""In a turn of emptied steps, which take a fraction of a millisecond."""


class Turns:
    """Steps of one run, in turns of several kinds; every rank makes the same calls.

    Args:
        stream: the run's batches.
    """

    def __init__(self, run: Run, stream: Generator[Batch, None, None]) -> None:
        self.run, self._stream = run, stream
        self._sink, self._vote = NullSink(), StopVote(run.engine)
        self._journal = Journal(run, self._sink)
        self.batch = next(stream)
        """One that was read, for turns on a fixed batch."""

    def steps(self, number: int) -> float:
        """Seconds of a step as it is, on this rank, the mean of ``number``."""
        self.meet()
        begin = time.perf_counter()
        for _ in range(number):
            advance(self.run, next(self._stream), self._journal, self._sink)
            self.run.callbacks.update()
            self._vote(False)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return (time.perf_counter() - begin) / number

    def watched(self, number: int) -> NDArray[np.float64]:
        """``(number, parts)`` seconds of the parts of each step."""
        return self._marked(WatchedEngine, number)

    def alone(self, number: int) -> NDArray[np.float64]:
        """The same of steps that exchange no gradient; the ranks' momentum is no longer the same then."""
        return self._marked(LonelyEngine, number)

    def _marked(self, engine: type[WatchedEngine], number: int) -> NDArray[np.float64]:
        clock = Clock(self._device)
        methods = replace(self.run.methods, all=cast(Methods, WatchedMethods(self.run.methods.all, clock)))
        watched = replace(self.run, engine=cast(Engine, engine(self.run.engine, clock)), methods=methods)
        self.meet()
        for _ in range(number):
            clock.now_in("data")
            batch = next(self._stream)
            clock.now_in("optimizer")
            for param in self.run.params:  # an update begins with that; the memory is given back
                param.grad = None
            clock.now_in("between")
            advance(watched, batch, self._journal, self._sink)
            self.run.callbacks.update()
            clock.now_in("wait")
            self._vote(False)
        return clock.seconds()

    def empty(self, number: int = EMPTY_STEPS) -> float:
        """Seconds of the Python of a step around its parts, the mean of ``number``: the model, the optimizer, the methods and the
        exchange do nothing."""
        clock, nothing = Clock(self._device), torch.zeros((), device=self._device)
        changes = self._without_methods(EmptyEngine, clock) | {
            "precision": NoPrecision(self.run.precision, clock),
            "progress": copy(self.run.progress),
        }
        emptied = _like(Emptied, self.run, changes)
        emptied.losses = self._losses()
        emptied.methods = replace(emptied.methods, penalties=(), gradient_noise=(), clip=lambda params: nothing)
        journal, vote = Journal(emptied, self._sink), StopVote(emptied.engine)
        for _ in range(number):
            clock.now_in("data")
            clock.now_in("between")
            advance(emptied, self.batch, journal, self._sink)
            self.run.callbacks.update()
            vote(False)
        return float(clock.seconds()[:, PARTS.index("between")].mean())

    def meet(self) -> None:
        """Wait for the other ranks."""
        self.run.engine.all_reduce(torch.zeros(1))

    @property
    def _device(self) -> torch.device:
        return self.run.engine.world.device

    def _losses(self) -> list[Any]:
        """Losses like those of the micro-batches of a step."""
        recorded = _like(Recorded, self.run, self._without_methods(LonelyEngine, Clock(self._device)))
        recorded.losses = []
        with without_trace(self.run):
            accumulate(recorded, self.batch)
        return recorded.losses

    def _without_methods(self, engine: type[WatchedEngine], clock: Clock) -> dict[str, Any]:
        methods: Parts = replace(self.run.methods, all=cast(Methods, NoMethods(self.run.methods.all, clock)))
        return {"engine": engine(self.run.engine, clock), "methods": methods}


def _like(cls: type[R], run: Run, changes: dict[str, Any]) -> R:
    """``run`` as an object of another class, with other parts."""
    return cls(**{f.name: getattr(run, f.name) for f in fields(Run)} | changes)
