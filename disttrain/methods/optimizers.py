"""From the recipe's ``optimizer`` section to a torch optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from disttrain.config import Recipe
from disttrain.config.sections.optimizers import Muon
from disttrain.errors import InputError
from disttrain.methods.rates import Settings, decayed
from disttrain.names import matching
from disttrain.optim import EXCLUSIONS, LARC, hidden_matrices, param_groups
from disttrain.optim.matrices import is_matrix
from disttrain.plan.carry import Carried
from disttrain.registry import resolve


def make_optimizer(recipe: Recipe, model: nn.Module, carried: Carried, settings: Settings) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameters of ``model`` that require a gradient. Every group has an ``lr_factor``, which
    the loop applies.

    Args:
        carried: what of it follows the batch.
        settings: of each of these parameters by name.

    Raises:
        InputError: the class cannot be found or does not take the recipe's arguments.
    """
    section = recipe.optimizer
    larc = getattr(section, "larc", None)
    cls: Any = resolve(section.made_by or section.name, {})
    arguments = {**section.model_dump(exclude=section.OURS), **section.fixed, **carried.arguments}
    if "weight_decay" in arguments:
        arguments["weight_decay"] *= carried.decay_factor
    if recipe.log.layer_ratios:
        arguments["record"] = True
    spared = larc.exclude if larc is not None else getattr(section, "adapt_exclude", None)
    names = {parameter: name for name, parameter in model.named_parameters()}
    orthogonal = _orthogonal(section, model, settings)
    settings = decayed(settings, carried.decay_factor)
    groups = param_groups(
        model,
        exclude=EXCLUSIONS[section.weight_decay_exclude],
        exclude_adaptation=None if spared is None else EXCLUSIONS[spared],
        settings=lambda parameter: {**settings[names[parameter]], **orthogonal(names[parameter])},
    )
    try:
        optimizer = cls(groups, lr=carried.lr, **arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer: {section.name} does not take these arguments: {error}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"optimizer.name: {section.name} makes a {type(optimizer).__name__}, not an optimizer")
    if "weight_decay" not in optimizer.defaults and any(group.weight_decay is not None for group in section.groups):
        raise InputError(f"optimizer.groups: {section.name} has no weight_decay; leave it out")
    if larc is not None:
        return LARC(optimizer, trust_coefficient=larc.trust_coefficient, eps=larc.eps, clip=larc.clip)
    return optimizer


def _orthogonal(section: Any, model: nn.Module, settings: Settings) -> Callable[[str], Mapping[str, float]]:
    """For Muon, by name: whether a parameter is orthogonalised."""
    if not isinstance(section, Muon):
        return lambda name: {}
    named = dict(model.named_parameters())
    chosen = {named[name] for name in settings} & hidden_matrices(model)
    if section.adamw is not None:
        try:
            others = set(matching(settings, section.adamw, "trained parameter"))
        except ValueError as error:
            raise InputError(f"optimizer.adamw: {error}") from None
        chosen = {named[name] for name in settings.keys() - others if is_matrix(named[name])}
    if not chosen:
        raise InputError(
            "optimizer muon: none of the trained parameters is a matrix between the embeddings and the head; name in "
            "optimizer.adamw those that are not to be orthogonalised, or use adamw"
        )
    return lambda name: {"orthogonal": named[name] in chosen}
