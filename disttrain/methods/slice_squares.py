"""The squared gradients of the slices of a batch, for an optimizer whose second moment they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from disttrain.data.batch import Batch, MicroBatch
from disttrain.data.position import Position
from disttrain.methods.base import Context, Method


class SliceSquares(Method):
    """Gives each parameter, as ``mean_square``, the mean over the slices of the global batch (by their samples) of the squared
    gradient of each slice's mean loss: what :class:`disttrain.optim.BatchInvariantAdam` reads.

    A hook on each parameter sees what one backward pass adds to its gradient, before that is accumulated or exchanged. Costs two
    more gradients of memory, and an exchange as large as that of the gradients.
    """

    of_parameters = True

    def __init__(self, context: Context) -> None:
        self._engine, self._precision, self._params = context.engine, context.precision, context.params
        self._sums = {p: torch.zeros_like(p, dtype=_wide(p)) for p in self._params}
        self._seen: dict[nn.Parameter, Tensor] = {}
        self._hooks = [p.register_hook(self._seeing(p)) for p in self._params]  # type: ignore[no-untyped-call]

    def release(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for p in self._params:
            p.mean_square = None  # type: ignore[attr-defined]

    def begin_update(self, position: Position) -> None:
        torch._foreach_zero_(list(self._sums.values()))

    def begin_backward(self, last: bool) -> None:
        self._seen = {}  # what the hooks saw earlier was no part of this pass

    def end_backward(self, batch: Batch, micro: MicroBatch) -> None:
        if micro.weight and self._seen:
            # samples / batch, times the square of what makes a part of the batch's gradient that of the slice's own mean loss.
            sums = [self._sums[p] for p in self._seen]
            torch._foreach_add_(sums, list(self._seen.values()), alpha=batch.size / len(micro.ids))
        self._seen = {}

    def see_gradient(self, batch: Batch) -> None:
        factor = (self._engine.multiplier * self._precision.loss_scale) ** 2
        for dtype in sorted({sums.dtype for sums in self._sums.values()}, key=str):
            alike = [p for p, sums in self._sums.items() if sums.dtype == dtype]
            whole = torch.cat([self._sums[p].flatten() for p in alike])
            pieces = (self._engine.all_reduce(whole) / factor).split([p.numel() for p in alike])  # type: ignore[no-untyped-call]
            for p, piece in zip(alike, pieces, strict=True):
                p.mean_square = piece.view_as(p)  # type: ignore[attr-defined]

    def _seeing(self, p: nn.Parameter) -> Callable[[Tensor], None]:
        def see(grad: Tensor) -> None:
            self._seen[p] = grad.detach().to(_wide(p)).square()

        return see


def _wide(p: Tensor) -> torch.dtype:
    return torch.float32 if p.dtype.itemsize < 4 else p.dtype
