"""Dropout in a run: masks that do not know the cluster, or each rank's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import nn

from disttrain.config import Recipe
from disttrain.data.batch import Batch, MicroBatch
from disttrain.engine.agreement import everyone
from disttrain.errors import InputError
from disttrain.methods.base import Context
from disttrain.methods.shapes import turned
from disttrain.names import some
from disttrain.nn import convert_dropout, dropout_masks
from disttrain.nn.dropout import draws_masks
from disttrain.nn.dropout.rows import scattered
from disttrain.nn.dropout.watch import draws


def apply_dropout(recipe: Recipe, model: nn.Module) -> nn.Module:
    """``model`` with the dropout that the recipe asks for.

    Raises:
        InputError: a layer cannot be converted.
    """
    if recipe.dropout == "per_rank":
        return model
    try:
        return convert_dropout(model)
    except ValueError as error:
        raise InputError(f"dropout: invariant: {error}, or say dropout: per_rank") from None


class RankDropout:
    """``dropout: per_rank``: all that draws does so from its rank's generators."""

    def masks(self, update: int, batch: Batch, index: int) -> AbstractContextManager[None]:
        """Around forward and backward of micro-batch ``index``."""
        return nullcontext()

    def check(self, batch: Batch, forward: Callable[[MicroBatch], object]) -> None:
        """Before the first update: what ``forward`` does with the first micro-batch of ``batch``, by itself."""


class UnknownDropout(RankDropout):
    """``dropout: invariant`` of a model without dropout that could be converted: there must not be any other."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def check(self, batch: Batch, forward: Callable[[MicroBatch], object]) -> None:
        """
        Raises:
            InputError: on all ranks: the forward pass draws random numbers by itself, and where; or rows of a sample are not
                next to each other where dropout expects them.
        """
        everyone(self._context.engine, lambda: self._look(batch, forward))

    def _look(self, batch: Batch, forward: Callable[[MicroBatch], object]) -> None:
        with self.masks(0, batch, 0):
            found = draws(self._context.model, lambda: forward(batch.micro_batches[0]))
        if not found:
            return
        places = [f"{function} in {_place(self._context.recipe, module)}" for module, function in found]
        raise InputError(
            f"dropout: invariant: the forward pass draws random numbers that differ between ranks: "
            f"{some(places)}. Use disttrain.nn.Dropout or nn.Dropout as a layer, or say dropout: per_rank"
        )


class InvariantDropout(UnknownDropout):
    """``dropout: invariant`` of a model with dropout."""

    def _look(self, batch: Batch, forward: Callable[[MicroBatch], object]) -> None:
        super()._look(batch, forward)
        micro = batch.micro_batches[0]
        if len(micro.ids) < 2:  # nothing can be told apart
            return
        name = scattered(lambda: self.masks(0, batch, 0), lambda: forward(micro), lambda: forward(turned(micro)))
        if name:
            raise InputError(
                f"dropout: invariant: {name} gets several rows for each sample, and not next to each other (such as two views "
                "one after the other): torch.stack(views, 1).flatten(0, 1) has them so, or say dropout: per_rank"
            )

    def masks(self, update: int, batch: Batch, index: int) -> AbstractContextManager[None]:
        return dropout_masks(
            seed=self._context.recipe.seed,
            update=update,
            first=batch.first(index),
            samples=len(batch.micro_batches[index].ids),
            device=self._context.engine.world.device,
        )


def make_dropout(context: Context) -> RankDropout:
    """What the recipe and the model ask for."""
    if context.recipe.dropout == "per_rank":
        return RankDropout()
    return InvariantDropout(context) if draws_masks(context.model) else UnknownDropout(context)


def _place(recipe: Recipe, module: str) -> str:
    if module == "-":
        return f"losses() of task {recipe.task.name}"
    return module or "the model itself"
