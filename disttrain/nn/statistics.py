"""Running statistics of ghost batch norm in a training run with several micro-batches and ranks.

The global batch is cut into ghosts; each rank and each micro-batch holds some of them, in order. A trainer lets every
layer keep the statistics of its ghosts (:func:`defer_statistics`), folds them once per update
(:func:`fold_statistics`), and exchanges before the running statistics are used (:func:`exchange_statistics`). In
between a rank's running statistics are its *part* of the true ones: what its own ghosts contributed, and a share of
what there was before. The parts of all ranks add up to what one process with the whole batch has, for any split.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from disttrain.nn.ghost_norm import GhostBatchNorm, GhostStatistics


def ghost_layers(model: nn.Module) -> list[GhostBatchNorm]:
    """The ghost batch norm layers that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, GhostBatchNorm) and m.track_running_stats]


def defer_statistics(model: nn.Module) -> None:
    """From now on training forwards collect statistics, and :func:`fold_statistics` folds them. Also forgets what was
    collected."""
    for layer in ghost_layers(model):
        layer.deferred = []


@torch.no_grad()
def fold_statistics(model: nn.Module, *, samples: int, ghosts_before: int, ghosts: int) -> None:
    """Fold what was collected since the last call into this rank's part of the running statistics.

    Args:
        samples: of the global batch.
        ghosts_before: ghosts of the global batch that earlier ranks hold.
        ghosts: of the global batch.

    Raises:
        RuntimeError: a layer has collected more or other ghosts than fit: it was used twice in a forward, say.
    """
    for layer in ghost_layers(model):
        collected, layer.deferred = layer.deferred or [], []
        momentum = cast("float", layer.momentum)
        mean, variance = cast("Tensor", layer.running_mean), cast("Tensor", layer.running_var)
        kept = 1.0 - momentum if layer.stats_update == "mean" else (1.0 - momentum) ** ghosts
        mean.mul_(kept)
        variance.mul_(kept)
        if collected:
            found = GhostStatistics(
                torch.cat([c.values for c in collected], 1), [s for c in collected for s in c.sizes]
            )
            after = ghosts - ghosts_before - len(found.sizes)
            if after < 0:
                raise RuntimeError(
                    f"a ghost batch norm layer saw {len(found.sizes)} ghosts on a rank that has at most "
                    f"{ghosts - ghosts_before} of {ghosts}: a layer used twice in one forward has no running statistics"
                )
            weights = found.weights(layer.stats_update, momentum, samples=samples, ghosts_after=after)
            new_mean, new_variance = torch.einsum("k,skc->sc", weights.to(found.values), found.values)
            mean.add_(new_mean)
            variance.add_(new_variance)
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)


def divide_statistics(model: nn.Module, ranks: int) -> None:
    """Make complete running statistics the parts of ``ranks`` ranks: each gets as much."""
    for buffer in _buffers(model):
        buffer.div_(ranks)


def exchange_statistics(model: nn.Module, all_reduce: Callable[[Tensor], object]) -> None:
    """Make the parts complete: one all-reduce of all layers' running statistics, in float64.

    Args:
        all_reduce: sums a flat tensor over all ranks in place.
    """
    buffers = _buffers(model)
    if not buffers:
        return
    flat = torch.cat([b.double().reshape(-1) for b in buffers])
    all_reduce(flat)
    for part, buffer in zip(torch.split(flat, [b.numel() for b in buffers]), buffers, strict=True):
        buffer.copy_(part.view_as(buffer))


def _buffers(model: nn.Module) -> list[Tensor]:
    return [cast("Tensor", b) for m in ghost_layers(model) for b in (m.running_mean, m.running_var)]
