"""From samples to a batch: stacked as they are, or by a function of one's own."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disttrain.data.generators import random_states
from disttrain.data.tree import Tensors, a_kind, child, joined, map_leaves, named_leaves, names, rebuilt
from disttrain.errors import DataError

Collate = Callable[[list[Any]], Tensors]
"""Makes a batch of the samples of one micro-batch. It must not draw random numbers, because micro-batches are cut as the
cluster asks for; what is random belongs to the sample."""


def stack(samples: Sequence[Any], ids: Sequence[int] | None = None) -> Tensors:
    """A batch of the same structure as each sample, every field stacked: ``(n, ...)``.

    Fields are tensors, arrays, numbers, booleans, or lists of numbers of one length (an array, as in the rows of Hugging
    Face data sets); in tuples, lists, dicts, dataclasses or named tuples, nested. A mapping of any kind becomes a dict with the
    keys in the order of the first sample.

    Args:
        samples: at least one.
        ids: what errors call the samples; None: their places.

    Raises:
        DataError: a field is something else, or the samples differ in structure, shape or type; the message names sample and
            field.
    """
    return _stack(list(samples), range(len(samples)) if ids is None else ids, "")


def collated(collate: Collate, samples: list[Any], ids: Sequence[int]) -> Tensors:
    """What somebody's ``collate`` makes of ``samples``, checked.

    Raises:
        DataError: it failed, drew random numbers, or gave something else than tensors.
    """
    shown = f"{', '.join(map(str, ids[:4]))}{', ...' if len(ids) > 4 else ''}"
    before = random_states()
    try:
        batch = collate(samples)
    except DataError:
        raise
    except Exception as error:
        # A worker process cannot hand over the traceback itself, and without it nobody finds the mistake.
        raise DataError(
            f"collate() failed for samples {shown}: {type(error).__name__}: {error}\n{traceback.format_exc()}"
        ) from error
    if random_states() != before:
        raise DataError(
            "collate() drew random numbers: they would depend on how many ranks and micro-batches share a batch. Draw them "
            "where a sample is made (in __getitem__ or a transform), where they follow from seed, epoch and sample"
        )
    found = list(named_leaves(batch))
    for path, leaf in found:
        if not (isinstance(leaf, Tensor) or (isinstance(leaf, np.ndarray) and _fits_torch(leaf))):
            raise DataError(
                f"collate() gave {_kind(leaf)}{f' as field {path}' if path else ''}; expected tensors with the samples first, "
                "in a tuple, list, dict or dataclass: nothing else can go to the device"
            )
    if not found:
        raise DataError(f"collate() gave an empty {type(batch).__name__}; expected tensors with the samples first")
    return map_leaves(lambda leaf: leaf if isinstance(leaf, Tensor) else torch.from_numpy(leaf), batch)


def _stack(values: list[Any], ids: Sequence[int], path: str) -> Tensors:
    first = values[0]
    fields = _fields(first, path)
    if fields is None:
        return _stack_leaves(values, ids, path)
    for value, id in zip(values, ids, strict=True):
        own = _fields(value, path)
        if own is None or _family(value) is not _family(first):
            raise DataError(
                f"{_at(id, path)} is {_kind(value)}, sample {ids[0]} has {_kind(first)}; expected the same for all"
            )
        if own != fields and set(own) != set(fields):
            raise DataError(
                f"{_at(id, path)} has {_listed(value, own)}, sample {ids[0]} has {_listed(first, fields)}; expected the same "
                "for all"
            )
    columns = [_stack([child(value, name) for value in values], ids, joined(path, name)) for name in fields]
    return rebuilt(first, columns)


def _at(id: int, path: str) -> str:
    return f"sample {id}: field {path}" if path else f"sample {id}"


def _fields(value: Any, path: str) -> list[Any] | None:
    """:func:`names`, but a list within a sample is an array if what it holds at last is numbers, or nothing."""
    return None if path and isinstance(value, list) and not _holds_fields(value) else names(value)


def _holds_fields(value: list[Any]) -> bool:
    first: Any = value
    while isinstance(first, list) and first:
        first = first[0]
    return isinstance(first, Tensor | np.ndarray) or names(first) not in (None, [])


def _family(value: Any) -> type:
    """Tuples and lists pass for each other, and so do all mappings."""
    if isinstance(value, tuple | list):
        return tuple
    return dict if isinstance(value, Mapping) else type(value)


def _stack_leaves(values: list[Any], ids: Sequence[int], path: str) -> Tensor:
    kind = type(values[0])
    if kind in (int, float, bool) and all(type(value) is kind for value in values):
        for value, id in zip(values, ids, strict=True):
            if kind is int and not -(2**63) <= value < 2**63:
                raise DataError(f"{_at(id, path)} is {value}, which is beyond int64; make it smaller, or leave it out")
        return torch.tensor(values)
    tensors = [
        value if isinstance(value, Tensor) else _tensor(value, id, path) for value, id in zip(values, ids, strict=True)
    ]
    first = tensors[0]
    for tensor, id in zip(tensors, ids, strict=True):
        if tensor.shape != first.shape or tensor.dtype != first.dtype:
            advice = "" if tensor.shape == first.shape else " (to pad to the longest, give the task a collate())"
            raise DataError(
                f"{_at(id, path)} is {tensor.dtype} {tuple(tensor.shape)}, sample {ids[0]} has "
                f"{first.dtype} {tuple(first.shape)}; expected the same for all{advice}"
            )
    return torch.stack(tensors)


def _tensor(value: Any, id: int, path: str) -> Tensor:
    if isinstance(value, int | float) and not isinstance(value, np.generic):
        return torch.tensor(value)
    if isinstance(value, np.ndarray | np.generic):
        # The copy is one that torch takes as it is: writeable, and with strides that are not negative.
        array = np.array(value, order="C")
        if _fits_torch(array):
            return torch.from_numpy(array)
    if isinstance(value, list):
        try:
            return torch.tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{_at(id, path)} is a list that makes no array: {error}") from error
    raise DataError(
        f"{_at(id, path)} is {_kind(value)}; expected a tensor, an array of numbers or a number ({_advice(value)})"
    )


def _fits_torch(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype.kind in "biuf" and array.dtype.isnative


def _advice(value: Any) -> str:
    if isinstance(value, str | bytes):
        return "make it a number where the sample is made, leave it out, or give the task a collate() that does"
    return "a missing value" if value is None else "add a transform that makes one"


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array"
    if isinstance(value, list) and value:
        return f"a list of {type(value[0]).__name__}"
    return a_kind(value)


def _listed(value: Any, fields: list[Any]) -> str:
    if isinstance(value, tuple | list):
        return f"{len(fields)} fields"
    return f"the fields {', '.join(map(str, fields))}"
