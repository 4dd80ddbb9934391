"""Batch norm in a run: which kind the recipe asks for, and whose running statistics are where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from disttrain.config import Recipe
from disttrain.data.batch import Batch
from disttrain.data.position import Position
from disttrain.errors import InputError
from disttrain.methods.base import Context, Method
from disttrain.nn import (
    GhostBatchNorm,
    convert_ghost_batch_norm,
    convert_sync_batch_norm,
    defer_statistics,
    divide_statistics,
    exchange_statistics,
    fold_statistics,
    ghost_count,
    ghost_layers,
)


def apply_batch_norm(recipe: Recipe, model: nn.Module, all_reduce: Callable[[Tensor], object]) -> nn.Module:
    """``model`` with the batch norm of the recipe's ``batch_norm`` section.

    Raises:
        InputError: the model's layers cannot be converted, or there are none.
    """
    kind = recipe.batch_norm
    if kind is None or kind.kind == "per_rank":
        return model
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        raise InputError(f"batch_norm.kind is {kind.kind}, but the model has no batch norm")
    try:
        if kind.kind == "ghost":
            return convert_ghost_batch_norm(model, kind.ghost_size, kind.stats_update)
        return convert_sync_batch_norm(model, all_reduce)
    except ValueError as error:
        raise InputError(f"batch_norm.kind {kind.kind}: {error}") from None


class RunningStatistics(Method):
    """Keeps running statistics exact: ghosts' are folded once per update from all ranks' and micro-batches' ghosts; while
    training a rank has its part of them, and they are complete only inside :meth:`complete`. Per-rank batch norm's are
    averaged over the ranks there.

    Args:
        context: its model has complete statistics, the same on all ranks.

    Attributes:
        layers: those with running statistics; without any there is nothing to do.
    """

    def __init__(self, context: Context) -> None:
        self._engine, self._ghost_size = context.engine, context.plan.ghost_size
        self._ghosts = nn.ModuleList(ghost_layers(context.model))
        norms = [m for m in context.model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
        self._others = nn.ModuleList(m for m in norms if not isinstance(m, GhostBatchNorm))
        self.layers = [*self._ghosts, *self._others]
        self.divide()

    def begin_update(self, position: Position) -> None:
        defer_statistics(self._ghosts)

    def end_update(self, batch: Batch) -> None:
        before, ghosts = batch.before // self._ghost_size, ghost_count(batch.size, self._ghost_size)
        fold_statistics(self._ghosts, samples=batch.size, ghosts_before=before, ghosts=ghosts)

    @contextmanager
    def complete(self) -> Iterator[None]:
        """Around whatever reads the model's statistics: an evaluation, a save. Afterwards the rank has its part to the bit, so a
        run does not depend on when it was looked at."""
        parts = self.rank_state_dict()
        self.merge()
        try:
            yield
        finally:
            self.load_rank_state_dict(parts)

    def merge(self) -> None:
        """Make the statistics complete, for good."""
        exchange_statistics(self._ghosts, self._engine.all_reduce)
        self._engine.average_batch_norm(self._others)

    def divide(self) -> None:
        """The model has complete statistics: begin with an equal part of them on each rank."""
        divide_statistics(self._ghosts, self._engine.world.size)

    def rank_state_dict(self) -> dict[str, Any]:
        return {"layers": [[t if t is None else t.clone() for t in _parts(layer)] for layer in self.layers]}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        for layer, (mean, variance, share) in zip(self.layers, state["layers"], strict=True):
            for buffer, part in ((layer.running_mean, mean), (layer.running_var, variance)):
                if buffer is not None:
                    if part.shape != buffer.shape:
                        raise ValueError(
                            f"running statistics of shape {tuple(part.shape)}; expected {tuple(buffer.shape)}"
                        )
                    buffer.copy_(part)
            if isinstance(layer, GhostBatchNorm):
                layer.share = share


def _parts(layer: nn.modules.batchnorm._NormBase) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    share = layer.share if isinstance(layer, GhostBatchNorm) else None
    if share is None and isinstance(layer, GhostBatchNorm):
        share = torch.ones(
            (), dtype=torch.float64
        )  # complete: what a layer in evaluation mode has until it is deferred
    return layer.running_mean, layer.running_var, share
