"""Optimizer states of other libraries, made ours. What cannot be converted exactly is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from disttrain.optim.lamb import LAMB
from disttrain.optim.lars import LARS
from disttrain.optim.layerwise import LayerwiseOptimizer

State = dict[str, Any]


def convert_state(state_dict: Mapping[str, Any], source: str, optimizer: LayerwiseOptimizer) -> State:
    """A ``state_dict`` for ``optimizer`` with the moments and counters of another library's.

    ================  ======================================  ============================================================
    source            what maps                               what changes
    ================  ======================================  ============================================================
    ``timm-lamb``     ``exp_avg``, ``exp_avg_sq``             timm counts steps per group, we per parameter
    ``apex-lamb``     ``exp_avg``, ``exp_avg_sq``             likewise
    ``timm-lars``     ``momentum_buffer``                     into ``lr_in_momentum=True`` the buffer is multiplied with lr
    ================  ======================================  ============================================================

    Hyper-parameters are those of ``optimizer``, except for ``lr``, which is taken over. Parameters must be in the same order
    and groups.

    Args:
        state_dict: of the other optimizer, as its ``state_dict()`` gives it.
        source: see the table.
        optimizer: a new LAMB or LARS over the same parameters.

    Raises:
        ValueError: the conversion would not be exact: another number of parameters, other shapes, states that are missing or
            not known, another kind of optimizer, or momentum correction without the learning rate it needs.

    Example:
        ``optimizer.load_state_dict(convert_state(torch.load("timm.pt"), "timm-lamb", optimizer))``
    """
    converters: Mapping[str, tuple[type, Callable[..., State]]] = {
        "timm-lamb": (LAMB, _lamb),
        "apex-lamb": (LAMB, _lamb),
        "timm-lars": (LARS, _lars),
    }
    if source not in converters:
        raise ValueError(f"source {source!r}: expected one of {', '.join(converters)}")
    kind, convert = converters[source]
    if not isinstance(optimizer, kind):
        raise ValueError(f"source {source} becomes {kind.__name__}, not {type(optimizer).__name__}")
    ours = optimizer.state_dict()
    theirs = state_dict["param_groups"]
    counts = [[len(group["params"]) for group in groups] for groups in (theirs, ours["param_groups"])]
    if counts[0] != counts[1]:
        raise ValueError(f"the groups have {counts[0]} parameters there and {counts[1]} here")
    states: dict[int, State] = {}
    for their_group, group, real in zip(theirs, ours["param_groups"], optimizer.param_groups, strict=True):
        group["lr"] = their_group["lr"]
        for their_index, index, p in zip(their_group["params"], group["params"], real["params"], strict=True):
            state = state_dict["state"].get(their_index)
            if state is not None:
                states[index] = convert(state, their_group, group, p)
    return {"state": states, "param_groups": ours["param_groups"]}


def _lamb(state: Mapping[str, Any], theirs: Mapping[str, Any], ours: Mapping[str, Any], p: Tensor) -> State:
    unknown = state.keys() - {"exp_avg", "exp_avg_sq", "step"}
    if unknown or not {"exp_avg", "exp_avg_sq"} <= state.keys():
        raise ValueError(f"a state of {', '.join(sorted(state))} is not LAMB's")
    step = theirs.get("step", state.get("step"))
    if step is None:
        raise ValueError("neither the group nor the parameter says how many steps were taken")
    if isinstance(step, Tensor) and step.numel() != 1:
        raise ValueError("the group has a step count for each of several tensors")
    return {
        "step": torch.tensor(float(step), dtype=torch.float32),
        "exp_avg": _like(state["exp_avg"], p),
        "exp_avg_sq": _like(state["exp_avg_sq"], p),
    }


def _lars(state: Mapping[str, Any], theirs: Mapping[str, Any], ours: Mapping[str, Any], p: Tensor) -> State:
    if state.keys() != {"momentum_buffer"}:
        raise ValueError(f"a state of {', '.join(sorted(state)) or 'nothing'} is not that of LARS with momentum")
    if theirs.get("dampening", 0.0):
        raise ValueError(f"dampening {theirs['dampening']} has no counterpart here")
    buffer = _like(state["momentum_buffer"], p)
    if not ours["lr_in_momentum"]:
        return {"momentum_buffer": buffer}
    # v_inside = lr * v_outside for the lr of the last step, which is the one that the group still holds. From there on the
    # two forms are the same algorithm only with momentum correction.
    if not ours["momentum_correction"]:
        raise ValueError(
            "timm's buffer has the learning rate outside: without momentum_correction=True the runs would part at the next "
            "change of the learning rate; use lr_in_momentum=False, or momentum_correction=True"
        )
    return {"momentum_buffer": buffer * theirs["lr"], "previous_lr": theirs["lr"]}


def _like(tensor: Tensor, p: Tensor) -> Tensor:
    if tensor.shape != p.shape:
        raise ValueError(f"a state of shape {tuple(tensor.shape)} does not fit a parameter of shape {tuple(p.shape)}")
    dtype = torch.float32 if p.dtype in (torch.float16, torch.bfloat16) else p.dtype
    return tensor.detach().to(device=p.device, dtype=dtype).clone()
