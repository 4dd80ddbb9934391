"""Running statistics of ghost batch norm in a training run with several micro-batches and ranks.

The global batch is cut into ghosts; each rank and each micro-batch holds some of them, in order. A trainer divides the
complete statistics between the ranks once (:func:`divide_statistics`), lets every layer keep the statistics of its
ghosts (:func:`defer_statistics`), folds them once per update (:func:`fold_statistics`), and exchanges before the running
statistics are used (:func:`exchange_statistics`), after which it divides again. In between a rank's running statistics
are its *part* of the true ones: what its own ghosts contributed, and a share of what there was before. The rules are
linear, so the parts of all ranks add up to what one process with the whole batch has, for any split.

Each layer knows its share, that is what its part would be if all statistics had been one. The shares add up to
one, and the sum of the parts is divided by theirs, so that layers out of the ordinary stay right as well: one in evaluation mode
(frozen) is neither divided nor folded, one that did not run in an update keeps its statistics, and in one that is used
several times in a forward the ghosts of all uses count. Only of the last kind, by rule ``sequential``, the result depends on
the split.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from disttrain.nn.ghost_norm import GhostBatchNorm, GhostStatistics


def ghost_layers(model: nn.Module) -> list[GhostBatchNorm]:
    """The ghost batch norm layers of ``model`` that keep running statistics, in the order of ``model.modules()``."""
    return [m for m in model.modules() if isinstance(m, GhostBatchNorm) and m.running_mean is not None]


def defer_statistics(model: nn.Module) -> None:
    """From now on training forwards collect statistics, and :func:`fold_statistics` folds them. Also forgets what was
    collected."""
    for layer in ghost_layers(model):
        like = _sums(layer)
        layer.deferred = GhostStatistics.none(like, layer.num_features)
        if layer.share is None:
            layer.share = like.new_ones((), dtype=torch.float64)


@torch.no_grad()
def fold_statistics(model: nn.Module, *, samples: int, ghosts_before: int, ghosts: int) -> None:
    """Fold what was collected since the last call into this rank's part of the running statistics.

    Args:
        samples: of the global batch.
        ghosts_before: ghosts of the global batch that earlier ranks hold.
        ghosts: of the global batch.

    Raises:
        RuntimeError: :func:`defer_statistics` was not called before.
    """
    layers = [layer for layer in ghost_layers(model) if layer.training]
    if any(layer.deferred is None for layer in layers):
        raise RuntimeError("fold_statistics: nothing was collected; call defer_statistics before the first forward")
    collected = [(layer, cast("GhostStatistics", layer.deferred)) for layer in layers]
    if not collected:
        return
    # A rank without a sample of this batch has ghosts in no layer; its parts shrink as everybody's do.
    most = torch.stack([found.ghosts.to(collected[0][1].ghosts) for _, found in collected]).amax()
    for layer, found in collected:
        momentum, kept = cast("float", layer.momentum), layer.kept(ghosts)
        if layer.stats_update == "mean":
            factor: float | Tensor = momentum / samples
        else:
            factor = (1.0 - momentum) ** (ghosts - ghosts_before - found.ghosts).clamp(min=0)
        idle = (found.ghosts == 0) & (most.to(found.ghosts) > 0)
        left = kept + (1.0 - kept) * idle.double()
        layer.fold(found, left, factor)
        layer.share = left * cast("Tensor", layer.share) + factor * found.weight
        layer.deferred = GhostStatistics.none(found.values, layer.num_features)


@torch.no_grad()
def divide_statistics(model: nn.Module, ranks: int) -> None:
    """Make complete running statistics the parts of ``ranks`` ranks: each gets as much. Layers in evaluation mode normalise
    with theirs, and keep them."""
    for layer in ghost_layers(model):
        if layer.training:
            for buffer in _buffers(layer):
                buffer.div_(ranks)
            layer.share = _sums(layer).new_full((), 1.0 / ranks, dtype=torch.float64)


@torch.no_grad()
def exchange_statistics(model: nn.Module, all_reduce: Callable[[Tensor], object]) -> None:
    """Make the parts complete: one all-reduce of all layers' running statistics, in float64.

    Args:
        all_reduce: sums a flat tensor over all ranks in place.
    """
    layers = ghost_layers(model)
    if not layers:
        return
    device = _buffers(layers[0])[0].device
    parts = [
        part.to(device, torch.float64).reshape(-1)
        for layer in layers
        for part in (*_buffers(layer), torch.ones(()) if layer.share is None else layer.share)
    ]
    flat = torch.cat(parts)
    all_reduce(flat)
    sums = iter(torch.split(flat, [part.numel() for part in parts]))
    for layer in layers:
        mean, variance, share = next(sums), next(sums), next(sums)
        for buffer, total in zip(_buffers(layer), (mean, variance), strict=True):
            buffer.copy_(total / share)
        layer.share = None


def _buffers(layer: GhostBatchNorm) -> tuple[Tensor, Tensor]:
    return cast("Tensor", layer.running_mean), cast("Tensor", layer.running_var)


def _sums(layer: GhostBatchNorm) -> Tensor:
    """An empty tensor of the device and dtype to add up statistics in."""
    running = _buffers(layer)[0]
    return running.new_empty(0, dtype=torch.float64 if running.dtype == torch.float64 else torch.float32)
