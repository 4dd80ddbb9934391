"""From the recipe's ``optimizer`` section to a torch optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from disttrain.config import Recipe
from disttrain.errors import InputError
from disttrain.optim import EXCLUSIONS, param_groups
from disttrain.registry import resolve

OPTIMIZERS = {"sgd": "torch.optim:SGD", "adamw": "torch.optim:AdamW"}
_FUSED = ("sgd", "adamw")
# What the recipe says about the optimizer that is not an argument of it.
_OURS = {"name", "lr", "reference_batch", "lr_scaling", "weight_decay_exclude"}


def make_optimizer(recipe: Recipe, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameters of ``model``.

    Raises:
        InputError: the class cannot be found or does not take the recipe's arguments.
    """
    section = recipe.optimizer
    cls: Any = resolve(section.name, OPTIMIZERS)
    arguments = {k: v for k, v in section.model_dump().items() if k not in _OURS}
    _check_arguments(section.name, cls, arguments)
    groups = param_groups(model, exclude=EXCLUSIONS[section.weight_decay_exclude])
    if section.name in _FUSED:
        arguments["fused"] = True  # one kernel for all: the quickest of torch's paths on CPU and CUDA alike
    optimizer: torch.optim.Optimizer = cls(groups, lr=lr, **arguments)
    return optimizer


def _check_arguments(name: str, cls: Any, arguments: Mapping[str, Any]) -> None:
    if not callable(cls):
        raise InputError(f"optimizer.name: {name} is a {type(cls).__name__}, not an optimizer class")
    try:
        inspect.signature(cls).bind([], lr=0.0, **arguments)
    except TypeError as error:
        raise InputError(f"optimizer: {name} does not take these arguments: {error}") from None
