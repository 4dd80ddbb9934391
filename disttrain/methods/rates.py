"""Learning rates and weight decay of their own: by parameter name, and by depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from disttrain.config import Recipe
from disttrain.errors import InputError
from disttrain.names import matching
from disttrain.optim import layer_depths

Settings = Mapping[str, Mapping[str, float]]
"""Of each parameter by name: ``lr_factor``, always, and ``weight_decay`` where it has one of its own."""


def parameter_settings(recipe: Recipe, model: nn.Module, trained: Sequence[str]) -> Settings:
    """From ``optimizer.groups`` and ``optimizer.layer_decay``, whose factors multiply.

    Args:
        trained: names of the parameters that some stage trains.

    Raises:
        InputError: a pattern matches none of them, or the model's depth cannot be told.
    """
    section = recipe.optimizer
    settings: dict[str, dict[str, float]] = {name: {} for name in trained}
    for i, group in enumerate(section.groups):
        try:
            chosen = matching(settings, group.parameters, "trained parameter")
        except ValueError as error:
            raise InputError(f"optimizer.groups[{i}]: {error}") from None
        given = group.model_dump(exclude={"parameters"}, exclude_none=True)
        for name in chosen:
            settings[name] = {**given, **settings[name]}
    factor = _decay(section.layer_decay, model)
    return {name: {**own, "lr_factor": own.get("lr_factor", 1.0) * factor(name)} for name, own in settings.items()}


def decayed(settings: Settings, factor: float) -> Settings:
    """``settings`` with every weight decay times ``factor``."""
    times = {"weight_decay": factor}
    return {name: {key: value * times.get(key, 1.0) for key, value in own.items()} for name, own in settings.items()}


def _decay(decay: float | None, model: nn.Module) -> Callable[[str], float]:
    """``optimizer.layer_decay`` as a factor on each parameter's learning rate."""
    if decay is None:
        return lambda name: 1.0
    try:
        depths, head = layer_depths(model)
    except ValueError as error:
        raise InputError(f"optimizer.layer_decay: {error}") from None
    rate = decay
    return lambda name: float(rate ** (head - depths[name]))
