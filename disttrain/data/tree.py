"""Samples and batches as trees: tensors in tuples, lists, dicts, dataclasses and named tuples, nested as one likes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

Tensors = Any
"""A tensor, or a tuple, list, dict, dataclass or named tuple of such trees. One row of each tensor belongs to one sample."""


def names(node: Any) -> list[Any] | None:
    """The fields of a node, in their own order: keys, places or attributes; None of what is no node but a leaf."""
    if isinstance(node, Tensor):
        return None
    if isinstance(node, tuple | list):
        return list(range(len(node)))
    if isinstance(node, Mapping):
        return list(node)
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return [field.name for field in dataclasses.fields(node)]
    return None


def child(node: Any, name: Any) -> Any:
    """A field of a node by one of its :func:`names`."""
    return node[name] if isinstance(node, tuple | list | Mapping) else getattr(node, name)


def rebuilt(node: Any, children: Sequence[Any]) -> Any:
    """A node like ``node`` of other ``children``, in the order of its :func:`names`. Any mapping becomes a dict."""
    if isinstance(node, tuple):
        return type(node)._make(children) if hasattr(node, "_make") else tuple(children)
    if isinstance(node, list):
        return list(children)
    if isinstance(node, Mapping):
        return dict(zip(node, children, strict=True))
    new = copy(node)  # not made anew: what its __init__ checks or adds was for a sample
    for field, value in zip(dataclasses.fields(node), children, strict=True):
        object.__setattr__(new, field.name, value)
    return new


def map_leaves(change: Callable[[Any], Any], tree: Any) -> Any:
    """The same tree with each leaf changed."""
    if type(tree) is tuple:  # by far the most frequent node
        return tuple([change(leaf) if isinstance(leaf, Tensor) else map_leaves(change, leaf) for leaf in tree])
    fields = names(tree)
    if fields is None:
        return change(tree)
    return rebuilt(tree, [map_leaves(change, child(tree, name)) for name in fields])


def leaves(tree: Any) -> list[Any]:
    """All leaves, in the order of the fields."""
    return [leaf for _, leaf in named_leaves(tree)]


def named_leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf with its path, such as ``image.1``; a tree that is a leaf has an empty one."""
    fields = names(tree)
    if fields is None:
        yield path, tree
        return
    for name in fields:
        yield from named_leaves(child(tree, name), joined(path, name))


def joined(path: str, name: Any) -> str:
    """The path of a field of the node at ``path``."""
    return f"{path}.{name}" if path else str(name)


def split(tree: Tensors, sizes: list[int]) -> Iterator[Tensors]:
    """Cut a batch into batches of ``sizes`` samples."""
    pieces = [torch.split(leaf, sizes) for leaf in leaves(tree)]
    if type(tree) is tuple and len(pieces) == len(tree):
        return zip(*pieces, strict=True)
    return (_refilled(tree, iter(row)) for row in zip(*pieces, strict=True))


def _refilled(tree: Tensors, new: Iterator[Tensor]) -> Tensors:
    return map_leaves(lambda _: next(new), tree)


def described(tree: Any) -> str:
    """What a batch is, in words: ``a dict: ids int64 (8, 12), labels int64 (8,)``."""
    if names(tree) is None:
        return _kind(tree)
    fields = ", ".join(f"{path} {_kind(leaf)}" for path, leaf in named_leaves(tree))
    return f"a {type(tree).__name__}: {fields or 'empty'}"


def a_kind(value: Any) -> str:
    """``an int``, ``a str``, ``None``, ``a tensor of shape (8, 3)``."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    name = type(value).__name__
    return "None" if value is None else f"a{'n' * (name[0] in 'aeiouAEIOU')} {name}"


def _kind(leaf: Any) -> str:
    if isinstance(leaf, Tensor):
        return f"{str(leaf.dtype).removeprefix('torch.')} {tuple(leaf.shape)}"
    return type(leaf).__name__
