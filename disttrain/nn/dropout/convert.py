"""Exchanging the dropout of a model for dropout that does not depend on the cluster."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from itertools import pairwise
from types import CodeType
from typing import Any

from torch import nn

from disttrain.nn.dropout.context import layer_number
from disttrain.nn.dropout.functional import Functional, MultiheadAttention
from disttrain.nn.dropout.layers import AlphaDropout, ChannelDropout, Drawn, Dropout, DropPath, path_probability

_MIXED: dict[type[nn.Module], type[Drawn]] = {
    nn.Dropout: Dropout,
    nn.Dropout1d: ChannelDropout,
    nn.Dropout2d: ChannelDropout,
    nn.Dropout3d: ChannelDropout,
    nn.AlphaDropout: AlphaDropout,
    nn.MultiheadAttention: MultiheadAttention,
}
_JOINED: dict[tuple[type[Drawn], type[nn.Module]], type[nn.Module]] = {}
_ATTENTION = frozenset({"scaled_dot_product_attention", "ALL_ATTENTION_FUNCTIONS"})


def convert_dropout(model: nn.Module) -> nn.Module:
    """Let all dropout in ``model`` draw masks that do not depend on the cluster, inside :func:`dropout_masks`.

    In place: each layer stays the same object with the same settings, hooks and name and gets another class, so that parameters,
    ``state_dict`` and evaluation are untouched. Converted are ``nn.Dropout``, ``nn.Dropout1d/2d/3d``, ``nn.AlphaDropout``,
    ``nn.MultiheadAttention``, the stochastic depth of timm, torchvision and Hugging Face, and modules that call ``F.dropout``
    or ``F.scaled_dot_product_attention`` with a probability that they have as an attribute or as a dropout layer, as
    Hugging Face attention does. Converting again changes nothing but names.

    Returns:
        ``model``.

    Raises:
        ValueError: a layer drops in a way that cannot be converted; the message names it.
    """
    for name, module in list(model.named_modules()):
        _refuse(name, module)
        mixed = _mixed(module)
        if mixed is not None:
            module.__class__ = _joined(mixed, type(module))
        if isinstance(module, Drawn):
            module.drawn_as = layer_number(name), name
    for module in model.modules():
        if isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
            _samples_second(module)
    return model


def draws_masks(model: nn.Module) -> bool:
    """Whether there is anything in ``model`` that :func:`dropout_masks` is for."""
    return any(isinstance(module, Drawn) for module in model.modules())


def _mixed(module: nn.Module) -> type[Drawn] | None:
    """What is to be mixed into the class of ``module``."""
    if isinstance(module, Drawn):
        return None
    for kind, mixed in _MIXED.items():
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return mixed if _probability(module) > 0.0 else None
    if _is_drop_path(module):
        return DropPath if path_probability(module) > 0.0 else None
    return Functional if _calls_dropout(module) else None


def _probability(module: Any) -> float:
    return float(module.dropout if isinstance(module, nn.MultiheadAttention) else module.p)


def _is_drop_path(module: nn.Module) -> bool:
    name = type(module).__name__
    return name.endswith("DropPath") or name == "StochasticDepth"


def _calls_dropout(module: nn.Module) -> bool:
    """Whether ``module`` knows a probability and its code names a function that drops."""
    known = any("drop" in name and _is_probability(value) for name, value in vars(module).items())
    below = any(isinstance(child, nn.modules.dropout._DropoutNd) and child.p > 0.0 for child in module.children())
    own = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0.0
    if not (known or below or own):
        return False
    return any(_drops(code) for code in _methods(type(module)))


def _is_probability(value: object) -> bool:
    return isinstance(value, float) and 0.0 < value <= 1.0


def _methods(kind: type[nn.Module]) -> Iterator[CodeType]:
    """The code of the methods of a class of a model, as they are below what decorates them."""
    for base in kind.__mro__:
        # transformers' base class of all models speaks of attention, and draws nothing itself.
        if issubclass(base, nn.Module) and base is not nn.Module and base.__module__ != "transformers.modeling_utils":
            for value in vars(base).values():
                code = getattr(inspect.unwrap(value), "__code__", None) if callable(value) else None
                if isinstance(code, CodeType):
                    yield code


def _drops(code: CodeType) -> bool:
    """Whether it names attention, or ``F.dropout`` in so many words."""
    if _ATTENTION & set(code.co_names):
        return True
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    return any(
        step.argval == "dropout" and (step.opname == "LOAD_GLOBAL" or before.argval in ("F", "functional"))
        for before, step in pairwise(steps)
    )


def _joined(mixed: type[Drawn], kind: type[nn.Module]) -> type[nn.Module]:
    """``kind`` with ``mixed`` before it, under the name of ``kind``; the same class each time."""
    if issubclass(mixed, kind):
        return mixed
    if (mixed, kind) not in _JOINED:
        _JOINED[mixed, kind] = type(
            kind.__name__, (mixed, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__}
        )
    return _JOINED[mixed, kind]


def _samples_second(layer: Any) -> None:
    """torch's transformer layers have samples second unless they say otherwise."""
    if not layer.self_attn.batch_first:
        for child in layer.modules():
            if isinstance(child, Drawn) and not isinstance(child, nn.MultiheadAttention):
                child.samples_dim = 1


def _refuse(name: str, module: nn.Module) -> None:
    """
    Raises:
        ValueError: the module drops by itself and cannot be converted.
    """
    why = ""
    if isinstance(module, nn.RNNBase) and module.dropout > 0.0 and module.num_layers > 1:
        why = "drops between its layers inside of torch; give it dropout=0 and put disttrain.nn.Dropout between single layers"
    elif isinstance(module, nn.FeatureAlphaDropout) and module.p > 0.0:
        why = "has no counterpart here; use nn.AlphaDropout"
    elif isinstance(module, nn.MultiheadAttention) and module.dropout > 0.0:
        if module.bias_k is not None or module.add_zero_attn:
            why = "has dropout together with add_bias_kv or add_zero_attn; leave one of them out"
    elif _is_drop_path(module) and getattr(module, "mode", "row") != "row":
        why = 'draws once for a micro-batch; use mode="row"'
    if why:
        raise ValueError(f"{name or 'the model'} ({type(module).__name__}) {why}")
