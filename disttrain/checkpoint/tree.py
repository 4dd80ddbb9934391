"""Nested Python values as JSON and named tensors, and back, without pickle.

What JSON has no word for is written as an object with one key that starts with ``$``:

===================================  ==============================================
``{"$tensor": "state.0.exp_avg"}``   a tensor, stored under that name
``{"$tuple": [0.9, 0.999]}``         a tuple
``{"$float": "-inf"}``               a float that is not finite: nan, inf or -inf
``{"$items": [[0, ...], ...]}``      a dictionary whose keys are not all plain strings
===================================  ==============================================

Finite floats are written with the digits Python's ``repr`` gives, which read back to the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from disttrain.errors import CheckpointError

MAX_DEPTH = 100
"""Deepest nesting accepted: far above any optimizer's state, far below the interpreter's recursion limit."""

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def flatten(tree: object) -> tuple[Any, dict[str, Tensor]]:
    """Split ``tree`` into a JSON value and its tensors, named by their path: ``state.12.exp_avg``.

    Dictionaries may have keys of type str and int; their order is not kept. NumPy's float64 counts as a
    float.

    Raises:
        CheckpointError: a value of another type; the message names its path.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(tree, (), tensors), tensors


def unflatten(value: Any, tensors: Mapping[str, Tensor], path: Path) -> Any:
    """The inverse of `flatten`; ``path`` is the file that messages name.

    Raises:
        CheckpointError: not what `flatten` writes, or the tensors are not exactly those that ``value`` names.
    """
    unused = dict(tensors)
    tree = _decode(value, unused, path, 0)
    if unused:
        raise CheckpointError(f"{path}: nothing refers to the stored tensor {min(unused)!r}")
    return tree


def _encode(value: object, where: tuple[object, ...], tensors: dict[str, Tensor]) -> Any:
    if len(where) > MAX_DEPTH:
        raise CheckpointError(f"{_dotted(where[:5])}...: nested more than {MAX_DEPTH} deep, so it cannot be saved")
    if isinstance(value, Tensor):
        name = _dotted(where)
        while name in tensors:  # {"a.b": x, "a": {"b": y}} gives the same path twice
            name += "'"
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is list or type(value) is tuple:
        items = [_encode(item, (*where, i), tensors) for i, item in enumerate(value)]
        return items if type(value) is list else {"$tuple": items}
    if isinstance(value, dict):
        return _encode_dict(value, where, tensors)
    raise CheckpointError(
        f"{_dotted(where) or 'the state'}: a {type(value).__module__}.{type(value).__qualname__} cannot be "
        "saved; use None, bool, int, float, str, list, tuple, dict, or a tensor"
    )


def _encode_dict(value: dict[Any, Any], where: tuple[object, ...], tensors: dict[str, Tensor]) -> Any:
    for key in value:
        if type(key) not in (str, int):
            raise CheckpointError(
                f"{_dotted(where) or 'the state'}: the key {key!r} cannot be saved; use str or int keys"
            )
    keys = sorted(value, key=lambda key: (isinstance(key, str), key))
    encoded = [(key, _encode(value[key], (*where, key), tensors)) for key in keys]
    if all(isinstance(key, str) and not key.startswith("$") for key in keys):
        return dict(encoded)
    return {"$items": [[key, item] for key, item in encoded]}


def _decode(value: Any, unused: dict[str, Tensor], path: Path, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise CheckpointError(f"{path}: nested more than {MAX_DEPTH} deep")
    if isinstance(value, list):
        return [_decode(item, unused, path, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if not any(key.startswith("$") for key in value):
        return {key: _decode(item, unused, path, depth + 1) for key, item in value.items()}
    if len(value) == 1:
        ((tag, content),) = value.items()
        if tag == "$tensor" and isinstance(content, str) and content in unused:
            return unused.pop(content)
        if tag == "$tuple" and isinstance(content, list):
            return tuple(_decode(item, unused, path, depth + 1) for item in content)
        if tag == "$float" and isinstance(content, str) and content in _NON_FINITE:
            return _NON_FINITE[content]
        if tag == "$items" and isinstance(content, list) and _are_items(content):
            return {key: _decode(item, unused, path, depth + 1) for key, item in content}
    raise CheckpointError(f"{path}: {str(value)[:100]} is not something disttrain writes")


def _are_items(pairs: list[Any]) -> bool:
    """Whether ``pairs`` are [key, value] lists with str or int keys, none of them twice."""
    if not all(isinstance(pair, list) and len(pair) == 2 and type(pair[0]) in (str, int) for pair in pairs):
        return False
    return len({pair[0] for pair in pairs}) == len(pairs)


def _dotted(where: tuple[object, ...]) -> str:
    return ".".join(map(str, where))
