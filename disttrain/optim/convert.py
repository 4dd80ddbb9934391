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

_EXPECTED: Mapping[str, Mapping[str, Any]] = {
    "lamb": {
        "grad_averaging": True,
        "caution": False,
        "decoupled_decay": False,
        "corrected_weight_decay": False,
        "amsgrad": False,
    },
    "lars": {"dampening": 0.0},
}
"""Options of the other libraries that ours have no counterpart of, and the value at which they do nothing."""


def convert_state(state_dict: Mapping[str, Any], source: str, optimizer: LayerwiseOptimizer) -> State:
    """A ``state_dict`` for ``optimizer`` with the moments and counters of another library's.

    ================  ======================================  ============================================================
    source            what maps                               what changes
    ================  ======================================  ============================================================
    ``timm-lamb``     ``exp_avg``, ``exp_avg_sq``             nothing with ``shared_steps=True``, as the presets have it
    ``apex-lamb``     ``exp_avg``, ``exp_avg_sq``             likewise
    ``timm-lars``     ``momentum_buffer``                     nothing
    ================  ======================================  ============================================================

    Hyper-parameters are those of ``optimizer``, except for ``lr``, which is taken over: betas, eps, decay and clipping are
    not compared. Parameters must be in the same order and groups. apex does not save ``adam_w_mode``; ours is the one with
    ``adam_w_mode=True``, its default.

    Args:
        state_dict: of the other optimizer, as its ``state_dict()`` gives it.
        source: see the table.
        optimizer: a new LAMB or LARS over the same parameters.

    Raises:
        ValueError: the conversion would not be exact: another number of parameters, other shapes, states that are not known,
            a trainable parameter without moments in a LAMB that has begun and counts each by itself, another kind of
            optimizer, an option without counterpart here, or momentum with the rate inside but without momentum correction.

    Examples:
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
        _check_options(their_group, kind)
        group["lr"] = their_group["lr"]
        for their_index, index, p in zip(their_group["params"], group["params"], real["params"], strict=True):
            state = state_dict["state"].get(their_index)
            if state:
                states[index] = convert(state, their_group, group, p)
            elif kind is LAMB and group["shared_steps"] and "step" in their_group:
                states[index] = {"step": _count(their_group["step"])}
            elif kind is LAMB and p.requires_grad and their_group.get("step", 0):
                raise ValueError(
                    f"parameter {index} has no moments after {int(their_group['step'])} steps of its group: its first step "
                    "would be corrected for that many there and for one here; use shared_steps=True"
                )
    return {"state": states, "param_groups": ours["param_groups"]}


def _check_options(theirs: Mapping[str, Any], kind: type) -> None:
    for name, neutral in _EXPECTED["lamb" if kind is LAMB else "lars"].items():
        if bool(theirs.get(name, neutral)) != bool(neutral):
            raise ValueError(f"{name}={theirs[name]} has no counterpart here")


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
        "step": _count(step),
        "exp_avg": _like(state["exp_avg"], p),
        "exp_avg_sq": _like(state["exp_avg_sq"], p),
    }


def _lars(state: Mapping[str, Any], theirs: Mapping[str, Any], ours: Mapping[str, Any], p: Tensor) -> State:
    if state.keys() != {"momentum_buffer"}:
        raise ValueError(f"a state of {', '.join(sorted(state))} is not that of LARS with momentum")
    buffer = _like(state["momentum_buffer"], p)
    if ours["lr_in_momentum"] and not ours["momentum_correction"]:
        raise ValueError(
            "timm's buffer has the learning rate outside: without momentum_correction=True the runs would part at the next "
            "change of the learning rate; use lr_in_momentum=False, or momentum_correction=True"
        )
    return {"momentum_buffer": buffer}


def _count(step: Any) -> Tensor:
    return torch.tensor(float(step), dtype=torch.float32)


def _like(tensor: Tensor, p: Tensor) -> Tensor:
    if tensor.shape != p.shape:
        raise ValueError(f"a state of shape {tuple(tensor.shape)} does not fit a parameter of shape {tuple(p.shape)}")
    dtype = torch.float32 if p.dtype in (torch.float16, torch.bfloat16) else p.dtype
    return tensor.detach().to(device=p.device, dtype=dtype).clone()
