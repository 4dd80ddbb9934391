"""Measuring the gradient noise scale while training, on any engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from disttrain.data.batch import Batch, MicroBatch
from disttrain.data.position import Position
from disttrain.engine.later import Numbers
from disttrain.grads import NoiseScale, gradients, square_norm
from disttrain.methods.base import Context, Method, Report
from disttrain.methods.clipping import Clip, Params
from disttrain.methods.noise.pieces import Pieces
from disttrain.methods.noise.words import line, notes, sentences

WHOLE = ""
"""The name of the group of all parameters."""


class NoiseMeter(Method):
    """Measures nothing."""

    @property
    def estimate(self) -> NoiseScale:
        """Of all parameters, with every update so far; the same on all ranks, which must all ask for it."""
        return NoiseScale()

    def with_parts(self, values: Tensor) -> Tensor:
        """``values`` (1-D float64, on the device), and behind them what is to be added up over the ranks along with them."""
        return values

    def arriving(self, numbers: Numbers, begin: int) -> None:
        """The sums of what :meth:`with_parts` gave will be in ``numbers()`` from ``begin`` on."""

    def settle(self) -> None:
        """Take in every update so far, on all ranks: before an estimate is read or saved."""

    def follow(self, take: Callable[..., None], batch_at: Callable[[int], int]) -> None:
        """Have ``take`` called with each reading of all parameters, as :meth:`NoiseScale.update` is. ``batch_at`` gives, from now
        on, the samples of a full batch after so many."""

    def through(self, clip: Clip) -> Clip:
        """``clip``, told that nothing changes the gradient before it: the norm that it finds is not read twice."""
        return clip

    def said(self) -> dict[str, str]:
        """A sentence on each estimate, by its key in training lines; as :attr:`estimate`."""
        return {}

    def summary(self) -> dict[str, str]:
        """The same for the end of the run, with what is to be said once."""
        return {}


@dataclass(frozen=True, slots=True)
class Reading:
    """One update that was measured.

    Attributes:
        parts: ``(ranks + 1, groups)`` float64: in this rank's row its part of the mean squared norm of the pieces' gradients, and
            zeros in the others; rank 0 has the squared norm of the whole batch's gradient in the last row. Adding up the ranks'
            thus rounds nothing, in whatever company the numbers travel, and gives the same bits on all of them.
        small_batch: samples of a piece.
        batch: its samples.
        epoch: that it is of.
    """

    parts: Tensor
    small_batch: float
    batch: int
    epoch: int


class PieceMeter(NoiseMeter):
    """Compares the squared norms of the gradients of the batch's pieces with that of the whole.

    A piece counts by the square of its samples: the difference from the whole batch's gradient is then made of products of
    different pieces only, in which no sample meets itself. Pieces of any sizes give unbiased moments, and equal ones the same on
    any ranks.
    Updates of a single piece say nothing and are passed over; so are updates whose numbers are not finite, which are counted.

    What a rank has found waits until it is asked for: it travels behind the loss of the next training line, or, where an estimate
    is read or saved before that, in an exchange of its own.

    Args:
        every: updates between two that measure.
        population: samples that batches are drawn from without replacement; None: they are drawn with replacement.
    """

    of_parameters = True

    def __init__(self, context: Context, pieces: Pieces, every: int, population: int | None) -> None:
        self._engine, self._precision, self._pieces = context.engine, context.precision, pieces
        self._recipe, self._every, self._population = context.recipe, every, population
        self._device, self._batch_at = context.engine.world.device, context.plan.batch_at
        self._batch = context.plan.global_batch
        self._followers: list[Callable[..., None]] = []
        self._estimates = {name: NoiseScale() for name in pieces.groups}
        self._number, self._measuring, self._scale = 0, False, 1.0
        self._sums = self._zeros()
        self._params = frozenset(context.params)
        self._read, self._rows = list(enumerate(pieces.groups.values())), list[Tensor]()
        self._waiting: list[Reading] = []
        self._sent: tuple[list[Reading], Numbers, int] | None = None
        self.passed_over = 0
        """Measured updates whose numbers were not finite, such as those that overflowed in fp16."""

    @property
    def estimate(self) -> NoiseScale:
        self.settle()
        return self._estimates[WHOLE]

    def follow(self, take: Callable[..., None], batch_at: Callable[[int], int]) -> None:
        self._followers.append(take)
        self._batch_at = batch_at

    def release(self) -> None:
        self._pieces.leave()

    def begin_update(self, position: Position) -> None:
        self._number, self._batch = position.updates + 1, self._batch_at(position.samples)
        self._measuring = self._number % self._every == 0
        if not self._measuring:
            self._pieces.leave()
            return
        self._pieces.watch()
        self._sums = self._zeros()
        self._scale = self._precision.loss_scale  # fp16 has another one once the update is over

    def begin_backward(self, last: bool) -> None:
        if self._measuring:
            self._pieces.begin(travels=last and self._engine.world.size > 1)

    def end_backward(self, batch: Batch, micro: MicroBatch) -> None:
        if self._measuring and micro.weight:
            self._sums += self._pieces.squares(micro).to(self._device)

    def see_gradient(self, batch: Batch) -> None:
        if not self._measuring:
            return
        small_batch = self._pieces.small_batch(self._number, batch.size)
        if small_batch >= batch.size:
            return
        ranks, rank = self._engine.world.size, self._engine.world.rank
        parts = torch.zeros(ranks + 1, len(self._estimates), dtype=torch.float64, device=self._device)
        # A piece of n samples added n / batch times the gradient of its own mean loss, so the weights n^2 are in the sum already.
        parts[rank] = self._sums * (batch.size / small_batch) / (self._engine.multiplier * self._scale) ** 2
        if rank == 0:
            for i, params in self._read:
                parts[ranks, i] = square_norm(gradients(params))
            self._rows = [parts[ranks]]
        self._waiting.append(Reading(parts, small_batch, batch.size, batch.epoch))

    def through(self, clip: Clip) -> Clip:
        same = [i for i, params in self._read if frozenset(params) == self._params]
        self._read = [(i, params) for i, params in self._read if i not in same]

        def shared(params: Params) -> Tensor:
            norm = clip(params)
            rows, self._rows = self._rows, []  # none but on rank 0, on updates that measure
            for squares in rows:
                squares[same] = norm.double().square()
            return norm

        return shared

    def with_parts(self, values: Tensor) -> Tensor:
        return torch.cat([values, *(reading.parts.view(-1) for reading in self._waiting)])

    def arriving(self, numbers: Numbers, begin: int) -> None:
        self._sent, self._waiting = (self._waiting, numbers, begin), []

    def settle(self) -> None:
        self._receive()
        if self._waiting:
            sums = self._engine.sum_later(self.with_parts(torch.zeros(0, dtype=torch.float64, device=self._device)))
            self.arriving(sums, 0)
            self._receive()

    def report(self) -> Report:
        def found() -> Mapping[str, Any]:
            self._receive()
            return line(self._recipe, self._estimates, self.passed_over)

        return found

    def said(self) -> dict[str, str]:
        self.settle()
        return sentences(
            self._recipe,
            self._estimates,
            batch=self._batch,
            population=self._population,
            passed_over=self.passed_over,
        )

    def summary(self) -> dict[str, str]:
        return self.said() | notes(self._recipe)

    def state_dict(self) -> dict[str, Any]:
        self.settle()  # where there are other ranks, they have done so together before one of them saves
        whole, *groups = ((name, estimate.state_dict()) for name, estimate in self._estimates.items())
        return {**whole[1], "passed_over": self.passed_over, "groups": dict(groups)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.passed_over = state["passed_over"]
        for name, estimate in self._estimates.items():
            estimate.load_state_dict(state if name == WHOLE else state["groups"][name])

    def _receive(self) -> None:
        """Take in what has been sent."""
        if self._sent is None:
            return
        (readings, numbers, at), self._sent = self._sent, None
        values = numbers()
        for reading in readings:
            self._take(reading, values[at : at + reading.parts.numel()])
            at += reading.parts.numel()

    def _take(self, reading: Reading, values: list[float]) -> None:
        groups = len(self._estimates)
        if not all(map(math.isfinite, values)):
            self.passed_over += 1
            return
        for i, (name, estimate) in enumerate(self._estimates.items()):
            *small, big = values[i::groups]
            for take in (estimate.update, *(self._followers if name == WHOLE else ())):
                take(
                    math.fsum(small),
                    big,
                    small_batch=reading.small_batch,
                    big_batch=reading.batch,
                    population=self._population,
                    epoch=None if self._population is None else reading.epoch,
                )

    def _zeros(self) -> Tensor:
        return torch.zeros(len(self._pieces.groups), dtype=torch.float64, device=self._device)
