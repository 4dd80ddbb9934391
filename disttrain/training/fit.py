"""Whether stored state fits the run that is to go on from it: a checkpoint may be another run's, or changed by hand."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from disttrain.checkpoint import flatten
from disttrain.errors import CheckpointError

Layout = dict[Tensor, dict[str, Any]]
"""An optimizer's state for each parameter."""


def lay_out(optimizer: torch.optim.Optimizer) -> Layout:
    """What ``optimizer`` keeps for each parameter, found out by a step on gradients of zero.

    torch does not check what it loads: a moment of another shape would only fail in the next update. Weights and state are
    spoiled afterwards, so load both.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for p in params:
        p.grad = None
    return {p: dict(state) for p, state in optimizer.state.items()}


def check_optimizer(optimizer: torch.optim.Optimizer, layout: Layout, groups: list[dict[str, Any]]) -> None:
    """Refuse loaded state that the next step could not use.

    Args:
        layout: from :func:`lay_out`; a parameter that never had a gradient has no state.
        groups: the optimizer's own, as they were before loading.

    Raises:
        CheckpointError: settings or state are missing or of another form.
    """
    for i, (mine, theirs) in enumerate(zip(groups, optimizer.param_groups, strict=True)):
        settings = {name: value for name, value in mine.items() if name != "params"}
        check_form(settings, {name: theirs[name] for name in settings if name in theirs}, f"optimizer.param_groups.{i}")
    if layout and not any(optimizer.state.values()):
        raise CheckpointError("the checkpoint's optimizer has no state for any parameter")
    names = {p: i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    for p, state in optimizer.state.items():
        if state and p in layout:
            lasting = {k: v for k, v in layout[p].items() if k not in state or _lasts(v, p)}
            check_form(lasting, {k: v for k, v in state.items() if k in lasting}, f"optimizer.state.{names[p]}")


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


def _lasts(value: Any, param: Tensor) -> bool:
    """Whether an optimizer's value keeps its form; a history, for one, grows."""
    if isinstance(value, Tensor):
        return value.dim() == 0 or value.shape == param.shape
    return isinstance(value, int | float)


def _kind(value: Any) -> object:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number" if math.isfinite(value) else "no number"
    return type(value)


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"a mapping of {', '.join(map(str, value))[:80] or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r}"[:60]
