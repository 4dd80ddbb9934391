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
from disttrain.grads.squares import BLOCK
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
    """Each micro-batch is a piece."""

    def __init__(self, plan: StepPlan, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.groups, self._plan = groups, plan
        self._added = [Added(params, alone=plan.world_size == 1) for params in groups.values()]
        self._hooks: list[RemovableHandle] = []

    def watch(self) -> None:
        for added in self._added:
            added.begin()
        if not self._hooks:
            hooked = [(param, see) for added in self._added for param, see in added.hooks()]
            self._hooks = [param.register_hook(see) for param, see in hooked]  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def begin(self) -> None:
        for added in self._added:
            added.clear()

    def squares(self, micro: MicroBatch) -> tuple[Tensor, float]:
        return torch.stack([added.square() for added in self._added]), float(len(micro.ids))

    def count(self, update: int, batch: int) -> int:
        plan = self._plan
        return piece_count(batch, plan.world_size, plan.micro_batch, plan.ghost_size, plan.slices.of(update))


class Added:
    """What a backward pass adds to the gradients of some parameters, before it is exchanged.

    Large gradients are read by hooks as they are made. A hook for each of many small ones would cost more than to read them: one
    rank by itself, whose gradients nobody exchanges, takes the difference of those before and after. Several ranks need hooks.
    """

    def __init__(self, params: Sequence[nn.Parameter], *, alone: bool) -> None:
        small = {p for p in params if p.numel() < BLOCK}
        self._compared = [p for p in params if p in small and alone]
        self._kept = [p for p in params if p in small and not alone]
        self._read = [p for p in params if p not in small]
        self._device = params[0].device if params else torch.device("cpu")
        self._sum, self._seen = SquareNorm(), list[Tensor]()
        self._before: Tensor | None = None

    def hooks(self) -> list[tuple[nn.Parameter, Callable[[Tensor], None]]]:
        return [(p, self._seen.append) for p in self._kept] + [(p, self._sum.add) for p in self._read]

    def begin(self) -> None:
        """There is no gradient yet."""
        self._before = None

    def clear(self) -> None:
        """Forget what hooks have seen."""
        self._sum.total()
        self._seen.clear()

    def square(self) -> Tensor:
        """Its squared norm, 0-d float64 on the parameters' device."""
        self._sum.join(self._seen)
        self._seen.clear()
        if self._compared:
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._compared]
            now = torch.cat([torch._C._nn.flatten_dense_tensors(grads)])  # a copy, also of a single gradient
            self._sum.join([now if self._before is None else now - self._before])
            self._before = now
        return self._sum.total().to(self._device)


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
