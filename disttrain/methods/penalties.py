"""Penalties: parts of the gradient that no sample brings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from disttrain import grads
from disttrain.config import Recipe
from disttrain.errors import InputError
from disttrain.methods.added_noise import Change
from disttrain.methods.clipping import Params


def make_penalties(recipe: Recipe, model: nn.Module, trained: Sequence[str]) -> list[Change]:
    """From ``loss.penalties``; ``model`` is the task's own module, of whose ``trained`` parameters they select by name. Those
    that are frozen for now have no gradient to add to.

    Raises:
        InputError: a pattern selects nothing.
    """
    named = dict(model.named_parameters())
    changes: list[Change] = []
    for i, penalty in enumerate(recipe.loss.penalties):
        try:
            chosen = [named[name] for name in grads.matching(trained, penalty.parameters, "trained parameter")]
        except ValueError as error:
            raise InputError(f"loss.penalties[{i}]: {error}") from None
        changes.append(_penalty(chosen, penalty.l1, penalty.l2))
    return changes


def _penalty(chosen: Params, l1: float, l2: float) -> Change:
    def add(params: Params, update: int) -> None:
        if l1:
            grads.add_l1_(chosen, l1)
        if l2:
            grads.add_l2_(chosen, l2)

    return add
