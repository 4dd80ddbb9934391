"""From the recipe's ``loss`` section to the weights of a task's losses."""

from __future__ import annotations

from torch import nn

from disttrain.config import Recipe
from disttrain.engine.base import Engine
from disttrain.errors import InputError
from disttrain.grads import select
from disttrain.methods.learned import BalancedGradients, LearnedUncertainty
from disttrain.methods.loss_weights import FixedWeights, LossWeights
from disttrain.precision import Precision


def make_balance(recipe: Recipe, engine: Engine, precision: Precision, model: nn.Module) -> LossWeights:
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
