"""Rows of all ranks in one tensor, differentiably: for losses over the global batch, such as contrastive ones.

Forward adds up tensors that are zero outside a rank's own rows, which is exact. Backward adds up what the ranks' losses say of
the gathered rows, and returns each rank its own: the gradients that :meth:`Engine.reduce_gradients` adds up afterwards are
then those of the sum of all ranks' losses, on every engine, because backward begins with :attr:`Engine.multiplier` on each rank
alike.

Both exchanges happen where the graph has them, so every rank makes them in the same order, those of gradient buckets included,
as long as the ranks run the same program. A rank with nothing to add takes part with no rows.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from disttrain.data.batch import Batch
from disttrain.engine.agreement import require_agreement
from disttrain.errors import InputError

if TYPE_CHECKING:
    from disttrain.engine.base import Engine


class GatherRows(torch.autograd.Function):
    """``tensor`` as the rows from ``first`` on of ``total`` rows, the others those of other ranks."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, engine: Engine, first: int, total: int) -> Tensor:
        ctx.engine, ctx.rows, ctx.dtype = engine, slice(first, first + len(tensor)), tensor.dtype
        full = tensor.new_zeros((total, *tensor.shape[1:]))
        full[ctx.rows] = tensor
        return engine.all_reduce(full)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Sums of 16-bit gradients are taken in float32."""
        (gradient,) = gradients
        wide = torch.float32 if ctx.dtype.itemsize < 4 else ctx.dtype
        # A copy, because autograd may use the same memory elsewhere and the exchange is in place.
        total = ctx.engine.all_reduce(gradient.to(wide, copy=True).contiguous())
        return total[ctx.rows].to(ctx.dtype), None, None, None


@dataclass(frozen=True, slots=True)
class GlobalBatch:
    """A global batch, of which this rank holds some rows: what a loss over all of it needs.

    Example::

        everywhere = GlobalBatch(engine, batch)
        logits = image @ everywhere.gather(text).T
        losses = F.cross_entropy(logits, everywhere.own(logits.device), reduction="none")
    """

    engine: Engine
    batch: Batch

    def gather(self, tensor: Tensor) -> Tensor:
        """``(global batch, ...)``: the rows of all ranks in the global batch's order; each rank gets their gradient back.

        Args:
            tensor: ``(n, ...)``, a row for each sample of this rank's only micro-batch. A borrowed sample adds no row.

        Raises:
            InputError: the share is cut into several micro-batches, ``tensor`` has other rows, or this is an evaluation.
        """
        pieces, samples = len(self.batch.micro_batches), max(self.batch.share, 1)
        if torch.is_inference_mode_enabled():
            raise InputError(
                "a global batch is gathered in losses(), in training; an evaluation sums over samples, each by itself"
            ).on_all_ranks()
        if pieces > 1:
            raise InputError(
                f"a loss over the global batch needs this rank's {samples} samples at once, and they are cut into {pieces} "
                f"micro-batches: a per_rank_max of at least {samples}, or more ranks; a task says over_global_batch = True"
            )
        if len(tensor) != samples:
            raise InputError(f"gather() got {len(tensor)} rows; expected {samples}, one for each sample of this rank")
        return gather(self.engine, tensor[: self.batch.share], self.batch.before, self.batch.size)

    def own(self, device: torch.device | str | None = None) -> Tensor:
        """``(n,)`` int64: which gathered rows are this rank's; row 0 stands for a borrowed sample, whose loss has weight 0."""
        return torch.from_numpy(self.batch.indices(0)).to(device)


def positions(engine: Engine, tensor: Tensor) -> tuple[int, int]:
    """Where this rank's rows begin among those of all ranks, and how many there are in all.

    Raises:
        RankError: on all ranks: rows differ in shape or dtype; exchanging them would break off without a word of why.
        InputError: on all ranks: there are no rows, but a single number.
    """
    row = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape[1:])}" if tensor.dim() else "a single number"
    known = torch.zeros(engine.world.size, 2, dtype=torch.int64)
    known[engine.world.rank] = torch.tensor([len(tensor) if tensor.dim() else 0, zlib.crc32(row.encode())])
    counts, kinds = engine.all_reduce(known).T
    if int(kinds.min()) != int(kinds.max()):
        require_agreement(engine, {"gather()": {"a row": row}})
    if not tensor.dim():
        raise InputError("gather() got a single number; expected rows, (n, ...)").on_all_ranks()
    return int(counts[: engine.world.rank].sum()), int(counts.sum())


def gather(engine: Engine, tensor: Tensor, first: int, total: int) -> Tensor:
    """``(total, ...)``: the rows of all ranks, of which this rank's begin at ``first``; see :class:`GatherRows`."""
    result: Tensor = GatherRows.apply(tensor, engine, first, total)  # type: ignore[no-untyped-call]
    return result
