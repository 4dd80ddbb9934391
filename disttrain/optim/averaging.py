"""Averages of the weights: exponential, with a memory in samples, and uniform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class WeightAverage(ABC):
    """Keeps an average of parameters in float32 (float64 for float64). Buffers, such as batch norm's statistics, are not
    averaged: they belong to the weights they were measured with, and are near enough for a slowly moving average.

    Args:
        params: the parameters; the average starts as their values.
    """

    def __init__(self, params: Iterable[Tensor]) -> None:
        self.params = list(params)
        self.weights = [_wide(p).clone() for p in self.params]

    @abstractmethod
    def update(self, samples: int) -> None:
        """After an update with ``samples`` samples."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters hold the average while this is entered, and what they held before afterwards."""
        before = [p.detach().clone() for p in self.params]
        self._put(self.weights)
        try:
            yield
        finally:
            self._put(before)

    def state_dict(self) -> dict[str, Any]:
        """``weights``, and what else there is to go on from."""
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: it is of another model.
        """
        shapes = [[tuple(w.shape) for w in weights] for weights in (state["weights"], self.weights)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the average has tensors of shapes {shapes[0]}; the model's are {shapes[1]}")
        with torch.no_grad():
            for mine, theirs in zip(self.weights, state["weights"], strict=True):
                mine.copy_(theirs)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for p, value in zip(self.params, values, strict=True):
            p.copy_(value)

    @torch.no_grad()
    def _move(self, share: float) -> None:
        """``average += share * (weights - average)``."""
        if self.weights:
            torch._foreach_lerp_(self.weights, [_wide(p) for p in self.params], share)


class EMA(WeightAverage):
    """``average = d * average + (1 - d) * w`` with ``d = 0.5 ** (samples / half_life)``: what a sample contributed
    counts half after ``half_life`` further samples, whatever the batch (Polyak and Juditsky 1992 average uniformly;
    the exponential form is usual).

    Two updates of n samples with the same weights equal one of 2n, so the average of a run does not depend on how its
    batch is cut, as far as its weights do not.

    In float32 a step below half an ulp of the average is lost: it stands still while the weights are nearer to it than
    about ``6e-8 / (1 - d)`` of their size, 0.06 % for ``samples / half_life`` of 1.4e-4.

    Args:
        half_life: in samples.

    Raises:
        ValueError: it is not positive.

    Examples:
        >>> w = torch.zeros(1)
        >>> ema = EMA([w], half_life=100)
        >>> _ = w.fill_(1.0); ema.update(100); round(float(ema.weights[0]), 6)
        0.5
    """

    def __init__(self, params: Iterable[Tensor], half_life: float) -> None:
        if half_life <= 0:
            raise ValueError(f"EMA: half_life={half_life} must be positive")
        super().__init__(params)
        self.half_life = half_life

    def update(self, samples: int) -> None:
        self._move(1.0 - 0.5 ** (samples / self.half_life))


class SWA(WeightAverage):
    """The plain mean of the weights at regular points of the run (stochastic weight averaging, Izmailov et al. 2018,
    arXiv:1803.05407), which are counted in samples seen.

    Before ``start`` the average is the weights themselves.

    Args:
        start, every: in samples: where averaging begins, and between two points.
    """

    def __init__(self, params: Iterable[Tensor], start: float, every: float) -> None:
        if every <= 0 or start < 0:
            raise ValueError(f"SWA: start={start} must not be negative and every={every} must be positive")
        super().__init__(params)
        self.start, self.every = start, every
        self.seen, self.count = 0, 0

    def update(self, samples: int) -> None:
        self.seen += samples
        due = int((self.seen - self.start) // self.every) + 1 if self.seen >= self.start else 0
        if due == 0:
            self._move(1.0)
        elif due > self.count:
            self._move(1.0 / (self.count + 1))
            self.count += 1
            self._skip(due)

    def _skip(self, due: int) -> None:
        # An update longer than ``every`` passes several points and has weights for one only.
        self.start += (due - self.count) * self.every

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "seen": self.seen, "count": self.count, "start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.seen, self.count, self.start = state["seen"], state["count"], state["start"]


def _wide(p: Tensor) -> Tensor:
    p = p.detach()
    return p.float() if p.dtype in (torch.float16, torch.bfloat16) else p
