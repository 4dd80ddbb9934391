"""What the noise scale compares with the gradient of the whole batch: gradients of its micro-batches, or of single samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from disttrain.data.batch import MicroBatch
from disttrain.data.shares import piece_count
from disttrain.grads import NormLayers, SquareNorm
from disttrain.plan.plan import StepPlan


class Pieces(ABC):
    """Where gradients of small batches come from, on updates that measure.

    Attributes:
        groups: name of a group of parameters -> those of them whose gradients are compared.
    """

    groups: Mapping[str, Sequence[nn.Parameter]]

    @abstractmethod
    def watch(self) -> None:
        """Begin to look, before the update."""

    @abstractmethod
    def leave(self) -> None:
        """Take all hooks off the model."""

    @abstractmethod
    def begin(self) -> None:
        """Before a backward pass: what was seen earlier was no part of it."""

    @abstractmethod
    def squares(self, micro: MicroBatch) -> tuple[Tensor, float]:
        """Of the backward pass that is over: ``(len(groups),)`` float64, the sums over its pieces of the squared norm of what
        each added to the gradient, and the samples of a piece."""

    @abstractmethod
    def count(self, update: int, batch: int) -> int:
        """Pieces of a global batch of so many samples, over all ranks: arithmetic, so nothing has to travel."""


class MicroBatches(Pieces):
    """Each micro-batch is a piece. A hook on each parameter sees what a backward pass adds to its gradient, before that is
    accumulated or exchanged, whichever rank it is on."""

    def __init__(self, plan: StepPlan, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.groups, self._plan = groups, plan
        self._sums = [SquareNorm() for _ in groups]
        self._hooks: list[RemovableHandle] = []

    def watch(self) -> None:
        if self._hooks:
            return
        seen: dict[nn.Parameter, list[SquareNorm]] = {}
        for found, params in zip(self._sums, self.groups.values(), strict=True):
            for param in params:
                seen.setdefault(param, []).append(found)
        self._hooks = [param.register_hook(_adding(found)) for param, found in seen.items()]  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def begin(self) -> None:
        for found in self._sums:
            found.total()

    def squares(self, micro: MicroBatch) -> tuple[Tensor, float]:
        device = micro_device(self.groups)
        return torch.stack([found.total().to(device) for found in self._sums]), float(len(micro.ids))

    def count(self, update: int, batch: int) -> int:
        plan = self._plan
        return piece_count(batch, plan.world_size, plan.micro_batch, plan.ghost_size, plan.slices.of(update))


class Samples(Pieces):
    """Each sample is a piece, as far as parameters of LayerNorm and RMSNorm go: see :class:`disttrain.grads.NormLayers`."""

    def __init__(self, layers: NormLayers, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.groups, self._layers = groups, layers

    def watch(self) -> None:
        self._layers.watch()

    def leave(self) -> None:
        self._layers.leave()

    def begin(self) -> None:
        self._layers.clear()

    def squares(self, micro: MicroBatch) -> tuple[Tensor, float]:
        found = self._layers.square_norms(len(micro.ids))
        sums = [torch.stack([found[p] for p in params]).sum() for params in self.groups.values()]
        return torch.stack(sums), 1.0

    def count(self, update: int, batch: int) -> int:
        return batch


def micro_device(groups: Mapping[str, Sequence[nn.Parameter]]) -> torch.device:
    """Where the parameters are; a sum of nothing does not know."""
    return next((p.device for params in groups.values() for p in params), torch.device("cpu"))


def _adding(found: Sequence[SquareNorm]) -> Callable[[Tensor], None]:
    if len(found) == 1:
        return found[0].add

    def add(grad: Tensor) -> None:
        for each in found:
            each.add(grad)

    return add
