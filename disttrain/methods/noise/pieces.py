"""What the noise scale compares with the gradient of the whole batch: gradients of its micro-batches, or of single samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from disttrain.data.batch import MicroBatch
from disttrain.data.shares import piece_sizes
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
    def begin(self, travels: bool) -> None:
        """Before a backward pass: what was seen earlier was no part of it.

        Args:
            travels: whether gradients are exchanged in it.
        """

    @abstractmethod
    def squares(self, micro: MicroBatch) -> Tensor:
        """Of the backward pass that is over: ``(len(groups),)`` float64, the sums over its pieces of the squared norm of what
        each added to the gradient."""

    @abstractmethod
    def small_batch(self, update: int, batch: int) -> float:
        """Samples of a piece of a global batch of so many, over all ranks; of pieces that differ, each counted as often as it has
        samples. Arithmetic, so nothing has to travel."""


class MicroBatches(Pieces):
    """Each micro-batch is a piece."""

    def __init__(self, plan: StepPlan, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.groups, self._plan = groups, plan
        self._added = [Added(params, exchanged=plan.world_size > 1) for params in groups.values()]
        self._hooks: list[RemovableHandle] = []

    def watch(self) -> None:
        for added in self._added:
            added.begin_update()
        if not self._hooks:
            hooked = [(param, see) for added in self._added for param, see in added.hooks()]
            self._hooks = [param.register_hook(see) for param, see in hooked]  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def begin(self, travels: bool) -> None:
        for added in self._added:
            added.begin(travels)

    def squares(self, micro: MicroBatch) -> Tensor:
        return torch.stack([added.square() for added in self._added])

    def small_batch(self, update: int, batch: int) -> float:
        plan = self._plan
        sizes = piece_sizes(batch, plan.world_size, plan.micro_batch, plan.ghost_size, plan.slices.of(update))
        return sum(size * size for size in sizes) / batch


class Added:
    """What a backward pass adds to the gradients of some parameters, before it is exchanged.

    Large gradients are read by hooks as they are made. Many small ones are cheaper to read together, from the difference of those
    before and after; only where they travel, hooks have to keep them.

    Args:
        exchanged: whether there are passes in which gradients travel.
    """

    def __init__(self, params: Sequence[nn.Parameter], *, exchanged: bool) -> None:
        self._small = [p for p in params if p.numel() < BLOCK]
        self._large = [p for p in params if p.numel() >= BLOCK]
        self._kept = self._small if exchanged else []
        self._device = params[0].device if params else torch.device("cpu")
        self._sum, self._seen = SquareNorm(), list[Tensor]()
        self._before: Tensor | None = None
        self._travels = False

    def hooks(self) -> list[tuple[nn.Parameter, Callable[[Tensor], None]]]:
        return [(p, self._keep) for p in self._kept] + [(p, self._sum.add) for p in self._large]

    def begin_update(self) -> None:
        """There is no gradient yet."""
        self._before = None

    def begin(self, travels: bool) -> None:
        """Before a backward pass, which exchanges gradients or not."""
        self._sum.total()
        self._seen.clear()
        self._travels = travels

    def square(self) -> Tensor:
        """After it: the squared norm of what it added, 0-d float64 on the parameters' device."""
        if self._travels:
            self._sum.join(self._seen)
            self._seen.clear()
        elif self._small:
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._small]
            now = torch.cat([torch._C._nn.flatten_dense_tensors(grads)])  # a copy, also of a single gradient
            self._sum.join([now if self._before is None else now - self._before])
            self._before = now
        return self._sum.total().to(self._device)

    def _keep(self, grad: Tensor) -> None:
        if self._travels:  # elsewhere it would be one more reference, and autograd would have to copy
            self._seen.append(grad)


class Samples(Pieces):
    """Each sample is a piece, as far as parameters of LayerNorm and RMSNorm go: see :class:`disttrain.grads.NormLayers`."""

    def __init__(self, layers: NormLayers, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.groups, self._layers = groups, layers

    def watch(self) -> None:
        self._layers.watch()

    def leave(self) -> None:
        self._layers.leave()

    def begin(self, travels: bool) -> None:
        self._layers.clear()

    def squares(self, micro: MicroBatch) -> Tensor:
        found = self._layers.square_norms(len(micro.ids))
        sums = [torch.stack([found[p] for p in params]).sum() for params in self.groups.values()]
        return torch.stack(sums)

    def small_batch(self, update: int, batch: int) -> float:
        return 1.0
