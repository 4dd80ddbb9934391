"""What stands in the place of a run's own objects while it is measured, notes the time, and passes on what it does not change.

A run that is not measured knows nothing of this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from disttrain.data.batch import Batch, MicroBatch
from disttrain.data.position import Position
from disttrain.data.tree import map_leaves
from disttrain.engine.later import Numbers
from disttrain.training.state import Run

T = TypeVar("T")
PARTS = ("data", "compute", "wait", "optimizer", "between")
"""Of a watched step: it is in one of them at any moment."""


class Clock:
    """Notes when this rank goes from one part of a step to the next. A step begins with ``data``.

    On a CUDA device the moments are those of its stream, not of the host, which runs ahead of it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._marks = device, list[tuple[str, Any]]()

    def now_in(self, part: str) -> None:
        """From now on time goes to ``part``."""
        self._marks.append((part, self._stamp()))

    def seconds(self) -> NDArray[np.float64]:
        """``(steps, parts)`` seconds, the parts as in ``PARTS``. Whatever comes before the first step is left out."""
        self.now_in("")
        steps = sum(part == "data" for part, _ in self._marks)
        found = np.zeros((steps, len(PARTS)))
        step = -1
        for (part, begin), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            step += part == "data"
            if step >= 0:
                found[step, PARTS.index(part)] += self._between(begin, end)
        return found

    def _stamp(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between(self, begin: Any, end: Any) -> float:
        if self._device.type != "cuda":
            return float(end - begin)
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


class Instead:
    """In the place of an object of the run: what is not defined here is the object's own."""

    def __init__(self, inner: Any, clock: Clock) -> None:
        self.__dict__.update(inner=inner, clock=clock)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inner, name, value)


class WatchedEngine(Instead):
    """Says when computation begins and ends, and when this rank waits for the others."""

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        self.clock.now_in("compute")
        with self.inner.accumulating(last=last):
            yield
        self.clock.now_in("between")

    def backward(self, losses: Tensor, scale: float = 1.0) -> None:
        def begun(_: Tensor) -> None:
            # Runs when the last gradient is there, before DDP waits for its buckets: it asked for its turn earlier.
            torch.autograd.Variable._execution_engine.queue_callback(lambda: self.clock.now_in("wait"))

        losses.register_hook(begun)  # type: ignore[no-untyped-call]
        self.inner.backward(losses, scale=scale)
        self.clock.now_in("compute")

    def reduce_gradients(self) -> None:
        self.clock.now_in("wait")
        self.inner.reduce_gradients()
        self.clock.now_in("optimizer")


class LonelyEngine(WatchedEngine):
    """Exchanges no gradient."""

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        with super().accumulating(last=False):
            yield


class EmptyEngine(WatchedEngine):
    """Does nothing in all that takes time."""

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        self.clock.now_in("compute")
        yield
        self.clock.now_in("between")

    def backward(self, losses: Tensor, scale: float = 1.0) -> None:
        pass

    def reduce_gradients(self) -> None:
        self.clock.now_in("optimizer")

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor

    def sum_later(self, values: Tensor) -> Numbers:
        return values.tolist


class WatchedMethods(Instead):
    """Says when methods work on a micro-batch, and when the update is over."""

    def end_backward(self, batch: Batch, micro: MicroBatch) -> None:
        self.clock.now_in("compute")
        self.inner.end_backward(batch, micro)
        self.clock.now_in("between")

    def end_update(self, batch: Batch) -> None:
        self.inner.end_update(batch)
        self.clock.now_in("between")


class NoMethods(WatchedMethods):
    """Methods that have no part in what is measured; what they say is said."""

    def begin_update(self, position: Position) -> None:
        pass

    def begin_backward(self, *, last: bool) -> None:
        pass

    def end_backward(self, batch: Batch, micro: MicroBatch) -> None:
        pass

    def see_gradient(self, batch: Batch) -> None:
        pass

    def end_update(self, batch: Batch) -> None:
        self.clock.now_in("between")


class NoPrecision(Instead):
    """Never steps the optimizer."""

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        pass

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        return True


class Recorded(Run):
    """Keeps what the task's losses are like."""

    losses: list[Any]

    def call(self, function: Callable[[nn.Module, Any], T], model: nn.Module, micro: MicroBatch) -> T:
        found = super().call(function, model, micro)
        self.losses.append(map_leaves(lambda t: torch.zeros_like(t, requires_grad=True), cast(Any, found)))
        return found


class Emptied(Recorded):
    """Gives losses like those without asking the task."""

    def call(self, function: Callable[[nn.Module, Any], T], model: nn.Module, micro: MicroBatch) -> T:
        self.losses.append(found := self.losses.pop(0))
        return cast(T, found)
