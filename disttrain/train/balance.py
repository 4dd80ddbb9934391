"""How a run makes one loss out of several: by fixed weights, or by weights it learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from disttrain.config import Recipe
from disttrain.engine.base import Engine
from disttrain.errors import InputError
from disttrain.grads import select
from disttrain.precision import Precision
from disttrain.tasks.terms import Losses, stacked, totals, weighted
from disttrain.train.learned import BalancedGradients, LearnedUncertainty, LearnedWeights, Report


class FixedWeights:
    """The recipe's ``loss.weights`` (1 where it has none), or a single loss as it is. Nothing is learned."""

    def __init__(self, engine: Engine, weights: Mapping[str, float] | None) -> None:
        self._engine = engine
        self._weights = weights
        self._names: tuple[str, ...] = ()
        self._vector = torch.zeros(0)
        self._sums: Tensor | None = None

    def begin_update(self) -> None:
        """Before the micro-batches of an update."""
        self._sums = None

    def combine(self, losses: Losses, share: float) -> Tensor:
        """One loss for each item of a micro-batch.

        Args:
            share: what makes the sum over its items a part of the mean over the global batch.

        Raises:
            InputError: the weights are not those of this task's losses.
        """
        if isinstance(losses, Tensor):
            if self._weights is not None:
                raise InputError("loss.weights: this task has a single loss; leave them out").on_all_ranks()
            return losses
        names = tuple(sorted(losses))
        if names != self._names:
            self._begin(names)
        terms = stacked(losses, names)
        sums = totals(terms) * share
        self._sums = sums if self._sums is None else self._sums + sums
        return weighted(terms, self._vector)

    def _begin(self, names: tuple[str, ...]) -> None:
        weights = dict.fromkeys(names, 1.0) if self._weights is None else self._weights
        if weights.keys() != set(names):
            raise InputError(
                f"loss.weights has {', '.join(sorted(weights)) or 'nothing'}; this task's losses are {', '.join(names)}"
            ).on_all_ranks()
        self._names = names
        self._vector = torch.tensor([weights[n] for n in names], dtype=torch.float64, device=self._engine.world.device)

    def end_update(self) -> None:
        """After an update that was applied."""

    def report(self) -> Report:
        """What a training line says of the last update, once it is asked for: the mean of each loss, where there are several."""
        if self._sums is None:
            return dict
        numbers = self._engine.sum_later(self._sums.clone())
        return lambda: {"losses": dict(zip(self._names, numbers(), strict=True))}

    def state_dict(self) -> dict[str, Any] | None:
        """Plain numbers for a checkpoint; None: nothing changes."""
        return None

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restore what :meth:`state_dict` returned."""


Balance = FixedWeights | LearnedWeights


def make_balance(recipe: Recipe, engine: Engine, precision: Precision, model: nn.Module) -> Balance:
    """From the recipe's ``loss.weights`` and ``loss.balance``.

    Args:
        model: the task's own module, whose parameters the shared layer is chosen from.

    Raises:
        InputError: a pattern selects nothing.
    """
    balance = recipe.loss.balance
    if balance is None:
        return FixedWeights(engine, recipe.loss.weights)
    if balance.kind == "uncertainty":
        return LearnedUncertainty(engine, balance.lr)
    try:
        shared = select(model, balance.parameters)
    except ValueError as error:
        raise InputError(f"loss.balance: {error}") from None
    return BalancedGradients(engine, precision, shared, alpha=balance.alpha, lr=balance.lr)
