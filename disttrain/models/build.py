"""From a recipe's ``model`` section to a module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from disttrain.errors import InputError
from disttrain.registry import resolve

MODELS = {
    "mlp": "disttrain.models.mlp:MLP",
    "convnet": "disttrain.models.convnet:ConvNet",
    "resnet18": "disttrain.models.resnet:resnet18",
    "resnet50": "disttrain.models.resnet:resnet50",
    "transformer": "disttrain.models.transformer:Transformer",
}


def build_model(name: str, arguments: Mapping[str, Any], hints: Mapping[str, Any]) -> nn.Module:
    """Make the model.

    Args:
        name: one of ours, ``timm:NAME``, ``torchvision:NAME``, or ``pkg.mod:callable``.
        arguments: what the recipe says.
        hints: what the task knows (``in_shape``, ``num_classes``, ``vocab_size``, ``sequence_length``); passed where the
            callable has a parameter of that name and the recipe does not set it.

    Raises:
        InputError: it cannot be found, or does not take these arguments; the message says which.
    """
    make = _find(name)
    if name.startswith(("timm:", "torchvision:")):
        known = {"num_classes": hints["num_classes"]} if "num_classes" in hints else {}
    else:
        parameters = _parameters(make)
        known = {key: value for key, value in hints.items() if key in parameters}
    merged = {**known, **arguments}
    try:
        inspect.signature(make).bind(**merged)
    except TypeError as error:
        raise InputError(
            f"model {name}: {error}; it was to be called with {', '.join(sorted(merged)) or 'nothing'}"
        ) from None
    model = make(**merged)
    if not isinstance(model, nn.Module):
        raise InputError(f"model {name}: made a {type(model).__name__}, not a torch.nn.Module")
    return model


def is_ours(name: str) -> bool:
    """Whether the model is built in, so that its graph is known to be the same in every step."""
    return name in MODELS


def _find(name: str) -> Callable[..., Any]:
    library, _, model = name.partition(":")
    if library == "timm":
        create = resolve("timm:create_model", {})
        return lambda **arguments: create(model, **arguments)
    if library == "torchvision":
        get = resolve("torchvision.models:get_model", {})
        return lambda **arguments: get(model, **arguments)
    found: Callable[..., Any] = resolve(name, MODELS)
    return found


def _parameters(make: Callable[..., Any]) -> set[str]:
    found = inspect.signature(make).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found.values()):
        return {"in_shape", "num_classes", "vocab_size", "sequence_length"}
    return set(found)
