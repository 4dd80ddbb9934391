"""Whether stored state fits the run that is to go on from it: a checkpoint may be another run's, or changed by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from disttrain.checkpoint.tree import flatten
from disttrain.errors import CheckpointError

_PROBE = 3
"""Largest dimension of the parameters that show what an optimizer keeps."""


def check_settings(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> None:
    """Refuse loaded groups that lack a setting of ``groups``, the optimizer's own, or have one of another form.

    Raises:
        CheckpointError: naming it.
    """
    for i, (mine, theirs) in enumerate(zip(groups, optimizer.param_groups, strict=True)):
        settings = {name: value for name, value in mine.items() if name != "params"}
        check_form(settings, {name: theirs[name] for name in settings if name in theirs}, f"optimizer.param_groups.{i}")


def check_state(optimizer: torch.optim.Optimizer, *, begins: bool = False) -> None:
    """Refuse loaded state that the next step could not use: torch does not look at what it loads.

    For optimizers of ours and torch's, which keep the same things for the parameters of a group that are alike in shape, of its
    shape or scalars: what, shows a step on a parameter of a few elements. A parameter without a gradient so far has no state.

    Args:
        begins: whether the optimizer may have taken no step yet.

    Raises:
        CheckpointError: state is missing or of another form.
    """
    inner = getattr(optimizer, "optimizer", optimizer)  # within LARC
    loaded, wanted, index = 0, 0, 0
    for group in inner.param_groups:
        kept: dict[tuple[int, ...], dict[str, Any]] = {}
        for p in group["params"]:
            small = tuple(min(length, _PROBE) for length in p.shape)
            if small not in kept:
                kept[small] = _kept(inner, group, p, small)
            expected = kept[small]
            state = inner.state.get(p)
            if state:
                loaded += 1
                mine = {name: p if _is_of(value, small) else value for name, value in expected.items()}
                check_form(mine, dict(state), f"optimizer.state.{index}")
            wanted += len(expected)
            index += 1
    if wanted and not loaded and not begins:
        raise CheckpointError("the checkpoint's optimizer has no state for any parameter")


def _kept(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], like: Tensor, shape: tuple[int, ...]
) -> dict[str, Any]:
    """What ``optimizer`` keeps for a parameter of ``group`` after a step."""
    probe = torch.nn.Parameter(torch.ones(shape, dtype=like.dtype, device=like.device))
    probe.grad = torch.ones_like(probe)
    twin: torch.optim.Optimizer = type(optimizer)([{**group, "params": [probe]}])  # type: ignore[call-arg]
    twin.step()
    return dict(twin.state[probe])


def _is_of(value: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(value, Tensor) and value.shape == shape


@contextmanager
def continuing(what: str) -> Iterator[None]:
    """Around a ``load_state_dict``: what it raises for state of another kind is one message.

    Raises:
        CheckpointError: ``what`` cannot be continued, and why.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{what} cannot be continued: {type(error).__name__}: {error}") from error


def check_form(mine: Any, theirs: Any, where: str) -> None:
    """Refuse ``theirs`` unless it has the keys, kinds and shapes of ``mine``, and finite numbers.

    Raises:
        CheckpointError: it differs; the message says where.
    """
    if isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys():
        for key in mine:
            check_form(mine[key], theirs[key], f"{where}.{key}")
    elif isinstance(mine, list | tuple) and type(mine) is type(theirs) and len(mine) == len(theirs):
        for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            check_form(a, b, f"{where}.{i}")
    elif isinstance(mine, dict | list | tuple) or _kind(mine) != _kind(theirs):
        raise CheckpointError(f"the checkpoint's {where} is {_said(theirs)}; expected {_said(mine)}")


def check_finite(tree: Any) -> None:
    """Refuse NaN and infinities in the tensors of ``tree``.

    Raises:
        CheckpointError: there are some; the message names the first.
    """
    broken = sorted(name for name, t in flatten(tree)[1].items() if not bool(t.isfinite().all()))
    if broken:
        raise CheckpointError(f"{len(broken)} tensors of the checkpoint's state are not finite, {broken[0]} for one")


def _kind(value: Any) -> object:
    if isinstance(value, Tensor) and (value.dim() or value.isfinite()):
        return tuple(value.shape), value.is_floating_point()
    if isinstance(value, Tensor):
        return "no number"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number" if math.isfinite(value) else "no number"
    return type(value)


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return (
            f"a tensor of shape {tuple(value.shape)} of {value.dtype}" if value.dim() else f"the tensor {value.item()}"
        )
    if isinstance(value, dict):
        return f"a mapping of {', '.join(map(str, value))[:80] or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r}"[:60]
