"""Exchanging the batch norm layers of a model for others with the same weights and statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from disttrain.nn.ghost_norm import GHOSTS, GhostBatchNorm, StatsUpdate
from disttrain.nn.sync_norm import AllReduce, SyncBatchNorm

_BatchNorm = nn.modules.batchnorm._BatchNorm


def convert_ghost_batch_norm(model: nn.Module, ghost_size: int, stats_update: StatsUpdate = "sequential") -> nn.Module:
    """Every ``nn.BatchNorm1d/2d/3d`` in ``model`` becomes ghost batch norm with the same parameters (the very same
    objects), buffers, mode, device and dtype. Ghost batch norm layers get the new size and rule. Returns the model: a
    new one only where it is itself a layer.

    Raises:
        ValueError: a layer is synchronised, which contradicts ghosts, keeps a cumulative average, or is a variant of batch
            norm that does more.
    """

    def convert(layer: nn.Module) -> nn.Module | None:
        if isinstance(layer, GhostBatchNorm):
            layer.cut(ghost_size, stats_update)
            return None
        if isinstance(layer, (nn.SyncBatchNorm, SyncBatchNorm)):
            raise ValueError(
                "the model has synchronised batch norm, whose statistics are over all ranks: no ghosts in it"
            )
        if not isinstance(layer, _BatchNorm):
            return None
        _refuse_variants(layer)
        return _like(layer, GHOSTS[type(layer)], ghost_size=ghost_size, stats_update=stats_update)

    return _replace(model, convert)


def convert_batch_norm(model: nn.Module) -> nn.Module:
    """The inverse of :func:`convert_ghost_batch_norm`: every ghost batch norm becomes torch's batch norm."""
    plain = {ghost: kind for kind, ghost in GHOSTS.items()}

    def convert(layer: nn.Module) -> nn.Module | None:
        if not isinstance(layer, GhostBatchNorm):
            return None
        return _like(layer, cast("type[_BatchNorm]", plain[type(layer)]))

    return _replace(model, convert)


def convert_sync_batch_norm(model: nn.Module, all_reduce: AllReduce) -> nn.Module:
    """Every batch norm in ``model`` becomes :class:`SyncBatchNorm` over ``all_reduce``, with the same parameters and
    buffers.

    Raises:
        ValueError: a layer has ghosts, keeps a cumulative average, or is a variant of batch norm that does more.
    """

    def convert(layer: nn.Module) -> nn.Module | None:
        if isinstance(layer, GhostBatchNorm):
            raise ValueError("the model has ghost batch norm, whose statistics are those of a few samples")
        if not isinstance(layer, _BatchNorm) or isinstance(layer, SyncBatchNorm):
            return None
        _refuse_variants(layer)
        return _like(layer, SyncBatchNorm, all_reduce=all_reduce)

    return _replace(model, convert)


def _refuse_variants(layer: nn.Module) -> None:
    # A subclass may do more, such as an activation (timm's BatchNormAct2d), which would be lost.
    if type(layer) not in (*GHOSTS, nn.SyncBatchNorm):
        kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
        raise ValueError(f"the model has a {kind}, a variant of batch norm that cannot be converted")


def _like(old: _BatchNorm, kind: Callable[..., _BatchNorm], **more: Any) -> nn.Module:
    """A layer of that kind with the settings, the parameters and the buffers of ``old``."""
    settings = ("num_features", "eps", "momentum", "affine", "track_running_stats")
    new = kind(**{name: getattr(old, name) for name in settings}, **more)
    if old.affine:
        new.weight, new.bias = old.weight, old.bias
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(new, name, getattr(old, name))
    return new.train(old.training)


def _replace(model: nn.Module, convert: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    top = convert(model)
    if top is not None:
        return top
    done: dict[nn.Module, nn.Module] = {}  # a layer that stands in several places stays one layer
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None:
                if child not in done:
                    done[child] = convert(child) or child
                parent._modules[name] = done[child]
    return model
