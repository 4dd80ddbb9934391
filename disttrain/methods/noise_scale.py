"""Measuring the gradient noise scale while training, on any engine, from the micro-batches there are anyway."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from disttrain.data.batch import Batch
from disttrain.engine.base import Engine
from disttrain.grads import NoiseScale, global_norm


class NoiseMeter:
    """Compares the squared norms of the micro-batches' own gradients with that of the global batch.

    A hook on each parameter sees what one backward adds to its gradient, before it is accumulated or exchanged, so the
    small batch is a micro-batch, whichever rank it is on: cut into micro-batches of the same size, the global batch gives
    the same estimate on any number of ranks. An update of a single micro-batch says nothing and is passed over. Costs one
    extra read of the gradient in each backward that is measured, and one exchange of three numbers.

    Args:
        params: whose gradients are measured.
        every: updates between two measurements.
        estimate: what the measurements go into.

    Attributes:
        measuring: whether the update under way is one that is measured.
    """

    def __init__(self, params: Sequence[nn.Parameter], engine: Engine, every: int, estimate: NoiseScale) -> None:
        self.estimate = estimate
        self._engine = engine
        self._every = every
        self._params = params
        self.measuring = False
        self._square: Tensor | None = None
        self._squares: list[tuple[Tensor, int, float]] = []
        for param in params:
            param.register_hook(self._see)  # type: ignore[no-untyped-call]

    def begin_update(self, number: int) -> None:
        """Before the micro-batches of update ``number``, counted from 1."""
        self.measuring = number % self._every == 0
        self._squares = []

    def begin_micro_batch(self) -> None:
        """Right before the backward of a micro-batch: what the hooks saw earlier was no part of it."""
        self._square = None

    def end_micro_batch(self, samples: int, factor: float) -> None:
        """After the backward of a micro-batch.

        Args:
            samples: in it.
            factor: what backward multiplied the gradient of the micro-batch's *mean* loss with.
        """
        if self.measuring and self._square is not None:
            self._squares.append((self._square, samples, factor))

    def end_update(self, batch: Batch) -> None:
        """After the reduction, when gradients are those of the mean loss over the global batch, and before anything changes
        them."""
        if not self.measuring:
            return
        self.measuring = False
        grad_norm = global_norm(self._params).double()
        sums = torch.zeros(3, dtype=torch.float64, device=grad_norm.device)
        for square, samples, factor in self._squares:
            sums[0] += square / factor**2
            sums[1] += 1.0 / samples
            sums[2] += 1.0
        self._engine.all_reduce(sums)
        total, inverse, count = sums.tolist()
        big = float(grad_norm) ** 2
        if count > 1.0 and math.isfinite(total) and math.isfinite(big):
            self.estimate.update(total / count, big, small_batch=count / inverse, big_batch=batch.size)

    def _see(self, grad: Tensor) -> None:
        if self.measuring:
            square = grad.detach().double().square().sum()
            self._square = square if self._square is None else self._square + square
