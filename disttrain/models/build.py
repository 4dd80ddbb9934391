"""From a recipe's ``model`` section to a module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from torch import nn

from disttrain.errors import InputError
from disttrain.registry import resolve

MODELS = {
    "mlp": "disttrain.models.mlp:MLP",
    "convnet": "disttrain.models.convnet:ConvNet",
    "resnet18": "disttrain.models.resnet:resnet18",
    "resnet44": "disttrain.models.resnet:resnet44",
    "resnet50": "disttrain.models.resnet:resnet50",
    "transformer": "disttrain.models.transformer:Transformer",
}
LIBRARIES = {"timm": "timm:create_model", "torchvision": "torchvision.models:get_model"}


def build_model(name: str, arguments: Mapping[str, Any], hints: Mapping[str, Any]) -> nn.Module:
    """Make the model.

    Args:
        name: one of ours, ``timm:NAME``, ``torchvision:NAME``, or ``pkg.mod:callable``.
        arguments: what the recipe says.
        hints: what the task knows (``in_shape``, ``num_classes``, ``vocab_size``, ``sequence_length``). A callable gets
            those for which its signature names a parameter (``**kwargs`` does not count); timm and torchvision get
            ``num_classes``, and timm ``in_chans`` for images that are not of three channels. The recipe's own arguments
            take precedence.

    Raises:
        InputError: it cannot be found, or does not take these arguments; the message says which.
    """
    library, _, variant = name.partition(":")
    if library in LIBRARIES:
        model = _from_library(library, variant, arguments, hints)
    else:
        found = resolve(name, MODELS)
        if isinstance(found, nn.Module) and arguments:
            raise InputError(
                f"model {name} is a module already, and the recipe has arguments for it: {_listed(arguments)}"
            )
        model = found if isinstance(found, nn.Module) else _from_callable(name, found, arguments, hints)
    if not isinstance(model, nn.Module):
        raise InputError(f"model {name}: made a {type(model).__name__}, not a torch.nn.Module")
    return model


def is_ours(name: str) -> bool:
    """Whether the model is built in, so that its graph is known to be the same in every step."""
    return name in MODELS


def _from_library(library: str, variant: str, arguments: Mapping[str, Any], hints: Mapping[str, Any]) -> Any:
    if find_spec(library) is None:
        raise InputError(f"model {library}:{variant} needs {library}, which is not installed: pip install {library}")
    create = resolve(LIBRARIES[library], {})
    known = {"num_classes": hints["num_classes"]} if "num_classes" in hints else {}
    channels = hints.get("in_shape", (3,))[0]
    if library == "timm" and channels != 3:
        known["in_chans"] = channels
    merged = {**known, **arguments}
    try:
        return create(variant, **merged)
    # An unknown name or argument is one of these three, depending on the library and the model.
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"model {library}:{variant}: {library} cannot make it with {_listed(merged)}: {error}"
        ) from error


def _from_callable(name: str, make: Callable[..., Any], arguments: Mapping[str, Any], hints: Mapping[str, Any]) -> Any:
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):
        raise InputError(f"model {name}: is a {type(make).__name__}; expected a class or a function") from None
    merged = {**{key: value for key, value in hints.items() if key in signature.parameters}, **arguments}
    try:
        signature.bind(**merged)
    except TypeError as error:
        raise InputError(
            f"model {name}: {error}. Its parameters are {_listed(signature.parameters)}; "
            f"the recipe gives {_listed(arguments)}; the task knows {_listed(hints)}"
        ) from None
    return make(**merged)


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"
